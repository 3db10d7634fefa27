use super::*;
use crate::{PoolKind, StringMatch, WeightedPool};

fn pool(name: &str) -> PoolKey {
    let namespace = "default".into();
    PoolKey { kind: PoolKind::InferencePool, namespace, name: name.into(), port: 0 }
}

/// `*`, `*.example.com` or a name.
fn host(text: &str) -> HostPattern {
    match text.strip_prefix('*') {
        Some("") => HostPattern::Any,
        Some(suffix) => HostPattern::Suffix(suffix.to_owned()),
        None => HostPattern::Exact(text.to_owned()),
    }
}

/// `/v1*` is a prefix, `~/v[12]` an expression, anything else the text itself.
fn string(text: &str) -> StringMatch {
    match (text.strip_prefix('~'), text.strip_suffix('*')) {
        (Some(pattern), _) => StringMatch::regex(pattern).unwrap(),
        (None, Some(prefix)) => StringMatch::Prefix(prefix.to_owned()),
        (None, None) => StringMatch::Exact(text.to_owned()),
    }
}

/// `/v1* user=ann beta` is a path and two headers, the second asked for presence only; `-` is no
/// condition at all.
fn one_match(text: &str) -> RouteMatch {
    let mut one = RouteMatch::default();
    for word in text.split_whitespace().filter(|word| *word != "-") {
        match word.split_once('=') {
            Some((name, value)) => one.headers.push((name.to_owned(), Some(string(value)))),
            None if word.starts_with(['/', '~']) => one.path = Some(string(word)),
            None => one.headers.push((word.to_owned(), None)),
        }
    }
    one
}

/// `match || match -> pool:3 pool:1`; without the arrow everything matches.
fn rule(text: &str) -> RouteRule {
    let (matches, pools) = text.split_once("->").unwrap_or(("", text));
    let weighted = |text: &str| {
        let (name, weight) = text.split_once(':').unwrap_or((text, "1"));
        WeightedPool { pool: pool(name), weight: weight.parse().unwrap() }
    };
    let matches = matches.split("||").filter(|text| !text.trim().is_empty());
    RouteRule {
        name: None,
        matches: matches.map(one_match).collect(),
        pools: pools.split_whitespace().map(weighted).collect(),
        timeout: None,
    }
}

/// One route a line: `80 host host: rule; rule`, named `r0`, `r1`, and so on.
fn routes(text: &str) -> Vec<RouteSpec> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines
        .enumerate()
        .map(|(index, line)| {
            let (head, rules) = line.split_once(": ").unwrap();
            let mut words = head.split_whitespace();
            RouteSpec {
                name: format!("r{index}").into(),
                port: words.next().unwrap().parse().unwrap(),
                hosts: words.map(host).collect(),
                rules: rules.split(';').filter(|text| !text.trim().is_empty()).map(rule).collect(),
            }
        })
        .collect()
}

/// `80 host /path name=value …`.
struct Query<'a> {
    port: u16,
    host: &'a str,
    path: &'a str,
    headers: Vec<(&'a str, &'a str)>,
}

impl<'a> Query<'a> {
    fn new(text: &'a str) -> Self {
        let words: Vec<&str> = text.split_whitespace().collect();
        let [port, host, path, headers @ ..] = words.as_slice() else { panic!("{text}") };
        let headers = headers.iter().map(|word| word.split_once('=').unwrap()).collect();
        Self { port: port.parse().unwrap(), host, path, headers }
    }
}

impl RouteQuery for Query<'_> {
    fn port(&self) -> u16 {
        self.port
    }
    fn host(&self) -> &str {
        self.host
    }
    fn path(&self) -> &str {
        self.path
    }
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| *key == name).map(|(_, value)| *value)
    }
}

/// Each request with the pool it reaches, or the reason it is refused for.
fn check(text: &str, requests: &[(&str, &str)]) {
    let table = RouteTable::new(&routes(text));
    for (request, expected) in requests {
        let found = match table.route(&Query::new(request), Chance::new(0, 1)) {
            Ok(routed) => routed.pool.name.to_string(),
            Err(refusal) => refusal.wire().reason.to_owned(),
        };
        assert_eq!(found, *expected, "{request}");
    }
}

