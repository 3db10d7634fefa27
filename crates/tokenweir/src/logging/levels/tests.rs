use super::*;

fn pairs(text: &str) -> Vec<(String, String)> {
    let pairs = text.split('&').map(|pair| pair.split_once('=').unwrap());
    pairs.map(|(name, level)| (name.to_owned(), level.to_owned())).collect()
}

#[test]
fn rooms_differ_from_the_level_for_all_wherever_that_stands() {
    let levels = Levels::parse("proxy=debug, warn").unwrap();
    assert_eq!(levels, Levels::parse("warn,proxy=debug").unwrap());
    let shown = levels.shown();
    assert_eq!((&shown["level"], &shown["rooms"]["proxy"]), (&"warn".into(), &"debug".into()));
    assert_eq!(shown["rooms"]["picker"], "warn");
}

#[test]
fn libraries_never_log_what_they_carry() {
    let directives = Levels::parse("trace").unwrap().directives();
    assert!(directives.starts_with("info,kube_client=off,admin=trace,"), "{directives}");
    assert!(Levels::parse("error").unwrap().directives().starts_with("error,"));
    assert!(Levels::parse("hyper=trace").is_err(), "only rooms can be set");
}

#[test]
fn a_change_with_a_mistake_changes_nothing_and_says_what_can_be_written() {
    let levels = Levels::parse("info,proxy=debug").unwrap();
    for (wrong, said) in [
        (
            "picker=debug&proxies=warn",
            "proxies cannot be set; expected level, for all, or one of admin, ",
        ),
        ("picker=loud", "picker=loud: expected off, error, "),
        ("level=", "level=: expected off, "),
    ] {
        let error = levels.change(&pairs(wrong)).unwrap_err();
        assert!(error.starts_with(said), "{error}");
    }
}

#[test]
fn a_level_for_all_takes_back_those_of_rooms() {
    let levels = Levels::parse("info,proxy=debug").unwrap();
    let levels = levels.change(&pairs("level=warn&picker=trace")).unwrap();
    assert_eq!(levels, Levels::parse("warn,picker=trace").unwrap());
}
