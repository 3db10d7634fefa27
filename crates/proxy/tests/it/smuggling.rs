//! Two requests in the clothes of one: whatever an endpoint hears of an ambiguous message is one
//! request, framed by the gateway itself, and nothing hidden in a body is ever sent on as another.

use std::time::Duration;

use crate::{
    fake::{Fake, json_answer},
    setting::Setup,
    wire::get,
};

const BODY: &str = r#"{"model":"m","prompt":"x"}"#;

/// The head of a completion with these further lines, each with its line end.
fn head(lines: &str) -> String {
    format!("POST /v1/completions HTTP/1.1\r\nHost: test.com\r\n{lines}\r\n")
}

/// What is hidden: an endpoint that hears of it was fooled.
fn hidden() -> String {
    String::from_utf8(get("/hidden")).expect("text")
}

/// Sends these bytes and then some that end any connection; all that an endpoint hears, and the
/// codes of the answers.
async fn heard(bytes: &str) -> (Vec<String>, Vec<u16>) {
    let fake = Fake::answering(json_answer("200 OK", "{}")).await;
    let short = Duration::from_secs(1);
    let setting = Setup::new(&[fake.addr])
        .limits(|limits| (limits.body_read_timeout, limits.header_read_timeout) = (short, short))
        .start();
    let mut wire = setting.wire().await;
    wire.try_send(&[bytes, "GET /hidden HTTP/9.9\r\n\r\n"].concat().into_bytes()).await;
    let said = String::from_utf8_lossy(&wire.closed().await).into_owned();
    let codes = said.match_indices("HTTP/1.1 ").filter_map(|(at, _)| said.get(at + 9..at + 12));
    let codes = codes.filter_map(|code| code.parse().ok()).collect();
    setting.check_serves().await;
    let mut seen = fake.seen();
    assert!(seen.pop().is_some_and(|last| last.starts_with("GET /v1/models ")));
    (seen, codes)
}

/// No endpoint hears of these bytes, and their sender hears nothing but refusals.
async fn check_refused(what: &str, bytes: &str) {
    let (seen, codes) = heard(bytes).await;
    assert_eq!(seen, [""; 0], "{what} reached the endpoint");
    assert!(codes.iter().all(|code| (400..500).contains(code)), "{what}: {codes:?}");
}

/// The endpoint hears one completion with this body, framed by its length alone, and nothing of
/// what follows it.
async fn check_normalised(what: &str, bytes: &str, body: &str) {
    let (seen, codes) = heard(bytes).await;
    assert_eq!((seen.len(), codes.first()), (1, Some(&200)), "{what}: {seen:?} {codes:?}");
    let (head, sent) = seen[0].split_once("\r\n\r\n").expect("a head");
    assert_eq!(sent, body, "{what}");
    let head = head.to_ascii_lowercase();
    let lengths: Vec<_> = head.lines().filter(|line| line.starts_with("content-length:")).collect();
    assert_eq!(lengths, [format!("content-length: {}", body.len())], "{what}");
    assert!(!head.contains("transfer-encoding"), "{what}: {head}");
    assert!(!head.replace("\r\n", "").contains(['\r', '\n']), "{what}: {head:?}");
}

fn chunked(body: &str) -> String {
    format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len())
}

#[tokio::test]
async fn lengths_that_disagree_are_refused() {
    let (length, short) = (BODY.len(), BODY.len() - 1);
    let rest = format!("{BODY}{}", hidden());
    for lines in [
        format!("Content-Length: {length}\r\nContent-Length: {short}\r\n"),
        format!("Content-Length: {length}, {short}\r\n"),
        format!("Content-Length: {length}, {length}\r\n"),
        format!("Content-Length: {length};\r\n"),
        format!("Content-Length: {length} {short}\r\n"),
        format!("Content-Length: 0x{length:x}\r\n"),
        format!("Content-Length: +{length}\r\n"),
        format!("Content-Length: -{length}\r\n"),
        format!("Content-Length: {length}.0\r\n"),
        "Content-Length: 18446744073709551642\r\n".to_owned(),
        format!("Content-Length : {length}\r\n"),
        format!("Content-Length\r\n : {length}\r\n"),
        format!("Content-Length: 1\r\n {length}\r\n"),
        format!(" Content-Length: {length}\r\n"),
    ] {
        check_refused(&lines, &(head(&lines) + &rest)).await;
    }
}

#[tokio::test]
async fn encodings_other_than_chunked_are_refused() {
    let rest = chunked(BODY) + &hidden();
    for lines in [
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked;q=1\r\n",
        "Transfer-Encoding: \"chunked\"\r\n",
        "Transfer-Encoding: x chunked\r\n",
        "Transfer-Encoding: ,chunked\r\n",
        "Transfer-Encoding: chunked,\r\n",
        "Transfer-Encoding: chunk\r\n",
        "Transfer-Encoding:\r\n chunked\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding:\x0bchunked\r\n",
        "Transfer-Encoding\r\n: chunked\r\n",
        "Transfer-Encoding:\r\n",
    ] {
        check_refused(lines, &(head(lines) + &rest)).await;
    }
    let old = head("Transfer-Encoding: chunked\r\n").replace("HTTP/1.1", "HTTP/1.0");
    check_refused("chunks in HTTP/1.0", &(old + &rest)).await;
}