/// How many of 10,000 requests each pool gets.
fn shares(rules: &str) -> BTreeMap<String, u32> {
    let table = RouteTable::new(&routes(&format!("80 *: {rules}")));
    let mut counts = BTreeMap::new();
    for draw in 0..10_000 {
        let routed = table.route(&Query::new("80 h /"), Chance::new(draw, draw)).unwrap();
        *counts.entry(routed.pool.name.to_string()).or_default() += 1;
    }
    counts
}

#[test]
fn the_most_specific_host_wins_whatever_the_order() {
    let lines = [
        "80 *: any",
        "80 *.example.com: short",
        "80 *.a.example.com: long",
        "80 x.a.example.com: exact",
    ];
    let requests = [
        ("80 x.a.example.com /", "exact"),
        ("80 y.a.example.com /", "long"),
        ("80 z.y.a.example.com /", "long"),
        ("80 a.example.com /", "short"),
        ("80 b.example.com /", "short"),
        ("80 example.com /", "any"),
        ("80 badexample.com /", "any"),
        ("80 10.0.0.1 /", "any"),
    ];
    check(&lines.join("\n"), &requests);
    let backwards: Vec<&str> = lines.into_iter().rev().collect();
    check(&backwards.join("\n"), &requests);
}

#[test]
fn a_suffix_does_not_match_itself() {
    let requests = [("80 .b /", "no_route"), ("80 b /", "no_route"), ("80 a.b /", "p")];
    check("80 *.b: p", &requests);
}

#[test]
fn a_route_holds_for_each_of_its_hosts() {
    let requests = [("80 a /", "p"), ("80 b /", "p"), ("80 x.c /", "p"), ("80 d /", "no_route")];
    check("80 a b *.c: p", &requests);
}

#[test]
fn among_equal_hosts_the_first_route_wins() {
    check("80 a: first\n80 a: second", &[("80 a /", "first")]);
    check("80 *: first\n80 *: second", &[("80 a /", "first")]);
    check("80 *.a: first\n80 *.a: second", &[("80 b.a /", "first")]);
}

#[test]
fn a_route_holds_on_its_port_alone() {
    let requests = [("80 a /", "p"), ("81 a /", "q"), ("82 a /", "no_route")];
    check("80 a: p\n81 *: q", &requests);
    check("", &[("80 a /", "no_route")]);
}

#[test]
fn a_path_matches_as_a_whole_by_its_beginning_or_by_an_expression() {
    let rules = "80 *: /v1/models -> exact; /v1/* -> prefix; ~/v[23](/.*)?|/w -> regex";
    let requests = [
        ("80 h /v1/models", "exact"),
        ("80 h /v1/models/x", "prefix"),
        ("80 h /v1/", "prefix"),
        ("80 h /v1", "no_route"),
        ("80 h /V1/models", "no_route"),
        ("80 h /v2", "regex"),
        ("80 h /v3/x", "regex"),
        ("80 h /v2x", "no_route"),
        ("80 h /x/v2", "no_route"),
        ("80 h /w", "regex"),
        ("80 h /wx", "no_route"),
        ("80 h /x/w", "no_route"),
    ];
    check(rules, &requests);
}

#[test]
fn a_header_matches_as_a_path_does_or_by_being_there() {
    let rules = "80 *: user=ann -> exact; user=team-* -> prefix; user=~[0-9]+ -> regex; \
                 user -> there";
    let requests = [
        ("80 h / user=ann", "exact"),
        ("80 h / user=anna", "there"),
        ("80 h / user=team-a", "prefix"),
        ("80 h / user=a-team-a", "there"),
        ("80 h / user=42", "regex"),
        ("80 h / user=42a", "there"),
        ("80 h / user=", "there"),
        ("80 h / other=ann", "no_route"),
        ("80 h /", "no_route"),
    ];
    check(rules, &requests);
}

