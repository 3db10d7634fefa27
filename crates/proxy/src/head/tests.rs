//! Heads: what is read from one, and what of it is sent on.

use bytes::Bytes;
use http::Request;

use super::*;

const REMOTE: &str = "10.1.2.3:4000";

fn head_of(method: &str, target: &str, version: Version, headers: &[(&str, &str)]) -> Head {
    let mut request = Request::builder().method(method).uri(target).version(version);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let (parts, ()) = request.body(()).unwrap().into_parts();
    let remote = REMOTE.parse().unwrap();
    let local = "10.9.9.9:8008".parse().unwrap();
    Head::new(parts, Peer { remote, local, port: 80 }, None)
}

fn head(headers: &[(&str, &str)]) -> Head {
    head_of("POST", "/v1/completions?a=b", Version::HTTP_11, headers)
}

fn forwarded(headers: &[(&str, &str)]) -> HeaderMap {
    sent(&head(headers)).1
}

/// The request line and the headers for an HTTP/1.1 endpoint.
fn sent(head: &Head) -> (String, HeaderMap) {
    let body = Bytes::from_static(b"{}");
    let outgoing = Outgoing { head, body: &body, asks_load: false, connected: None };
    let bytes = outgoing.http1();
    let text = std::str::from_utf8(&bytes).unwrap().strip_suffix("\r\n\r\n").unwrap();
    let mut lines = text.split("\r\n");
    let request = lines.next().unwrap().to_owned();
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(": ").unwrap();
        headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
    }
    assert_eq!(headers.remove("content-length").unwrap(), "2");
    (request, headers)
}

/// The request for an HTTP/2 endpoint.
fn sent2(head: &Head) -> Request<http_body_util::Full<Bytes>> {
    Outgoing { head, body: &Bytes::new(), asks_load: false, connected: None }.http2()
}