#[tokio::test]
async fn chunks_that_are_read_in_several_ways_are_refused() {
    let length = BODY.len();
    for chunks in [
        format!("0x{length:x}\r\n{BODY}\r\n0\r\n\r\n"),
        format!("+{length:x}\r\n{BODY}\r\n0\r\n\r\n"),
        format!("-{length:x}\r\n{BODY}\r\n0\r\n\r\n"),
        format!("{length:x}_\r\n{BODY}\r\n0\r\n\r\n"),
        format!("{length:x} 1\r\n{BODY}\r\n0\r\n\r\n"),
        format!("{length:x}\n{BODY}\r\n0\r\n\r\n"),
        format!("{length:x}\r{BODY}\r\n0\r\n\r\n"),
        format!("{length:x}\r\n{BODY}\n0\r\n\r\n"),
        format!("{length:x}\r\n{BODY}XX0\r\n\r\n"),
        format!("{length:x}\r\n{BODY}\r\n0\n\n"),
        format!("{length:x};a\nb\r\n{BODY}\r\n0\r\n\r\n"),
        format!("\r\n{length:x}\r\n{BODY}\r\n0\r\n\r\n"),
        format!("1000000000000000{length:x}\r\n{BODY}\r\n0\r\n\r\n"),
        format!("{length:x};{}\r\n{BODY}\r\n0\r\n\r\n", "x".repeat(1 << 20)),
        format!("{length:x}\r\n{BODY}\r\n0\r\n{}\r\n", "X-A: b\r\n".repeat(100_000)),
    ] {
        let what = chunks[..chunks.len().min(60)].to_owned();
        let bytes = head("Transfer-Encoding: chunked\r\n") + &chunks + &hidden();
        check_refused(&what, &bytes).await;
    }
}

#[tokio::test]
async fn what_has_one_meaning_is_framed_anew() {
    let length = BODY.len();
    let plain = format!("Content-Length: {length}\r\n");
    for (what, bytes) in [
        ("one length", head(&plain) + BODY),
        ("the same length twice", head(&plain.repeat(2)) + BODY),
        ("a length with zeros", head(&format!("Content-Length: 000{length}\r\n")) + BODY),
        ("chunks", head("Transfer-Encoding: chunked\r\n") + &chunked(BODY)),
        ("chunks by another case", head("TRANSFER-ENCODING: Chunked\r\n") + &chunked(BODY)),
        (
            "a chunk's extension",
            head("Transfer-Encoding: chunked\r\n")
                + &chunked(BODY).replacen("\r\n", ";a=\"b;c\";d\r\n", 1),
        ),
        (
            "trailers",
            head("Transfer-Encoding: chunked\r\n")
                + &chunked(BODY).replace("\r\n0\r\n", "\r\n0\r\nContent-Length: 3\r\nHost: x\r\n"),
        ),
        (
            "a length beside chunks",
            head(&(plain.clone() + "Transfer-Encoding: chunked\r\n")) + &chunked(BODY),
        ),
        (
            "chunks beside a length",
            head("Transfer-Encoding: chunked\r\nContent-Length: 3\r\n") + &chunked(BODY),
        ),
        ("lines without CR", head(&plain).replace("\r\n", "\n") + BODY),
        ("empty lines before", "\r\n\r\n".to_owned() + &head(&plain) + BODY),
    ] {
        check_normalised(what, &bytes, BODY).await;
    }
}

#[tokio::test]
async fn a_body_is_no_request_of_its_own() {
    // What looks like a request inside a body stays in it, whichever method has the body.
    for method in ["GET", "DELETE", "OPTIONS", "PUT"] {
        let inside = hidden();
        let bytes = format!(
            "{method} /v1/models HTTP/1.1\r\nHost: test.com\r\nContent-Length: {}\r\n\r\n{inside}",
            inside.len()
        );
        let (seen, codes) = heard(&bytes).await;
        assert_eq!((seen.len(), codes), (1, vec![200, 400]), "{method}: {seen:?}");
        assert!(seen[0].starts_with(&format!("{method} /v1/models ")), "{seen:?}");
        assert!(seen[0].ends_with(&inside), "{seen:?}");
    }
}

#[tokio::test]
async fn the_host_is_one_and_the_routes() {
    let ask = |target: &str, lines: &str| format!("GET {target} HTTP/1.1\r\n{lines}\r\n");
    for (what, bytes) in [
        ("no host", ask("/", "")),
        ("two hosts", ask("/", "Host: test.com\r\nHost: test.com\r\n")),
        ("two hosts in one", ask("/", "Host: test.com, other.com\r\n")),
        ("an empty host", ask("/", "Host:\r\n")),
        ("a host with a path", ask("/", "Host: test.com/x\r\n")),
        ("a host with a user", ask("/", "Host: other.com@test.com\r\n")),
        ("a host with a space", ask("/", "Host: test.com x\r\n")),
        ("a host of another route", ask("/", "Host: other.com\r\n")),
        ("a URI of another host", ask("http://other.com/", "Host: test.com\r\n")),
        ("a URI without a host", ask("http:///", "Host: test.com\r\n")),
        ("a target that is none", ask("v1/models", "Host: test.com\r\n")),
        ("a target with a space", ask("/a b", "Host: test.com\r\n")),
        ("a target with a line", ask("/a\rb", "Host: test.com\r\n")),
        ("no target", ask("", "Host: test.com\r\n")),
    ] {
        check_refused(what, &bytes).await;
    }
    for (what, bytes) in [
        ("a URI", ask("http://test.com/v1/models", "Host: test.com\r\n")),
        ("a URI beside another host", ask("http://test.com/v1/models", "Host: other.com\r\n")),
        ("a URI with a user", ask("http://user@test.com/v1/models", "Host: test.com\r\n")),
    ] {
        let (seen, codes) = heard(&bytes).await;
        assert_eq!(codes, [200, 400], "{what}");
        let request = seen.join("").to_ascii_lowercase();
        assert!(request.starts_with("get /v1/models http/1.1\r\n"), "{what}: {request}");
        assert_eq!(request.matches("\r\nhost: ").count(), 1, "{what}: {request}");
        assert!(request.contains("\r\nhost: test.com\r\n"), "{what}: {request}");
    }
}
