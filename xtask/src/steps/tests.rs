//! The runner of steps.

use std::process::Command;

use super::*;

#[test]
fn all_steps_run_in_order_when_none_is_chosen() {
    let names: Vec<_> = chosen(&[]).map(Step::name).collect();
    assert_eq!(names, ["fmt", "clippy", "test", "fuzz", "build", "generated", "e2e", "kubernetes"]);
}

#[test]
fn chosen_steps_keep_their_own_order() {
    let names: Vec<_> = chosen(&[Step::E2e, Step::Build]).map(Step::name).collect();
    assert_eq!(names, ["build", "e2e"]);
}

#[test]
fn the_names_on_the_command_line_are_the_names_shown() {
    for step in Step::ALL {
        let value = step.to_possible_value().expect("no step is hidden");
        assert_eq!(value.get_name(), step.name());
    }
}

#[test]
fn a_command_is_shown_as_one_could_type_it() {
    let mut command = Command::new("pip");
    command.args(["install", "httpx[http2]==1", "it's"]).env("KEY", "a b");
    assert_eq!(shown(&command), r"KEY='a b' pip install 'httpx[http2]==1' 'it'\''s'");
}

#[test]
fn a_failing_command_is_an_error_that_names_it() {
    let error = run_shown(Command::new("cargo").arg("no-such-command")).expect_err("must fail");
    assert!(error.to_string().contains("cargo no-such-command"), "{error}");
}
