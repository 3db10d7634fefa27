//! When the Python environment is kept and when it is made again.

use super::*;

#[test]
fn an_environment_is_current_only_with_the_same_pins() {
    let folder = std::env::temp_dir().join(format!("xtask-e2e-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a temporary folder");
    assert!(!is_current(&folder, "a==1\n"), "nothing is installed yet");
    fs::write(folder.join(STAMP), "a==1\n").expect("the stamp");
    assert!(is_current(&folder, "a==1\n"));
    assert!(!is_current(&folder, "a==2\n"), "another pin");
    fs::remove_dir_all(&folder).expect("the folder is ours");
}

#[test]
fn a_python_that_is_gone_does_not_start() {
    assert!(!starts(Path::new("no/such/python")));
}