#[test]
fn cookies_are_one_field_in_http_1_1() {
    let cookies = [("cookie", "a=1"), ("x-other", "b"), ("cookie", "c=2; d=3"), ("cookie", "e=4")];
    let head = head_of("POST", "http://test.com/v1/completions", Version::HTTP_2, &cookies);
    let all = |headers: &HeaderMap| {
        let cookies = headers.get_all("cookie").iter();
        cookies.map(|cookie| cookie.to_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(all(&sent(&head).1), ["a=1; c=2; d=3; e=4"]);
    assert_eq!(all(sent2(&head).headers()), ["a=1", "c=2; d=3", "e=4"]);
    assert!(!forwarded(&[("host", "a")]).contains_key("cookie"));
}

#[test]
fn the_host_is_compared_without_port_case_and_final_dot() {
    let check = |given: &str, expected: &str| {
        assert_eq!(head(&[("host", given)]).host(), expected, "{given:?}");
    };
    check("test.com", "test.com");
    check("Test.COM:8008", "test.com");
    check("test.com.", "test.com");
    check("test.com.:80", "test.com");
    check("test.com:", "test.com");
    check("test.com:http", "test.com:http");
    check("[::1]:80", "[::1]");
    check("[2001:DB8::1]", "[2001:db8::1]");
    check("", "");
    check(":80", "");
}

#[test]
fn the_target_names_the_host_before_the_header_does() {
    let absolute = head_of("GET", "http://a.com:1/x", Version::HTTP_11, &[("host", "b.com")]);
    assert_eq!((absolute.host(), absolute.path()), ("a.com", "/x"));
    let nowhere = head_of("GET", "/x", Version::HTTP_10, &[]);
    assert_eq!((nowhere.host(), nowhere.port()), ("", 80));
    assert_eq!(sent(&nowhere).1[header::HOST], "");
}

#[test]
fn routes_see_text_headers_only() {
    let mut head = head(&[("x-a", "1"), ("x-a", "2")]);
    let odd = HeaderValue::from_bytes(b"\xff").unwrap();
    head.parts.headers.insert("x-odd", odd);
    assert_eq!((head.header("x-a"), head.header("x-odd")), (Some("1"), None));
    assert_eq!(head.header("x-none"), None);
}

#[test]
fn a_request_id_is_kept_if_it_is_one() {
    let long = "i".repeat(REQUEST_ID_BYTES_MAX);
    for good in ["a", "6ba7b810-9dad-11d1-80b4-00c04fd430c8", "a/b:c{}~", &long] {
        assert_eq!(head(&[("x-request-id", good)]).request_id, good);
    }
    let longer = format!("{long}i");
    for bad in ["", "a b", "a\tb", &longer] {
        let id = head(&[("x-request-id", bad)]).request_id;
        assert_eq!(id.to_str().unwrap().parse::<uuid::Uuid>().unwrap().get_version_num(), 4);
    }
}

#[test]
fn connection_headers_are_removed_and_so_is_what_they_name() {
    let headers = forwarded(&[
        ("connection", "close, X-One,,  x-two "),
        ("connection", "not a name, x-three"),
        ("x-one", "1"),
        ("x-two", "1"),
        ("x-three", "1"),
        ("x-four", "1"),
        ("te", "trailers"),
        ("trailer", "x"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "close"),
        ("proxy-authorization", "x"),
        ("expect", "100-continue"),
        ("content-length", "7"),
        ("accept-encoding", "gzip"),
    ]);
    let mut left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
    left.sort_unstable();
    assert_eq!(left, ["host", "x-forwarded-for", "x-forwarded-proto", "x-four", "x-request-id"]);
}

#[test]
fn a_client_cannot_have_the_gateways_own_headers_removed() {
    let named = "x-request-id, x-forwarded-for, x-forwarded-proto, host, content-length";
    let headers = forwarded(&[("connection", named), ("host", "test.com"), ("x-request-id", "id")]);
    assert_eq!(headers[X_REQUEST_ID], "id");
    assert_eq!(headers[X_FORWARDED_FOR], "10.1.2.3");
    assert_eq!(headers[X_FORWARDED_PROTO], "http");
    assert_eq!(headers[header::HOST], "test.com");
}

#[test]
fn compression_is_kept_out_of_what_is_counted_only() {
    let accept = [("accept-encoding", "gzip")];
    let counted = head_of("POST", "/v1/completions", Version::HTTP_11, &accept);
    assert_eq!(sent(&counted).1.get("accept-encoding"), None);
    let other = head_of("GET", "/v1/models", Version::HTTP_11, &accept);
    assert_eq!(sent(&other).1["accept-encoding"], "gzip");
}

#[test]
fn every_hop_before_is_named_and_the_client_last() {
    let check = |given: &[(&str, &str)], expected: &str| {
        let headers = forwarded(given);
        let all: Vec<_> = headers.get_all(X_FORWARDED_FOR).iter().collect();
        assert_eq!(all, [expected]);
    };
    check(&[], "10.1.2.3");
    check(&[("x-forwarded-for", "1.1.1.1")], "1.1.1.1,10.1.2.3");
    let two = [("x-forwarded-for", "1.1.1.1, 2.2.2.2"), ("x-forwarded-for", "3.3.3.3")];
    check(&two, "1.1.1.1, 2.2.2.2,3.3.3.3,10.1.2.3");
}

#[test]
fn a_head_for_http_1_has_a_path_and_a_host() {
    let head = head_of("GET", "http://a.com:1/x?y=%2F", Version::HTTP_2, &[("host", "b.com")]);
    let (request, headers) = sent(&head);
    assert_eq!(request, "GET /x?y=%2F HTTP/1.1");
    assert_eq!(headers[header::HOST], "a.com:1");
    assert_eq!(headers.get_all(header::HOST).iter().count(), 1);
}

#[test]
fn a_head_for_http_2_has_an_authority_and_no_host() {
    let head = head(&[("host", "test.com:80"), ("connection", "keep-alive")]);
    let (parts, _) = sent2(&head).into_parts();
    let headers = parts.headers;
    assert_eq!(parts.version, Version::HTTP_2);
    assert_eq!(parts.uri.to_string(), "http://test.com:80/v1/completions?a=b");
    assert!(!headers.contains_key(header::HOST) && !headers.contains_key(header::CONNECTION));
}

#[test]
fn a_head_without_a_host_can_be_sent_over_http_2() {
    for headers in [&[][..], &[("host", "")], &[("host", "not a host")]] {
        let request = sent2(&head(headers));
        assert_eq!(request.uri().path_and_query().unwrap(), "/v1/completions?a=b", "{headers:?}");
    }
}

#[test]
fn routes_see_a_path_without_needless_escapes_and_endpoints_as_it_came() {
    for (target, path) in [
        ("/v1/completions", "/v1/completions"),
        ("/v1/%63omple%74ions?a=%62", "/v1/completions"),
        ("/%41%7a%30%2D%2e%5F%7E", "/Az0-._~"),
        ("/v1%2Fcompletions", "/v1%2Fcompletions"),
        ("/a%2fb%20c%C3%A9", "/a%2fb%20c%C3%A9"),
        ("/%2563", "/%2563"),
        ("/%%63", "/%c"),
        ("/%6", "/%6"),
        ("/%+1%", "/%+1%"),
    ] {
        let head = head_of("POST", target, Version::HTTP_11, &[("host", "a.com")]);
        assert_eq!(head.path(), path, "{target}");
        assert_eq!(sent(&head).0, format!("POST {target} HTTP/1.1"));
        assert_eq!(sent2(&head).uri().path_and_query().unwrap(), target);
        assert_eq!(head.record().path, target.split('?').next().unwrap());
    }
}

#[test]
fn a_target_is_a_path() {
    let host = [("host", "test.com")];
    let check = |method: &str, target: &str, version: Version, expected: Result<(), Refusal>| {
        let checked = head_of(method, target, version, &host).check(&Limits::default());
        assert_eq!(checked, expected, "{method} {target}");
    };
    let bad = Err(Refusal::InvalidTarget);
    for version in [Version::HTTP_10, Version::HTTP_11, Version::HTTP_2] {
        for target in ["/", "//", "/x?y", "/*", "http://test.com/", "http://test.com"] {
            check("GET", target, version, Ok(()));
        }
        check("OPTIONS", "*", version, Ok(()));
        for target in ["*", "test.com", "test.com:80"] {
            check("GET", target, version, bad.clone());
        }
        check("OPTIONS", "test.com", version, bad.clone());
    }
    check("GET", "http://test.com?x=1", Version::HTTP_11, Ok(()));
    // So h2 hands on a path that is only a query.
    check("GET", "http://test.com?x=1", Version::HTTP_2, bad);
    let tunnel = head_of("CONNECT", "test.com:80", Version::HTTP_11, &host);
    assert!(matches!(tunnel.check(&Limits::default()), Err(Refusal::NoRoute { .. })));
}

#[test]
fn a_uri_without_a_path_asks_for_the_root() {
    for (target, expected) in [
        ("http://a.com?x=1", "GET /?x=1 HTTP/1.1"),
        ("http://a.com/?x=1", "GET /?x=1 HTTP/1.1"),
        ("http://a.com?", "GET /? HTTP/1.1"),
        ("http://a.com", "GET / HTTP/1.1"),
    ] {
        let head = head_of("GET", target, Version::HTTP_11, &[("host", "a.com")]);
        assert_eq!((&*sent(&head).0, head.path()), (expected, "/"), "{target}");
        let (parts, _) = sent2(&head).into_parts();
        let path = parts.uri.path_and_query().unwrap().as_str();
        assert_eq!(format!("GET {path} HTTP/1.1"), expected, "{target}");
    }
}

#[test]
fn a_host_is_a_name_or_an_address_with_a_port_or_without() {
    let check = |target: &str, host: &str, version: Version| {
        let head = head_of("GET", target, version, &[("host", host)]);
        head.check(&Limits::default()).is_ok()
    };
    for good in [
        "test.com",
        "a_b.com",
        "a.com.",
        "a.com:80",
        "a.com:",
        "1.2.3.4:80",
        "[::1]",
        "[::1]:80",
        "a,b",
    ] {
        assert!(check("/", good, Version::HTTP_11), "{good}");
        assert!(check("http://a.com/", good, Version::HTTP_11), "{good} beside another");
    }
    for bad in [
        "a b",
        "a b/c@d",
        "a, b",
        "a/b",
        "a?b",
        "a#b",
        "u@a.com",
        "a@a",
        "a:b",
        "a:80:80",
        "a:-1",
        ":80",
        "[::1",
        "::1",
        "[::1]x",
        "http://a.com",
        "a\tb",
        "a\u{e9}",
        "a\\b",
        "@",
    ] {
        assert!(!check("/", bad, Version::HTTP_11), "{bad}");
        assert!(!check("/", bad, Version::HTTP_10), "{bad}");
        assert!(!check("http://a.com/", bad, Version::HTTP_11), "{bad} beside another");
    }
    assert!(!check("http://a.com:x/", "a.com", Version::HTTP_11));
    assert!(check("http://u@a.com/", "a.com", Version::HTTP_11));
    assert!(check("/", "", Version::HTTP_10) && !check("/", "", Version::HTTP_11));
}

#[test]
fn a_head_is_held_to_its_limits() {
    let head = head(&[("host", "1234"), ("x-b", "12345")]);
    // Two names and values, and the target.
    let exact = 2 * (3 + 5) + "/v1/completions?a=b".len();
    let check = |headers_max, header_bytes_max, fits: bool| {
        let limits = Limits { header_bytes_max, headers_max, ..Limits::default() };
        assert_eq!(head.check(&limits).is_ok(), fits, "{headers_max} {header_bytes_max}");
    };
    check(2, exact, true);
    check(1, exact, false);
    check(2, exact - 1, false);
}

#[test]
fn a_request_may_be_repeated_if_it_only_asks() {
    let check = |method: &str, path: &str, may: bool| {
        let head = head_of(method, path, Version::HTTP_11, &[]);
        assert_eq!(head.may_repeat(), may, "{method} {path}");
    };
    check("POST", "/v1/completions", true);
    check("POST", "/v1/chat/completions?x", true);
    check("POST", "/tokenize", true);
    check("GET", "/v1/models", true);
    check("HEAD", "/", true);
    check("DELETE", "/x", true);
    check("POST", "/v1/load_lora_adapter", false);
    check("PATCH", "/v1/completions", false);
    check("BREW", "/x", false);
}

#[test]
fn a_record_takes_bounded_text_from_the_head() {
    let long = "é".repeat(RECORD_TEXT_BYTES_MAX);
    let headers = [("user-agent", &*"v".repeat(5000)), ("x-forwarded-for", &*long)];
    let path = format!("/{}", "p".repeat(5000));
    let record = head_of("GET", &path, Version::HTTP_10, &headers).record();
    assert_eq!(record.path.len(), RECORD_TEXT_BYTES_MAX);
    assert_eq!(record.user_agent.unwrap().len(), RECORD_TEXT_BYTES_MAX);
    assert_eq!(record.x_forwarded_for.unwrap().len(), RECORD_TEXT_BYTES_MAX);
    assert_eq!((record.protocol, record.method.as_str()), ("HTTP/1.0", "GET"));
    assert_eq!(record.downstream_remote.to_string(), REMOTE);
}

#[test]
fn an_objective_has_two_spellings() {
    let check = |headers: &[(&str, &str)], expected: Option<&str>| {
        assert_eq!(head(headers).objective(), expected, "{headers:?}");
    };
    check(&[], None);
    check(&[("x-gateway-inference-objective", "chat")], Some("chat"));
    check(&[("x-llm-d-inference-objective", "chat")], Some("chat"));
    check(&[("x-gateway-inference-objective", "")], None);
    check(
        &[("x-llm-d-inference-objective", "b"), ("x-gateway-inference-objective", "a")],
        Some("a"),
    );
    check(
        &[("x-llm-d-inference-objective", "b"), ("x-gateway-inference-objective", "")],
        Some("b"),
    );
}

#[test]
fn a_flow_is_who_the_request_says_or_whoever_has_its_key() {
    const NAME: &str = "x-gateway-inference-fairness-id";
    let flow = |headers: &[(&str, &str)]| head(headers).flow();
    let same = |one: &[(&str, &str)], other: &[(&str, &str)]| {
        assert_eq!(flow(one), flow(other), "{one:?} {other:?}");
        assert_ne!(flow(one), 0, "{one:?}");
    };
    let nobody = |headers: &[(&str, &str)]| assert_eq!(flow(headers), 0, "{headers:?}");
    same(&[(NAME, "a")], &[("x-llm-d-inference-fairness-id", "a")]);
    same(&[(NAME, "a")], &[(NAME, "a"), ("authorization", "Bearer k"), ("x-api-key", "l")]);
    same(&[("authorization", "Bearer k")], &[("authorization", "bearer  k ")]);
    same(&[("authorization", "Bearer k")], &[("x-api-key", "k")]);
    same(&[("authorization", "Bearer k"), ("x-api-key", "l")], &[("x-api-key", "k")]);
    same(&[("authorization", "Basic YTpi"), ("x-api-key", "k")], &[("x-api-key", "k")]);
    nobody(&[]);
    nobody(&[(NAME, "")]);
    nobody(&[("authorization", "Basic YTpi")]);
    nobody(&[("authorization", "Bearer ")]);
    nobody(&[("authorization", "k")]);
    let flows = [
        flow(&[(NAME, "a")]),
        flow(&[(NAME, "b")]),
        flow(&[("x-api-key", "a")]),
        flow(&[("x-api-key", "b")]),
    ];
    assert_eq!(flows.iter().collect::<std::collections::BTreeSet<_>>().len(), 4, "{flows:?}");
}

#[test]
fn objective_and_fairness_id_are_passed_on() {
    let names = OBJECTIVE.iter().chain(&FAIRNESS_ID);
    let given: Vec<(&str, &str)> = names.map(|name| (name.as_str(), "x")).collect();
    let headers = forwarded(&given);
    assert!(given.iter().all(|(name, value)| headers[*name] == value), "{headers:?}");
}
