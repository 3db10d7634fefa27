//! Requests and answers, in one piece and byte by byte.

use http_body_util::BodyExt as _;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

use super::*;

const REQUEST: &[u8] = b"GET /x HTTP/1.1\r\nhost: a:1\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\n";

/// What was read of an answer.
#[derive(Debug, PartialEq)]
struct Read {
    /// The head's status, or why there is none.
    status: Result<u16, String>,
    body: String,
    trailers: usize,
    /// How the body ended.
    end: Result<(), String>,
    reusable: bool,
}

/// Asks `method` of a server that answers so, in pieces of this size, and closes.
async fn read(method: Method, answer: &[u8], piece: usize) -> Read {
    let (client, mut server) = duplex(piece);
    let serve = async {
        server.read_exact(&mut [0; REQUEST.len()]).await.unwrap();
        // The client may have seen enough.
        server.write_all(answer).await.ok();
        drop(server);
    };
    let ask = async {
        let mut connection = Connection::new(client);
        let head = connection.send(&method, REQUEST.to_vec(), Bytes::new()).await;
        let status = head.map(|head| head.status().as_u16()).map_err(|error| error.to_string());
        let mut read =
            Read { body: String::new(), trailers: 0, end: Ok(()), reusable: false, status };
        while read.status.is_ok()
            && let Some(frame) = connection.frame().await
        {
            match frame.map(Frame::into_data) {
                Ok(Ok(data)) => read.body.push_str(std::str::from_utf8(&data).unwrap()),
                Ok(Err(trailers)) => read.trailers += trailers.into_trailers().unwrap().len(),
                Err(error) => {
                    read.end = Err(error.to_string());
                    break;
                }
            }
        }
        read.reusable = connection.is_reusable();
        read
    };
    tokio::join!(serve, ask).1
}

async fn check(answer: &str, wanted: &Read) {
    for piece in [1, 7, answer.len() + 1] {
        let got = read(Method::GET, answer.as_bytes(), piece).await;
        assert_eq!(&got, wanted, "{answer:?} in pieces of {piece}");
    }
}

async fn whole(answer: &str, status: u16, body: &str, reusable: bool) {
    let body = body.to_owned();
    let wanted = Read { status: Ok(status), body, trailers: 0, end: Ok(()), reusable };
    check(answer, &wanted).await;
}

async fn cut(answer: &str, body: &str, end: &str) {
    let (body, end) = (body.to_owned(), Err(end.to_owned()));
    check(answer, &Read { status: Ok(200), body, trailers: 0, end, reusable: false }).await;
}

async fn refused(answer: &str, why: &str) {
    let (status, body) = (Err(why.to_owned()), String::new());
    check(answer, &Read { status, body, trailers: 0, end: Ok(()), reusable: false }).await;
}

#[tokio::test]
async fn a_body_ends_by_length_by_chunks_or_with_the_connection() {
    let hello = "content-length: 5\r\n\r\nhello";
    whole(&format!("{OK}{hello}"), 200, "hello", true).await;
    whole(&format!("{OK}Content-Length: 5, 5\r\n{hello}"), 200, "hello", true).await;
    whole(&format!("{OK}\r\nhello"), 200, "hello", false).await;
    whole(&format!("{OK}\r\n"), 200, "", false).await;
    whole("HTTP/1.1 503 x\r\ncontent-length: 0\r\n\r\n", 503, "", true).await;
    whole("HTTP/1.1 204 No Content\r\n\r\n", 204, "", true).await;
    whole("HTTP/1.1 304\r\ncontent-length: 9\r\n\r\n", 304, "", true).await;
    let chunks = "transfer-encoding: chunked\r\n\r\n2;a=b\r\nhe\r\n3\r\nllo\r\n0\r\n";
    whole(&format!("{OK}{chunks}\r\n"), 200, "hello", true).await;
    // Both lengths: the coding is obeyed, and the connection given up.
    whole(&format!("{OK}content-length: 9\r\n{chunks}\r\n"), 200, "hello", false).await;
    let early = "HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n";
    whole(&format!("{early}{OK}{hello}"), 200, "hello", true).await;
    let answer = format!("{OK}{chunks}a: 1\r\nb: 2\r\n\r\n");
    let body = "hello".to_owned();
    check(&answer, &Read { status: Ok(200), body, trailers: 2, end: Ok(()), reusable: true }).await;
}

