//! Table of URLs, and the configuration made of them.

use picker::HostPattern;
use scheduling::Policy;

use super::{endpoints_config, parse_endpoint_url};

fn check(text: &str, expected: Result<&str, &str>) {
    match (parse_endpoint_url(text), expected) {
        (Ok(url), Ok(expected)) => assert_eq!(url.to_string(), expected),
        (Err(error), Err(expected)) => {
            assert_eq!(error, format!("{text:?}: {expected}; write e.g. http://10.0.0.1:8000"));
        }
        (found, _) => panic!("{text}: {found:?}"),
    }
}

#[test]
fn urls_are_read_or_refused_with_a_reason() {
    check("http://10.0.0.1:8000", Ok("http://10.0.0.1:8000"));
    check("http://10.0.0.1:8000/", Ok("http://10.0.0.1:8000"));
    check("http://gpu-1.example.com", Ok("http://gpu-1.example.com:80"));
    check("HTTP://GPU:1", Ok("http://gpu:1"));
    check("http://[::1]:8000", Ok("http://[::1]:8000"));
    check("http://[::1]", Ok("http://[::1]:80"));
    let address = "expected a host name or an IP address, an IPv6 one in brackets";
    check("http://::1:8000", Err(address));
    check("http://[::1", Err(address));
    check("http://[gpu]:1", Err(address));
    check("http://", Err(address));
    check("http://gpu 1", Err(address));
    check("http://[::1]8000", Err("expected a port after the address"));
    for port in ["0", "65536", "+1", "", "http", "-1"] {
        check(&format!("http://gpu:{port}"), Err("expected a port number 1-65535"));
    }
    check("https://gpu", Err("https endpoints are not supported yet"));
    check("http://gpu:8000/v1", Err("a path has no use here, requests keep their own"));
    check("http://gpu?a=b", Err("a path has no use here, requests keep their own"));
    check("http://me:secret@gpu", Err("user and password have no use here"));
    check("gpu:8000", Err("expected a URL that begins with http://"));
    check("", Err("expected a URL that begins with http://"));
    check("httpß://", Err("expected a URL that begins with http://"));
}

#[test]
fn endpoints_without_a_file_take_every_host() {
    let urls = ["http://b:1", "http://a:1", "http://b:1"];
    let urls: Vec<_> = urls.iter().filter_map(|url| parse_endpoint_url(url).ok()).collect();
    let desired = endpoints_config(&urls, 8080, Policy::Random);
    assert_eq!(desired.listeners[0].port, 8080);
    assert_eq!(desired.routes[0].hosts, [HostPattern::Any]);
    assert_eq!(desired.routes[0].rules[0].pools[0].pool, desired.pools[0].key);
    let ids: Vec<&str> = desired.pools[0].endpoints.iter().map(|one| one.id.as_str()).collect();
    assert_eq!((ids, desired.pools[0].policy), (vec!["a:1", "b:1"], Policy::Random));
}