#[test]
fn all_conditions_of_a_match_and_any_match_of_a_rule_must_hold() {
    let rules = "80 *: /a user=ann beta || /b -> p";
    let requests = [
        ("80 h /a user=ann beta=1", "p"),
        ("80 h /a user=ann", "no_route"),
        ("80 h /a beta=1", "no_route"),
        ("80 h /c user=ann beta=1", "no_route"),
        ("80 h /b", "p"),
    ];
    check(rules, &requests);
}

#[test]
fn the_first_rule_that_matches_is_taken() {
    let rules = "80 *: /v1* -> first; /v1/models -> second; rest";
    let requests = [("80 h /v1/models", "first"), ("80 h /v2", "rest")];
    check(rules, &requests);
    check("80 *: - -> first; rest", &[("80 h /v2", "first")]);
}

#[test]
fn a_request_no_rule_of_its_most_specific_host_takes_has_no_route() {
    let text = "80 a.b: /exact -> exact
                80 *.b: /suffix -> suffix
                80 a.b: /second -> second
                80 *: /any -> any
                80 a.b: ;";
    let requests = [
        ("80 a.b /exact", "exact"),
        ("80 a.b /second", "second"),
        ("80 a.b /suffix", "no_route"),
        ("80 a.b /any", "no_route"),
        ("80 x.b /suffix", "suffix"),
        ("80 x.b /exact", "no_route"),
        ("80 x /any", "any"),
    ];
    check(text, &requests);
}

#[test]
fn a_refusal_names_host_and_path_in_brief() {
    let table = RouteTable::default();
    let path = "/x".repeat(300);
    let text = format!("80 some.host {path}");
    let refusal = table.route(&Query::new(&text), Chance::new(0, 0)).unwrap_err();
    let expected = Refusal::NoRoute { host: "some.host".to_owned(), path: "/x".repeat(100) };
    assert_eq!(refusal, expected);
}

#[test]
fn what_a_route_says_comes_with_its_pool() {
    let mut specs = routes("80 a: p\n80 b: q");
    specs[1].rules[0].name = Some("chat".into());
    specs[1].rules[0].timeout = Some(Duration::from_secs(9));
    let table = RouteTable::new(&specs);
    let told = |request: &str| {
        let routed = table.route(&Query::new(request), Chance::new(0, 0)).unwrap();
        (routed.route.to_string(), routed.rule.map(|rule| rule.to_string()), routed.timeout)
    };
    assert_eq!(told("80 a /"), ("r0".to_owned(), None, None));
    let timeout = Some(Duration::from_secs(9));
    assert_eq!(told("80 b /"), ("r1".to_owned(), Some("chat".to_owned()), timeout));
}

#[test]
fn pools_share_requests_by_weight() {
    let cases: &[(&str, &[(&str, u32)])] = &[
        ("a", &[("a", 10_000)]),
        ("a:1 b:1", &[("a", 5_000), ("b", 5_000)]),
        ("a:70 b:30", &[("a", 7_000), ("b", 3_000)]),
        ("a:5 b:0 c:3 d:2", &[("a", 5_000), ("c", 3_000), ("d", 2_000)]),
        ("a:0 b:7", &[("b", 10_000)]),
        ("a:7 b:0", &[("a", 10_000)]),
        ("a:4294967295 b:4294967295", &[("a", 5_000), ("b", 5_000)]),
    ];
    for (rules, expected) in cases {
        let counts = shares(rules);
        let names: Vec<&str> = counts.keys().map(String::as_str).collect();
        let wanted: Vec<&str> = expected.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, wanted, "{rules}");
        for (name, count) in *expected {
            assert!(counts[*name].abs_diff(*count) < 200, "{rules}: {counts:?}");
        }
    }
}

#[test]
fn a_rule_whose_weights_are_all_zero_refuses_and_takes_no_other() {
    check("80 *: a:0; b", &[("80 h /", "no_endpoints")]);
    check("80 *: a:0 c:0; b", &[("80 h /", "no_endpoints")]);
    check("80 *: / -> ; b", &[("80 h /", "no_endpoints")]);
}