#[tokio::test]
async fn a_connection_persists_if_both_versions_say_so() {
    let hello = "content-length: 5\r\n\r\nhello";
    for (head, reusable) in [
        ("HTTP/1.1 200 OK\r\nconnection: close\r\n", false),
        ("HTTP/1.1 200 OK\r\nconnection: x-a , Close\r\n", false),
        ("HTTP/1.1 200 OK\r\nconnection: x-close\r\n", true),
        ("HTTP/1.0 200 OK\r\n", false),
        ("HTTP/1.0 200 OK\r\nconnection: Keep-Alive\r\n", true),
    ] {
        whole(&format!("{head}{hello}"), 200, "hello", reusable).await;
    }
}

#[tokio::test]
async fn an_answer_to_head_has_no_body() {
    let answer = format!("{OK}content-length: 5\r\n\r\n");
    let read = read(Method::HEAD, answer.as_bytes(), answer.len()).await;
    assert_eq!(
        (read.status, read.body, read.end, read.reusable),
        (Ok(200), String::new(), Ok(()), true)
    );
}

#[tokio::test]
async fn an_answer_that_breaks_off_says_so() {
    let closed = "the connection was closed early";
    refused("", "no byte of the answer came: unexpected end of file").await;
    refused("HTTP/1.1 200 OK\r\ncontent-le", closed).await;
    refused("HTTP/1.1 103 Early Hints\r\n\r\n", closed).await;
    cut(&format!("{OK}content-length: 5\r\n\r\nhell"), "hell", closed).await;
    let chunked = format!("{OK}transfer-encoding: chunked\r\n\r\n");
    for part in [
        "5\r\nhello",
        "5\r\nhello\r",
        "5\r\nhello\r\n",
        "5\r\nhello\r\n0\r\n",
        "5\r\nhello\r\n0\r\na: b\r\n",
    ] {
        cut(&format!("{chunked}{part}"), "hello", closed).await;
    }
}

#[tokio::test]
async fn what_is_no_answer_is_refused() {
    for (answer, why) in [
        ("SSH-2.0-x\r\n\r\n", "invalid HTTP version"),
        ("HTTP/1.1 099 x\r\n\r\n", "invalid response status"),
        ("HTTP/1.1 200 OK\r\na : b\r\n\r\n", "invalid header name"),
        ("HTTP/1.1 200 OK\r\na: b\r\n c\r\n\r\n", "invalid header name"),
        ("HTTP/1.1 200 OK\r\ncontent-length: +5\r\n\r\n", "its length is no number, or two"),
        ("HTTP/1.1 200 OK\r\ncontent-length: \r\n\r\n", "its length is no number, or two"),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
            "its length is no number, or two",
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
            "it has a transfer coding nobody asked for",
        ),
        (
            "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
            "it has a transfer coding nobody asked for",
        ),
        (
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n",
            "it switches to another protocol unasked",
        ),
    ] {
        refused(answer, &format!("what came makes no sense: {why}")).await;
    }
    let interims = "HTTP/1.1 103 x\r\n\r\n".repeat(INTERIMS_MAX + 1);
    refused(&interims, "what came makes no sense: more than 16 interim answers").await;
    let chunked = format!("{OK}transfer-encoding: chunked\r\n\r\n");
    let no_number = "what came makes no sense: a chunk's length is no number";
    for size in ["zz\r\n", "-1\r\n", "10000000000000000\r\n"] {
        cut(&format!("{chunked}{size}"), "", no_number).await;
    }
    for no_digit in ["\r\n", ";x\r\n", "  \r\n", " 0\r\n"] {
        cut(&format!("{chunked}5\r\nhello\r\n{no_digit}\r\n"), "hello", no_number).await;
    }
    let longer = "what came makes no sense: a chunk is longer than it says";
    cut(&format!("{chunked}2\r\nhello\r\n"), "he", longer).await;
}

#[tokio::test]
async fn what_never_ends_is_given_up() {
    let refused = async |answer: &[u8]| {
        let read = read(Method::GET, answer, answer.len()).await;
        read.status.and(read.end.map(|()| 0)).unwrap_err()
    };
    let filler = "x".repeat(head::HEAD_BYTES_MAX);
    let head = refused(format!("{OK}a: {filler}").as_bytes()).await;
    assert_eq!(head, "what came makes no sense: its head has more than 65536 bytes");
    let headers = refused(format!("{OK}{}\r\n", "a: b\r\n".repeat(101)).as_bytes()).await;
    assert_eq!(headers, "what came makes no sense: too many headers");
    let chunked = format!("{OK}transfer-encoding: chunked\r\n\r\n");
    let line = refused(format!("{chunked}1;{filler}").as_bytes()).await;
    let long = "what came makes no sense: the line with a chunk's length has more than 4096 bytes";
    assert_eq!(line, long);
    let trailers = refused(format!("{chunked}0\r\na: {filler}").as_bytes()).await;
    assert_eq!(trailers, "what came makes no sense: its trailers have more than 65536 bytes");
}

