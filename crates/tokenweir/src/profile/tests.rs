use super::*;

fn read(text: &str) -> Result<Profile, String> {
    let file =
        std::env::temp_dir().join(format!("profile-{}-{}.yaml", std::process::id(), text.len()));
    std::fs::write(&file, text).unwrap();
    let read = profile(file.to_str().unwrap());
    std::fs::remove_file(&file).unwrap();
    read
}

#[test]
fn a_file_changes_what_it_names_of_the_profile_it_is_based_on() {
    let read = read("based_on: h100-llama3-8b\ncost_ms: { k: 1.0e-4 }\nkv_blocks: 100\n").unwrap();
    let base = Profile::named("h100-llama3-8b").unwrap();
    assert_eq!((read.cost.k, read.blocks), (1.0e-4, 100));
    assert_eq!((read.cost.b, read.max_num_seqs), (base.cost.b, base.max_num_seqs));
}

#[test]
fn a_broken_file_says_what_is_wrong() {
    for (text, part) in [
        ("based_on: h200\n", "no profile is called"),
        ("cost_ms: { b: -1 }\nkv_blocks: 0\n", "kv_blocks: expected a number above 0"),
        ("cost_ms: { c: 1 }\n", "unknown field"),
        ("kv_blocks: many\n", "kv_blocks"),
    ] {
        let error = read(text).unwrap_err();
        assert!(error.contains(part), "{text}: {error}");
    }
    assert!(profile("nowhere").unwrap_err().contains("there is no such file"));
}
