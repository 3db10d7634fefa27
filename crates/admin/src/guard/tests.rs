use http::{Request, request::Parts};

use super::{HOST, SITE, check};

fn request(method: &str, uri: &str, headers: &[(&str, &str)]) -> Parts {
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).expect("a request").into_parts().0
}

#[test]
fn only_hosts_that_no_stranger_can_own_are_accepted() {
    let table = [
        ("127.0.0.1", true),
        ("127.0.0.1:15000", true),
        ("10.1.2.3:80", true),
        ("[::1]:15000", true),
        ("[::1]", true),
        ("localhost:15000", true),
        ("LocalHost.", true),
        ("tokenweir.localhost", true),
        ("tokenweir", true),
        ("tokenweir:15000", true),
        ("tokenweir.default.svc", true),
        ("tokenweir.default.svc.cluster.local:15000", true),
        ("evil.example", false),
        ("evil.example:15000", false),
        ("localhost.evil.example", false),
        ("127.0.0.1.evil.example", false),
        ("svc.evil.example", false),
        ("[::1]evil.example", false),
        ("[evil.example]", false),
        ("localhost:15000:80", false),
        ("localhost:x", false),
        ("user@localhost", false),
        ("evil.example/.svc", false),
        (".", false),
        ("", false),
    ];
    for (host, accepted) in table {
        let checked = check(&request("GET", "/", &[("host", host)]));
        assert_eq!(checked, if accepted { Ok(()) } else { Err(HOST) }, "{host:?}");
    }
}

#[test]
fn every_host_a_request_names_counts() {
    assert_eq!(check(&request("GET", "/", &[])), Ok(()));
    let two = [("host", "localhost"), ("host", "evil.example")];
    assert_eq!(check(&request("GET", "/", &two)), Err(HOST));
    let target = "http://evil.example/";
    assert_eq!(check(&request("GET", target, &[("host", "localhost")])), Err(HOST));
}

#[test]
fn pages_of_other_origins_may_not_change_anything() {
    let site = "sec-fetch-site";
    let table: [(&[(&str, &str)], bool); 9] = [
        (&[], true),
        (&[(site, "same-origin")], true),
        (&[(site, "none")], true),
        (&[(site, "same-site")], false),
        (&[(site, "cross-site")], false),
        (&[(site, "cross-site"), ("origin", "http://localhost:15000")], false),
        (&[("origin", "http://localhost:15000")], true),
        (&[("origin", "http://localhost:3000")], false),
        (&[("origin", "null")], false),
    ];
    for (headers, accepted) in table {
        let mut headers = headers.to_vec();
        headers.push(("host", "localhost:15000"));
        let checked = check(&request("POST", "/drain", &headers));
        assert_eq!(checked, if accepted { Ok(()) } else { Err(SITE) }, "{headers:?}");
        assert_eq!(check(&request("GET", "/", &headers)), Ok(()), "reading: {headers:?}");
    }
}
