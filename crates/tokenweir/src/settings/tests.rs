use std::{fs, path::PathBuf};

use clap::Parser;

use super::*;
use crate::args::{Args, Command};

/// A settings file that is gone after the test.
struct File(PathBuf);

impl File {
    fn new(name: &str, text: &str) -> Self {
        let name = format!("tokenweir-settings-{name}-{}.yaml", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::write(&path, text).unwrap();
        Self(path)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        fs::remove_file(&self.0).ok();
    }
}

/// Reads flags and the file's text as `tokenweir serve` does. In problems the file is `FILE`.
fn read(name: &str, flags: &[&str], text: Option<&str>) -> Result<Settings, Vec<String>> {
    let file = text.map(|text| File::new(name, text));
    let path = file.as_ref().map_or("FILE".to_owned(), |file| file.0.display().to_string());
    let mut words = vec!["tokenweir", "serve", "--endpoint=http://127.0.0.1:1"];
    words.extend(flags);
    if file.is_some() {
        words.extend(["--config", &path]);
    }
    let Command::Serve(args) = Args::try_parse_from(words).unwrap().command else {
        panic!("not `serve`")
    };
    let read = Settings::read(&args.settings, Settings::default());
    read.map_err(|problems| {
        problems.into_iter().map(|problem| problem.replace(&path, "FILE")).collect()
    })
}

/// What `flags` and `text` change, as the admin port shows it, or each problem's beginning.
fn check(name: &str, flags: &[&str], text: Option<&str>, expected: Result<&[&str], &[&str]>) {
    match (read(name, flags, text), expected) {
        (Ok(settings), Ok(expected)) => {
            let changed = changed(&settings);
            assert_eq!(changed, expected, "{flags:?} {text:?}");
        }
        (Err(problems), Err(expected)) => {
            assert_eq!(problems.len(), expected.len(), "{problems:#?}");
            for (problem, expected) in problems.iter().zip(expected) {
                assert!(problem.starts_with(expected), "{problem:?} is not {expected:?}");
            }
        }
        (read, _) => panic!("{flags:?} {text:?}: {read:?}"),
    }
}

/// The settings that are not at their defaults, as `key=value`.
fn changed(settings: &Settings) -> Vec<String> {
    let shown = |settings: &Settings| serde_json::to_value(settings.shown()).unwrap();
    let (mine, base) = (shown(settings), shown(&Settings::default()));
    let mine = mine.as_object().unwrap();
    let differs = mine.iter().filter(|(key, value)| base[key.as_str()] != **value);
    differs.map(|(key, value)| format!("{key}={value}").replace('"', "")).collect()
}

/// One setting's value for each text, or the beginning of what is wrong with it. As flag and as
/// key the answers are the same.
fn each(key: &str, cases: &[(&str, Result<&str, &str>)]) {
    for (text, expected) in cases {
        let flag = format!("--{key}={text}");
        let line = format!("\n{key}: {text:?}\n");
        match expected {
            Ok(value) => {
                let value = format!("{key}={value}");
                let value = [value.as_str()];
                let value = if value[0].ends_with('=') { &value[..0] } else { &value[..] };
                check(key, &[&flag], None, Ok(value));
                check(key, &[], Some(&line), Ok(value));
            }
            Err(wrong) => {
                check(key, &[&flag], None, Err(&[&format!("--{key}: {text:?}: {wrong}")]));
                let place = format!("FILE:2: {key}: {text:?}: {wrong}");
                check(key, &[], Some(&line), Err(&[&place]));
            }
        }
    }
}

#[test]
fn the_defaults_are_those_of_the_help_text() {
    let help = Args::try_parse_from(["tokenweir", "serve", "--help"]).unwrap_err().to_string();
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    let shown = serde_json::to_value(Settings::default().shown()).unwrap();
    let shown = shown.as_object().unwrap();
    // Sections have no flags; namespaces and the Service have no defaults.
    let in_help = |key: &str, value: &serde_json::Value| {
        !["limits", "traces"].contains(&key) && !value.is_null()
    };
    for (key, value) in shown.iter().filter(|(key, value)| in_help(key, value)) {
        let value = match value.as_object() {
            Some(labels) => {
                let pairs = labels.iter().map(|(key, value)| format!("{key}={value}"));
                pairs.collect::<Vec<_>>().join(",")
            }
            None => value.to_string(),
        };
        let (_, rest) = help.split_once(&format!("--{key} <")).unwrap();
        let (about, _) = rest.split_once(']').unwrap();
        let (_, default) = about.split_once("[default: ").unwrap();
        assert_eq!(default, value.replace('"', ""), "{key}");
    }
    assert_eq!(shown.len(), 16);
}

#[test]
fn nothing_said_changes_nothing() {
    check("nothing", &[], None, Ok(&[]));
    check("nothing", &[], Some(""), Ok(&[]));
    check("nothing", &[], Some(" \n"), Ok(&[]));
    check("nothing", &[], Some("# nothing\n"), Ok(&[]));
    check("nothing", &[], Some("{}"), Ok(&[]));
    check("nothing", &[], Some("policy:\nlabels:\nendpoint-header:\n"), Ok(&[]));
}

const WHOLE: &str = "\
bind: 127.0.0.2
admin: 127.0.0.1:1
health: 127.0.0.1:2
stats: '[::1]:3'
labels: {gateway: blue, tier: 1}
policy: random
drain-timeout: 5s
log-format: text
scrape-interval: 250ms
endpoint-header: false
namespace: team-a
lease-name: blue
lease-namespace: infra
publish-service: infra/blue
";

#[test]
fn every_setting_can_be_in_the_file() {
    let expected = [
        "admin=127.0.0.1:1",
        "bind=127.0.0.2",
        "drain-timeout=5s",
        "endpoint-header=false",
        "health=127.0.0.1:2",
        "labels={gateway:blue,tier:1}",
        "lease-name=blue",
        "lease-namespace=infra",
        "log-format=text",
        "namespace=team-a",
        "policy=random",
        "publish-service=infra/blue",
        "scrape-interval=250ms",
        "stats=[::1]:3",
    ];
    check("whole", &[], Some(WHOLE), Ok(&expected));
}

#[test]
fn a_flag_wins_over_the_file() {
    let flags = [
        "--bind=127.0.0.9",
        "--admin=127.0.0.9:1",
        "--health=127.0.0.9:2",
        "--stats=127.0.0.9:3",
        "--labels=a=b",
        "--policy=least-request",
        "--drain-timeout=9s",
        "--log-format=json",
        "--scrape-interval=9s",
        "--endpoint-header=true",
        "--namespace=team-b",
        "--lease-name=green",
        "--lease-namespace=infra-b",
        "--publish-service=green",
    ];
    let expected = [
        "admin=127.0.0.9:1",
        "bind=127.0.0.9",
        "drain-timeout=9s",
        "health=127.0.0.9:2",
        "labels={a:b}",
        "lease-name=green",
        "lease-namespace=infra-b",
        "namespace=team-b",
        "policy=least-request",
        "publish-service=green",
        "scrape-interval=9s",
        "stats=127.0.0.9:3",
    ];
    check("wins", &flags, Some(WHOLE), Ok(&expected));
    check("wins", &flags, None, Ok(&expected));
    check("wins", &["--policy=random"], Some("policy: round-robin"), Ok(&["policy=random"]));
}

#[test]
fn what_neither_says_comes_from_the_command() {
    let base = Settings { policy: Policy::Random, ..Settings::default() };
    let args = SettingArgs { bind: Some("127.0.0.1".to_owned()), ..SettingArgs::default() };
    let settings = Settings::read(&args, base).unwrap();
    assert_eq!(changed(&settings), ["bind=127.0.0.1", "policy=random"]);
}

#[test]
fn addresses_are_numbers_with_their_port() {
    let wrong = Err("expected an address and port such as 127.0.0.1:15000");
    for key in ["admin", "health", "stats"] {
        let cases = [
            ("127.0.0.1:0", Ok("127.0.0.1:0")),
            ("[::]:80", Ok("[::]:80")),
            ("localhost:80", wrong),
            ("127.0.0.1", wrong),
            (":80", wrong),
            ("127.0.0.1:65536", wrong),
            ("", wrong),
        ];
        each(key, &cases);
    }
    let wrong = Err("expected an IP address");
    each("bind", &[("::1", Ok("::1")), ("0.0.0.0:80", wrong), ("host", wrong), ("", wrong)]);
}

#[test]
fn times_have_a_unit_and_a_range() {
    let wrong = Err("expected a time between 0ns and 86400s, such as 1s or 500ms");
    let cases = [
        ("0s", Ok("0ns")),
        ("1500ms", Ok("1.5s")),
        ("1.5s", Ok("1.5s")),
        ("1m 30s", Ok("90s")),
        ("2h", Ok("7200s")),
        ("PT90S", Ok("90s")),
        ("24h", Ok("86400s")),
        ("24h 1ns", wrong),
        ("-1s", wrong),
        ("60", wrong),
        ("1d", wrong),
        ("soon", wrong),
        ("", wrong),
    ];
    each("drain-timeout", &cases);
    let wrong = Err("expected a time between 50ms and 86400s, such as 1s or 500ms");
    let cases = [("50ms", Ok("50ms")), ("2s", Ok("2s")), ("49ms", wrong), ("0s", wrong)];
    each("scrape-interval", &cases);
}

#[test]
fn words_are_those_of_the_list() {
    for policy in Policy::ALL {
        let base = Policy::default() == policy;
        each("policy", &[(policy.name(), Ok(if base { "" } else { policy.name() }))]);
    }
    let unknown = "no policy is called \"fastest\"; use one of predicted, queue-kv,";
    each("policy", &[("fastest", Err(unknown))]);
    each("policy", &[("Random", Err("no policy is called \"Random\""))]);
    let wrong = Err("expected json or text");
    each("log-format", &[("text", Ok("text")), ("json", Ok("")), ("xml", wrong), ("", wrong)]);
    let wrong = Err("expected true or false");
    each("endpoint-header", &[("false", Ok("false")), ("true", Ok("")), ("maybe", wrong)]);
}

#[test]
fn names_are_such_as_kubernetes_takes() {
    let wrong = Err("expected a name of lower-case letters, digits and hyphens");
    for key in ["namespace", "lease-name", "lease-namespace"] {
        let long = "a".repeat(64);
        each(key, &[("team-1", Ok("team-1")), ("", wrong), ("Team", wrong), ("-a", wrong)]);
        each(key, &[("a/b", wrong), (&long, wrong)]);
    }
    let wrong =
        Err("expected the name of a Service, or its namespace and name such as infra/gateway");
    let right = [("gateway", Ok("gateway")), ("infra/gateway", Ok("infra/gateway"))];
    each("publish-service", &right);
    each("publish-service", &[("", wrong), ("/a", wrong), ("a/", wrong), ("a/b/c", wrong)]);
}

#[test]
fn labels_are_pairs() {
    let wrong = |text: &str| format!("--labels: {text:?}: expected key=value,key=value");
    let cases = [
        ("a=b", Some("labels={a:b}")),
        ("a=b,c=d", Some("labels={a:b,c:d}")),
        (" a = b , c = d ", Some("labels={a:b,c:d}")),
        ("a=b,", Some("labels={a:b}")),
        ("a=b=c", Some("labels={a:b=c}")),
        ("a=", Some("labels={a:}")),
        ("", Some("labels={}")),
        ("a", None),
        ("a=b,c", None),
        ("=b", None),
        (" =b", None),
    ];
    for (text, expected) in cases {
        let flag = format!("--labels={text}");
        match expected {
            Some(labels) => check("labels", &[&flag], None, Ok(&[labels])),
            None => check("labels", &[&flag], None, Err(&[&wrong(text)])),
        }
    }
    let replaced = Ok(&["labels={a:b}"][..]);
    check("labels", &[], Some("labels: {a: b}"), replaced);
}

#[test]
fn every_wrong_value_is_reported_at_once_with_its_place() {
    let text = "policy: fastest\n\nendpoint-header: maybe\nstats: here\nhealth: 127.0.0.1:2\n";
    let flags = ["--drain-timeout=soon", "--labels=a"];
    let expected = [
        "FILE:4: stats: \"here\": expected an address and port",
        "--labels: \"a\": expected key=value",
        "FILE:1: policy: \"fastest\": no policy is called",
        "--drain-timeout: \"soon\": expected a time",
        "FILE:3: endpoint-header: \"maybe\": expected true or false",
    ];
    check("wrong", &flags, Some(text), Err(&expected));
}

#[test]
fn a_file_that_cannot_be_read_hides_no_wrong_flag() {
    let flags = ["--config=/nowhere/settings.yaml", "--policy=fastest"];
    let expected =
        ["/nowhere/settings.yaml: cannot be read: ", "--policy: \"fastest\": no policy is called"];
    check("unreadable", &flags, None, Err(&expected));
}

#[test]
fn an_unknown_key_is_refused_with_its_line() {
    let cases = [
        ("policy: random\nbogus: 1\n", "FILE:2: unknown field `bogus`, expected one of bind,"),
        ("drain_timeout: 1s\n", "FILE:1: unknown field `drain_timeout`"),
        ("\n\nconfig: x\n", "FILE:3: unknown field `config`"),
        ("bind: ::1\nbind: ::1\n", "FILE:2: duplicate mapping key: bind"),
        ("labels: a=b\n", "FILE:1: expected mapping start"),
        ("bind: ::1\nadmin: [1]\n", "FILE:2: expected string scalar"),
        ("- bind\n", "FILE:1: expected mapping start"),
    ];
    for (text, problem) in cases {
        check("unknown", &[], Some(text), Err(&[problem]));
        let both = [problem, "--policy: \"x\": no policy is called"];
        check("unknown", &["--policy=x"], Some(text), Err(&both));
    }
}

#[test]
fn limits_are_a_section_of_the_file() {
    let text = "\
limits:
  connections: 1
  connection-idle-timeout: 2s
  connection-age: 3s
  http2-streams: 4
  headers: 5
  header-bytes: 6000
  header-timeout: 7s
  body-timeout: 8s
  body-bytes-total: 90000
  write-timeout: 10s
  connect-timeout: 11s
  endpoint-idle-timeout: 12s
  endpoint-idle-connections: 13
";
    let settings = read("limits", &[], Some(text)).unwrap();
    let shown = serde_json::to_value(settings.shown()).unwrap()["limits"].clone();
    for (key, value) in shown.as_object().unwrap() {
        let value = value.to_string().replace('"', "");
        assert!(text.contains(&format!("  {key}: {value}\n")), "{key}: {value}");
    }
    let Limits { connections_max, connection_age_max, write_timeout, .. } = settings.limits;
    assert_eq!((connections_max, connection_age_max.as_secs()), (1, 3));
    assert_eq!(write_timeout.as_secs(), 10);
}

#[test]
fn a_limit_that_cannot_be_is_reported_with_its_place() {
    let text = "limits:\n  connections: 0\n  headers: many\n  header-timeout: 30\n";
    let connections = "FILE:2: limits.connections: \"0\": expected a whole number from 1 to";
    let headers = "FILE:3: limits.headers: \"many\": expected a whole number from 1 to 400";
    let time = "FILE:4: limits.header-timeout: \"30\": expected a time between";
    check("limit", &[], Some(text), Err(&[connections, headers, time]));
    check("no-limit", &[], Some("limits:\n  connectoins: 1\n"), Err(&["FILE:2: "]));
}