/// A connection, and the server at its other end.
fn pair(room: usize) -> (Connection<DuplexStream>, DuplexStream) {
    let (client, server) = duplex(room);
    (Connection::new(client), server)
}

async fn unfit(connection: &mut Connection<DuplexStream>) -> bool {
    poll_fn(|context| Poll::Ready(connection.poll_unfit(context).is_ready())).await
}

#[tokio::test]
async fn a_connection_carries_one_request_after_another() {
    let (mut connection, mut server) = pair(1000);
    for _ in 0..3 {
        assert!(!unfit(&mut connection).await);
        let serve = async {
            server.read_exact(&mut [0; REQUEST.len() + 4]).await.unwrap();
            server.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
        };
        let body = Bytes::from_static(b"body");
        let send = connection.send(&Method::POST, REQUEST.to_vec(), body);
        let (head, ()) = tokio::join!(send, serve);
        assert_eq!(head.unwrap().headers()["content-length"], "2");
        assert_eq!(connection.frame().await.unwrap().unwrap().into_data().unwrap(), "ok");
        assert!(connection.is_end_stream() && connection.is_reusable());
    }
}

#[tokio::test]
async fn an_idle_connection_that_is_closed_or_speaks_is_unfit() {
    let (mut connection, server) = pair(1000);
    assert!(!unfit(&mut connection).await);
    drop(server);
    assert!(unfit(&mut connection).await && !connection.is_reusable());
    let (mut connection, mut server) = pair(1000);
    server.write_all(b"HTTP/1.1 408 Request Timeout\r\n\r\n").await.unwrap();
    assert!(unfit(&mut connection).await && !connection.is_reusable());
}

#[tokio::test]
async fn bytes_behind_an_answer_are_no_answer() {
    let answer = format!("{OK}content-length: 1\r\n\r\nab");
    let read = read(Method::GET, answer.as_bytes(), answer.len()).await;
    assert_eq!((read.body.as_str(), read.reusable), ("a", false));
}

#[tokio::test]
async fn a_request_nobody_took_was_not_sent() {
    let (mut connection, server) = pair(1000);
    drop(server);
    let sent = connection.send(&Method::GET, REQUEST.to_vec(), Bytes::new()).await;
    assert!(matches!(sent, Err(Error::Unsent)), "{sent:?}");
}

#[tokio::test]
async fn a_request_refused_unread_has_its_answer() {
    let (mut connection, mut server) = pair(1000);
    server.write_all(b"HTTP/1.1 413 x\r\ncontent-length: 2\r\n\r\nno").await.unwrap();
    let body = Bytes::from(vec![b'x'; 100_000]);
    let head = connection.send(&Method::POST, REQUEST.to_vec(), body).await;
    assert_eq!(head.unwrap().status(), 413);
    drop(server);
    assert_eq!(connection.frame().await.unwrap().unwrap().into_data().unwrap(), "no");
    assert!(connection.frame().await.is_none() && !connection.is_reusable());
}

#[tokio::test]
async fn a_request_is_sent_on_while_its_answer_comes() {
    let (mut connection, mut server) = pair(1000);
    let body = Bytes::from(vec![b'x'; 100_000]);
    let serve = async {
        server.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n").await.unwrap();
        server.read_exact(&mut vec![0; REQUEST.len() + 100_000]).await.unwrap();
        server.write_all(b"ok").await.unwrap();
    };
    let ask = async {
        connection.send(&Method::POST, REQUEST.to_vec(), body).await.unwrap();
        let data = connection.frame().await.unwrap().unwrap().into_data().unwrap();
        (data, connection.is_reusable())
    };
    assert_eq!(tokio::join!(serve, ask).1, (Bytes::from_static(b"ok"), true));
}

proptest! {
    #[test]
    fn a_body_is_what_its_chunks_are_in_any_cut(
        chunks in prop::collection::vec("[a-z\r\n0-9;]{1,40}", 0..8),
        piece in 1..100_usize,
    ) {
        let coded = chunks.iter().map(|chunk| format!("{:x}\r\n{chunk}\r\n", chunk.len()));
        let coded: String = coded.collect();
        let answer = format!("{OK}transfer-encoding: chunked\r\n\r\n{coded}0\r\n\r\n");
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let read = runtime.block_on(read(Method::GET, answer.as_bytes(), piece));
        prop_assert_eq!((read.body, read.end, read.reusable), (chunks.concat(), Ok(()), true));
    }
}
