//! Requests in one piece and byte by byte, answers in one write and in many.

use std::{collections::VecDeque, io::IoSlice, task::Waker};

use http::{HeaderValue, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use proptest::prelude::*;
use tokio::io::ReadBuf;

use super::{answer::COPIED_BYTES_MAX, *};
use crate::Connection;

const LIMITS: HeadLimits = HeadLimits { bytes_max: 10_000, headers_max: 100 };
const HOST: &str = "host: a\r\n";

/// A client that never lets anybody wait, unless it is told to.
#[derive(Debug, Default)]
struct Client {
    /// What it says, and in pieces of which size.
    says: VecDeque<u8>,
    piece: usize,
    /// It says nothing more, and has not left.
    stays: bool,
    /// What it takes at once; nothing means that it has to be waited for.
    takes: usize,
    /// What was written to it, each time.
    heard: Vec<Vec<u8>>,
    ended: bool,
}

impl Client {
    fn saying(bytes: &[u8]) -> Self {
        let says = bytes.iter().copied().collect();
        Self { says, piece: usize::MAX, takes: usize::MAX, ..Self::default() }
    }

    fn all(&self) -> String {
        String::from_utf8(self.heard.concat()).unwrap()
    }
}

impl AsyncRead for Client {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.says.is_empty() && self.stays {
            return Poll::Pending;
        }
        let now = self.piece.min(buf.remaining()).min(self.says.len());
        let now: Vec<u8> = self.says.drain(..now).collect();
        buf.put_slice(&now);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Client {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.takes == 0 {
            return Poll::Pending;
        }
        let mut all: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        all.truncate(self.takes);
        let taken = all.len();
        self.heard.push(all);
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.ended = true;
        Poll::Ready(Ok(()))
    }
}

fn downstream(client: Client) -> Downstream<Client> {
    Downstream::new(client, LIMITS)
}

fn poll<T>(poll: impl FnOnce(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
    poll(&mut Context::from_waker(Waker::noop()))
}

fn now<T>(polled: impl FnOnce(&mut Context<'_>) -> Poll<T>) -> T {
    let Poll::Ready(now) = poll(polled) else { panic!("it waits") };
    now
}

fn date(out: &mut Vec<u8>) {
    out.extend_from_slice(b"now");
}

fn write<B>(connection: &mut Downstream<Client>, response: Response<B>) -> Result<(), Unfinished>
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut answer = Answer::new(response, date);
    now(|context| connection.poll_answer(context, &mut answer))
}

/// A request's head has come.
fn head(connection: &mut Downstream<Client>) -> Parts {
    now(|context| connection.poll_head(context)).unwrap().unwrap()
}

fn asked(request: &str) -> Downstream<Client> {
    let mut connection = downstream(Client::saying(request.as_bytes()));
    head(&mut connection);
    connection
}

/// All that a client says, and what became of it.
fn read(bytes: &[u8], piece: usize) -> Vec<String> {
    let mut connection = downstream(Client { piece, ..Client::saying(bytes) });
    let mut seen = Vec::new();
    loop {
        match now(|context| connection.poll_head(context)) {
            Ok(Some(head)) => seen.push(format!("{} {}", head.method, head.uri)),
            Ok(None) => return seen,
            Err(bad) => {
                seen.push(bad.to_string());
                return seen;
            }
        }
        let mut body = Vec::new();
        while let Some(piece) = now(|context| connection.poll_body(context)) {
            match piece {
                Ok(piece) => body.extend_from_slice(&piece),
                Err(error) => {
                    seen.push(error.to_string());
                    return seen;
                }
            }
        }
        if !body.is_empty() {
            seen.push(String::from_utf8(body).unwrap());
        }
        write(&mut connection, Response::new(Full::default())).unwrap();
        if !connection.persists() {
            seen.push("closes".to_owned());
            return seen;
        }
    }
}

fn check(bytes: &str, wanted: &[&str]) {
    for piece in [1, 2, 7, bytes.len() + 1] {
        assert_eq!(read(bytes.as_bytes(), piece), wanted, "{bytes:?} in pieces of {piece}");
    }
}

#[test]
fn requests_come_one_after_another() {
    let get = format!("GET /a?b HTTP/1.1\r\n{HOST}\r\n");
    let post = format!("POST /c HTTP/1.1\r\n{HOST}content-length: 5\r\n\r\nhello");
    let zeros = "0".repeat(20);
    let chunks = format!("{zeros}2;a=b\r\nhe\r\n3\r\nllo\r\n{zeros}\r\nx: y\r\n\r\n");
    let chunked = format!("PUT /d HTTP/1.1\r\n{HOST}transfer-encoding: Chunked\r\n\r\n{chunks}");
    check("", &[]);
    check(&get, &["GET /a?b"]);
    check(&post, &["POST /c", "hello"]);
    check(&chunked, &["PUT /d", "hello"]);
    let all = [&*get, &*chunked, "\r\n\n", &*post, &*post, &*get, "\r\n"].concat();
    let wanted =
        ["GET /a?b", "PUT /d", "hello", "POST /c", "hello", "POST /c", "hello", "GET /a?b"];
    check(&all, &wanted);
    check(&get.replace('\r', ""), &["GET /a?b"]);
    check(&post.replace("gth: 5", "gth: 5\r\ncontent-length: 05"), &["POST /c", "hello"]);
    check("OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n", &["OPTIONS *"]);
    check("GET http://a/b HTTP/1.1\r\nhost: a\r\n\r\n", &["GET http://a/b"]);
    // What has not come whole is none.
    check(get.trim_end(), &[]);
}

#[test]
fn a_connection_persists_if_both_sides_wish_it() {
    for (head, more) in [
        ("GET / HTTP/1.1\r\nconnection: close\r\n", false),
        ("GET / HTTP/1.1\r\nconnection: keep-alive, Close\r\n", false),
        ("GET / HTTP/1.1\r\nconnection: close\r\nconnection: keep-alive\r\n", false),
        ("GET / HTTP/1.1\r\nconnection: x-close\r\n", true),
        ("GET / HTTP/1.0\r\n", false),
        ("GET / HTTP/1.0\r\nconnection: Keep-Alive\r\n", true),
        ("GET / HTTP/1.0\r\nconnection: close, keep-alive\r\n", false),
    ] {
        check(&format!("{head}\r\n"), if more { &["GET /"] } else { &["GET /", "closes"] });
    }
    // Both lengths: the coding is obeyed, and the connection given up.
    let both = "POST / HTTP/1.1\r\ncontent-length: 9\r\ntransfer-encoding: chunked\r\n\r\n";
    check(&format!("{both}1\r\nx\r\n0\r\n\r\n"), &["POST /", "x", "closes"]);
}

#[test]
fn what_is_no_head_is_refused() {
    for (bytes, why) in [
        ("GET / HTTP/1.1\r\na : b\r\n\r\n", "invalid header name"),
        ("GET / HTTP/1.1\r\na: b\r\n c\r\n\r\n", "invalid header name"),
        ("GET / HTTP/1.1\r\n: b\r\n\r\n", "invalid header name"),
        ("GET / HTTP/1.1\r\na: b\rc\r\n\r\n", "invalid header value"),
        ("GET / HTTP/1.1\r\na: b\0\r\n\r\n", "invalid header value"),
        ("GET / HTTP/9.9\r\n\r\n", "invalid HTTP version"),
        ("GET /\r\n\r\n", "invalid token"),
        ("\x16\x03\x01\0", "invalid token"),
        ("PRI * HTTP/2.0\r\n\r\nno", "invalid HTTP version"),
        ("GET http:// HTTP/1.1\r\n\r\n", "its target is none"),
        ("GET / HTTP/1.1\r\ncontent-length: +5\r\n\r\n", "its length is no number, or two"),
        ("GET / HTTP/1.1\r\ncontent-length: \r\n\r\n", "its length is no number, or two"),
        ("GET / HTTP/1.1\r\ncontent-length: 5, 5\r\n\r\n", "its length is no number, or two"),
        (
            "GET / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
            "its length is no number, or two",
        ),
        (
            "GET / HTTP/1.1\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
            "it has a transfer coding nobody asked for",
        ),
        (
            "GET / HTTP/1.1\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n",
            "it has a transfer coding nobody asked for",
        ),
        (
            "GET / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n",
            "it has a transfer coding nobody asked for",
        ),
    ] {
        check(bytes, &[&format!("the head makes no sense: {why}")]);
    }
    let too_large = "the head is longer, or has more headers, than is read";
    check(&format!("GET / HTTP/1.1\r\na: {}", "x".repeat(LIMITS.bytes_max)), &[too_large]);
    check(&format!("GET / HTTP/1.1\r\na: {}\r\n\r\n", "x".repeat(LIMITS.bytes_max)), &[too_large]);
    check(&format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(101)), &[too_large]);
}

#[test]
fn larger_heads_are_read_where_they_are_allowed() {
    let limits = HeadLimits { bytes_max: 100_000, headers_max: 200 };
    let read = |headers: usize, target: usize| {
        let (headers, target) = ("a: b\r\n".repeat(headers), "x".repeat(target));
        let bytes = format!("GET /{target} HTTP/1.1\r\n{headers}\r\n");
        let mut connection = Downstream::new(Client::saying(bytes.as_bytes()), limits);
        now(|context| connection.poll_head(context))
    };
    assert_eq!(read(200, 0).unwrap().unwrap().headers.len(), 200);
    assert!(matches!(read(201, 0), Err(BadHead::TooLarge)));
    assert!(matches!(read(0, 65_000), Ok(Some(_))));
    assert!(matches!(read(0, 66_000), Err(BadHead::TargetTooLong)));
}

#[test]
fn a_body_that_is_none_or_breaks_off_says_so() {
    let length = "POST / HTTP/1.1\r\ncontent-length: 5\r\n\r\nhell";
    check(length, &["POST /", "the connection was closed early"]);
    let chunked = "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n";
    for part in ["", "5\r\nhell", "5\r\nhello\r\n", "5\r\nhello\r\n0\r\n", "0\r\na: b\r\n"] {
        check(&format!("{chunked}{part}"), &["POST /", "the connection was closed early"]);
    }
    let malformed = |chunks: &str, why: &str| {
        let why = format!("what came makes no sense: {why}");
        check(&format!("{chunked}{chunks}"), &["POST /", &why]);
    };
    for size in ["zz\r\n", "-1\r\n", "\r\n", " 1\r\n", "1\nx\r\n", "1;a\nb\r\nx\r\n", "1;\rb"] {
        malformed(size, "a chunk's length is no number");
    }
    let too_long = "the line with a chunk's length has more than 4096 bytes";
    malformed(&format!("1;{}\r\nx\r\n", "a".repeat(5000)), too_long);
    malformed("1\r\nxy\r\n", "a chunk is longer than it says");
    malformed("1\r\nx\n0\r\n\r\n", "a chunk is longer than it says");
    malformed("0\r\n\n", "invalid new line");
    malformed("0\r\na: b\n\r\n", "invalid new line");
}

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
const OLD: &str = "GET / HTTP/1.0\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\n";

/// A body of these pieces, each of which is there; `None` breaks it off.
struct Pieces {
    left: VecDeque<Option<Bytes>>,
    length: Option<u64>,
    /// How often it was asked for one.
    asked: usize,
}

fn pieces<const N: usize>(pieces: [&'static str; N]) -> Pieces {
    let left = pieces.iter().map(|piece| Some(Bytes::from_static(piece.as_bytes())));
    Pieces { left: left.collect(), length: None, asked: 0 }
}

fn cut(before: &'static str) -> Pieces {
    let left = [Some(Bytes::from_static(before.as_bytes())), None].into();
    Pieces { left, length: None, asked: 0 }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = ();

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ()>>> {
        self.asked += 1;
        let piece = self.left.pop_front();
        Poll::Ready(piece.map(|piece| piece.map(Frame::data).ok_or(())))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// What is written for an answer to this request, at once and three bytes at a time.
fn answered<B: Body<Data = Bytes> + Unpin>(
    request: &str,
    response: impl Fn() -> Response<B>,
) -> (String, Result<(), Unfinished>, bool) {
    let answer = |takes: usize| {
        let mut connection = asked(request);
        connection.stream.takes = takes;
        let written = write(&mut connection, response());
        (connection.stream.all(), written, connection.persists())
    };
    let whole = answer(usize::MAX);
    assert_eq!(answer(3), whole);
    whole
}

fn status(code: u16) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::from_u16(code).unwrap();
    response
}

#[test]
fn a_body_ends_by_length_by_chunks_or_with_the_connection() {
    let hello = || Response::new(Full::new(Bytes::from_static(b"hello")));
    let of_length = "content-length: 5\r\ndate: now\r\n\r\nhello";
    let wanted = (format!("{OK}{of_length}"), Ok(()), true);
    assert_eq!(answered(GET, hello), wanted);
    let chunks = "transfer-encoding: chunked\r\ndate: now\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n";
    let streamed = || Response::new(pieces(["he", "", "llo"]));
    assert_eq!(answered(GET, streamed), (format!("{OK}{chunks}"), Ok(()), true));
    let empty = "transfer-encoding: chunked\r\ndate: now\r\n\r\n0\r\n\r\n";
    assert_eq!(answered(GET, || Response::new(pieces([]))).0, format!("{OK}{empty}"));
    let closing = "HTTP/1.0 200 OK\r\nconnection: close\r\ndate: now\r\n\r\nhello".to_owned();
    assert_eq!(answered(OLD, streamed), (closing, Ok(()), false));
    let keeping = OLD.replace("\r\n\r\n", "\r\nconnection: keep-alive\r\n\r\n");
    assert!(!answered(&keeping, streamed).2);
    let (head, _, persists) = answered(&keeping, hello);
    assert!(head.contains("\r\nconnection: keep-alive\r\n") && persists, "{head}");
}

#[test]
fn an_answer_without_a_body_has_none() {
    let get = |code, length: Option<&'static str>| {
        let response = || {
            let mut response = status(code);
            let length = length.map(HeaderValue::from_static);
            length.map(|length| response.headers_mut().insert(header::CONTENT_LENGTH, length));
            response
        };
        answered(GET, response)
    };
    let no_content = "HTTP/1.1 204 No Content\r\ndate: now\r\n\r\n".to_owned();
    assert_eq!(get(204, Some("5")), (no_content, Ok(()), true));
    let not_modified = "HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\ndate: now\r\n\r\n";
    assert_eq!(get(304, Some("5")), (not_modified.to_owned(), Ok(()), true));
    let empty = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\ndate: now\r\n\r\n";
    assert_eq!(get(503, None), (empty.to_owned(), Ok(()), true));
    assert!(get(299, None).0.starts_with("HTTP/1.1 299 \r\n"));
    let head = GET.replace("GET", "HEAD");
    let response = || {
        let mut response = Response::new(pieces(["hello"]));
        response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from_static("5"));
        response
    };
    let of_length = "content-length: 5\r\ndate: now\r\n\r\n";
    assert_eq!(answered(&head, response), (format!("{OK}{of_length}"), Ok(()), true));
}

#[test]
fn headers_pass_but_for_those_that_frame() {
    let response = || {
        let mut response = Response::new(Full::new(Bytes::from_static(b"x")));
        for (name, value) in [
            ("content-length", "7"),
            ("transfer-encoding", "chunked"),
            ("date", "yesterday"),
            ("set-cookie", "a"),
            ("set-cookie", "b"),
            ("connection", "close"),
        ] {
            response.headers_mut().append(name, HeaderValue::from_static(value));
        }
        response
    };
    let rest = "date: yesterday\r\nset-cookie: a\r\nset-cookie: b\r\ncontent-length: 1\r\n";
    let wanted = format!("{OK}{rest}connection: close\r\n\r\nx");
    assert_eq!(answered(GET, response), (wanted, Ok(()), false));
}

#[test]
fn a_cut_answer_is_seen_to_be_one() {
    let (said, ended, _) = answered(GET, || Response::new(cut("he")));
    assert_eq!(ended, Err(Unfinished::Cut));
    assert!(said.ends_with("\r\n\r\n2\r\nhe\r\n"), "{said}");
    let (said, ended, _) = answered(OLD, || Response::new(cut("he")));
    assert_eq!(ended, Err(Unfinished::Cut));
    assert!(said.ends_with("\r\n\r\nhe"), "{said}");
    // Fewer bytes than were promised, or more.
    let of_three = |pieces| Response::new(Pieces { length: Some(3), ..pieces });
    let (said, ended, _) = answered(GET, || of_three(pieces(["he"])));
    assert_eq!(ended, Err(Unfinished::Cut));
    assert!(said.ends_with("\r\n\r\nhe"), "{said}");
    let (said, ended, _) = answered(GET, || of_three(pieces(["he", "llo"])));
    assert_eq!(ended, Ok(()));
    assert!(said.ends_with("\r\n\r\nhel"), "{said}");
}

#[test]
fn what_is_small_goes_out_at_once() {
    let writes = |request, response: Response<Pieces>| {
        let mut connection = asked(request);
        write(&mut connection, response).unwrap();
        connection.stream.heard.len()
    };
    assert_eq!(writes(GET, Response::new(pieces(["a", "b", "c"]))), 1);
    let large = "x".repeat(COPIED_BYTES_MAX + 1);
    let large: &'static str = large.leak();
    assert_eq!(writes(GET, Response::new(pieces([large]))), 1);
    assert_eq!(writes(GET, Response::new(pieces(["a", large, "b"]))), 2);
}

#[test]
fn large_pieces_pass_whole() {
    let large: &'static str = "0123456789".repeat(COPIED_BYTES_MAX / 5).leak();
    let (said, ended, _) = answered(GET, || Response::new(pieces(["a", large, large])));
    let size = format!("{:x}", large.len());
    let chunks = format!("1\r\na\r\n{size}\r\n{large}\r\n{size}\r\n{large}\r\n0\r\n\r\n");
    assert!(ended == Ok(()) && said.ends_with(&format!("\r\n\r\n{chunks}")), "{said}");
    let (said, ended, _) = answered(OLD, || Response::new(pieces([large, "a"])));
    assert!(ended == Ok(()) && said.ends_with(&format!("\r\n\r\n{large}a")), "{said}");
}

#[test]
fn nothing_is_kept_of_what_was_written() {
    let large = Bytes::from(vec![b'x'; COPIED_BYTES_MAX + 1]);
    for takes in [usize::MAX, 3000] {
        let mut connection = asked(GET);
        connection.stream.takes = takes;
        write(&mut connection, Response::new(Full::new(large.clone()))).unwrap();
        assert!(large.is_unique());
    }
}

#[test]
fn a_body_is_not_asked_for_more_than_its_client_takes() {
    let large: &'static str = "x".repeat(COPIED_BYTES_MAX).leak();
    let mut connection = asked(GET);
    (connection.stream.takes, connection.stream.stays) = (0, true);
    let mut answer = Answer::new(Response::new(pieces([large; 9])), date);
    for _ in 0..3 {
        assert!(poll(|context| connection.poll_answer(context, &mut answer)).is_pending());
    }
    assert_eq!(answer.body().asked, 1);
    connection.stream.takes = usize::MAX;
    assert_eq!(now(|context| connection.poll_answer(context, &mut answer)), Ok(()));
    assert_eq!(answer.body().asked, 9);
}

/// A body that never says anything.
struct Silent;

impl Body for Silent {
    type Data = Bytes;
    type Error = ();

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ()>>> {
        Poll::Pending
    }
}

#[test]
fn a_client_that_leaves_is_noticed_though_it_has_sent_more() {
    for behind in ["", GET, "GE"] {
        let mut connection = downstream(Client { piece: 5, ..Client::saying(GET.as_bytes()) });
        connection.stream.stays = true;
        head(&mut connection);
        assert!(poll(|context| connection.poll_left(context)).is_pending());
        let mut answer = Answer::new(Response::new(Silent), date);
        assert!(poll(|context| connection.poll_answer(context, &mut answer)).is_pending());
        assert!(connection.stream.all().starts_with(OK), "the head is not held back");
        connection.stream.says.extend(behind.bytes());
        assert!(poll(|context| connection.poll_left(context)).is_pending());
        connection.stream.stays = false;
        now(|context| connection.poll_left(context));
        let ended = now(|context| connection.poll_answer(context, &mut answer));
        assert_eq!(ended, Err(Unfinished::Left));
        // One that takes nothing, too.
        connection.stream.takes = 0;
        let mut answer = Answer::new(Response::new(pieces(["a"])), date);
        let ended = now(|context| connection.poll_answer(context, &mut answer));
        assert_eq!(ended, Err(Unfinished::Left));
    }
}

#[test]
fn what_is_read_ahead_is_bounded() {
    let mut connection = asked(GET);
    connection.stream.says.extend(vec![b'x'; 1 << 20]);
    assert!(poll(|context| connection.poll_left(context)).is_pending());
    assert!(connection.unread().len() < 2 * AHEAD_BYTES_MAX);
}

const WAITING: &str = "POST / HTTP/1.1\r\nexpect: 100-Continue\r\ncontent-length: 2\r\n\r\n";

#[test]
fn a_client_that_waits_to_be_told_is_told_when_its_body_is_wanted() {
    let mut connection = asked(WAITING);
    connection.stream.stays = true;
    assert!(connection.stream.heard.is_empty());
    for _ in 0..2 {
        assert!(poll(|context| connection.poll_body(context)).is_pending());
        assert_eq!(connection.stream.all(), "HTTP/1.1 100 Continue\r\n\r\n");
    }
    connection.stream.says.extend(b"ok");
    assert_eq!(now(|context| connection.poll_body(context)).unwrap().unwrap(), "ok");
    // Nor is one told that has not waited.
    let mut connection = asked(&format!("{WAITING}ok"));
    assert_eq!(now(|context| connection.poll_body(context)).unwrap().unwrap(), "ok");
    assert!(connection.stream.heard.is_empty());
    // One that is refused instead may send its body or not: nobody knows what comes next.
    let mut connection = asked(WAITING);
    write(&mut connection, status(404)).unwrap();
    assert!(connection.stream.all().starts_with("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n"));
    assert!(!connection.persists() && connection.is_spoken_to());
}

#[test]
fn a_body_nobody_wanted_is_passed_over_if_it_is_there_and_small() {
    let refuse = |length: usize, sent: usize| {
        let body = "x".repeat(sent);
        let request = format!("POST / HTTP/1.1\r\ncontent-length: {length}\r\n\r\n{body}");
        let mut connection = asked(&request);
        connection.stream.stays = true;
        write(&mut connection, status(404)).unwrap();
        let closes = connection.stream.all().contains("connection: close");
        assert_eq!((closes, connection.is_spoken_to()), (!connection.persists(), closes));
        connection.persists()
    };
    assert!(refuse(5, 5) && refuse(60_000, 60_000));
    assert!(!refuse(5, 4) && !refuse(70_000, 70_000) && !refuse(usize::MAX, 0));
}

#[test]
fn who_was_told_enough_is_heard_out() {
    let mut connection = asked(&format!("{}{}", WAITING.replace(": 2", ": 99"), "x".repeat(50)));
    write(&mut connection, status(413)).unwrap();
    let mut left = 1000;
    now(|context| connection.poll_drain(context, &mut left));
    assert!(connection.stream.ended && left == 1000, "what was read is no more to be read");
    connection.stream.says.extend(vec![b'x'; 100_000]);
    now(|context| connection.poll_drain(context, &mut left));
    assert_eq!(left, 0);
    assert!(!connection.stream.says.is_empty());
}

#[test]
fn a_connection_that_is_to_finish_takes_no_request_that_has_not_begun() {
    let mut connection = downstream(Client { stays: true, ..Client::default() });
    assert!(poll(|context| connection.poll_begins(context, b"PRI")).is_pending());
    connection.finish();
    assert!(!now(|context| connection.poll_begins(context, b"PRI")));
    assert!(now(|context| connection.poll_head(context)).unwrap().is_none());
    let (begun, rest) = GET.split_at(9);
    let mut connection = downstream(Client { stays: true, ..Client::saying(begun.as_bytes()) });
    assert!(poll(|context| connection.poll_head(context)).is_pending());
    connection.finish();
    connection.stream.says.extend(rest.bytes());
    head(&mut connection);
    write(&mut connection, status(200)).unwrap();
    assert!(connection.stream.all().contains("\r\nconnection: close\r\n"));
    assert!(!connection.persists());
}

#[test]
fn how_a_client_begins_is_known_as_soon_as_it_can_be() {
    let begins = |bytes: &str, stays| {
        let client = Client { piece: 1, stays, ..Client::saying(bytes.as_bytes()) };
        let mut connection = downstream(client);
        let begins = poll(|context| connection.poll_begins(context, b"PRI *"));
        (begins, connection.into_parts().1)
    };
    assert_eq!(begins("P", true), (Poll::Pending, "P".into()));
    assert_eq!(begins("P", false), (Poll::Ready(false), "P".into()));
    assert_eq!(begins("POST", true), (Poll::Ready(false), "PO".into()));
    assert_eq!(begins("PRI * HTTP", true), (Poll::Ready(true), "PRI *".into()));
}

#[test]
fn a_body_of_known_length_is_read_to_where_it_stays() {
    let request = format!("POST / HTTP/1.1\r\ncontent-length: 9\r\n\r\n{}{GET}", "123456789");
    let mut connection = downstream(Client { piece: 40, ..Client::saying(request.as_bytes()) });
    head(&mut connection);
    let mut body = BytesMut::with_capacity(100);
    let mut reads = Vec::new();
    loop {
        match now(|context| connection.poll_body_into(context, &mut body)).unwrap() {
            0 => break,
            read => reads.push(read),
        }
    }
    assert_eq!((&*body, &*reads), (&b"123456789"[..], &[2, 7][..]));
    assert!(connection.unread().is_empty(), "not a byte beyond it is taken");
    write(&mut connection, status(200)).unwrap();
    head(&mut connection);
    let mut connection = asked("POST / HTTP/1.1\r\ncontent-length: 9\r\n\r\n1234");
    assert_eq!(now(|context| connection.poll_body_into(context, &mut body)).unwrap(), 4);
    let closed = now(|context| connection.poll_body_into(context, &mut body));
    assert!(matches!(closed, Err(Error::Closed)));
}

proptest! {
    #[test]
    fn a_body_is_what_its_chunks_are_in_any_cut(
        chunks in prop::collection::vec("[a-z\r\n0-9;]{1,40}", 0..8),
        piece in 1..100_usize,
    ) {
        let coded = chunks.iter().map(|chunk| format!("{:x}\r\n{chunk}\r\n", chunk.len()));
        let coded: String = coded.collect();
        let head = "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n";
        let bytes = format!("{head}{coded}0\r\n\r\n{GET}");
        let mut wanted = vec!["POST /".to_owned(), chunks.concat(), "GET /".to_owned()];
        wanted.retain(|seen| !seen.is_empty());
        prop_assert_eq!(read(bytes.as_bytes(), piece), wanted);
    }

    #[test]
    fn any_bytes_mean_the_same_in_any_cut(
        lines in prop::collection::vec("GET / HTTP/1.[01]|[a-c: ]{0,9}|transfer-encoding: chunked|content-length: [0-9]{1,2}|[0-9a-f]{1,2}|", 1..12),
        ends in prop::collection::vec("\r\n|\n|\r", 12),
        piece in 1..30_usize,
    ) {
        let bytes: String = lines.iter().zip(&ends).flat_map(|(line, end)| [&**line, &**end]).collect();
        prop_assert_eq!(read(bytes.as_bytes(), piece), read(bytes.as_bytes(), 1000));
    }

    /// What is written here is read there.
    #[test]
    fn an_answer_is_what_its_pieces_are(
        said in prop::collection::vec("[a-z\r\n0-9;]{0,40}|x{5000}", 0..8),
        takes in 1..6000_usize,
    ) {
        let mut connection = asked(GET);
        connection.stream.takes = takes;
        let left = said.iter().map(|piece| Some(Bytes::from(piece.clone()))).collect();
        let body = Pieces { left, length: None, asked: 0 };
        write(&mut connection, Response::new(body)).unwrap();
        let mut endpoint = Connection::new(Client::saying(&connection.stream.heard.concat()));
        let sent = endpoint.send(&Method::GET, GET.into(), Bytes::new());
        prop_assert_eq!(now(|context| pin!(sent).poll(context)).unwrap().status(), 200);
        let mut read = Vec::new();
        while let Some(frame) = now(|context| Pin::new(&mut endpoint).poll_frame(context)) {
            read.extend_from_slice(&frame.unwrap().into_data().unwrap());
        }
        prop_assert_eq!(String::from_utf8(read).unwrap(), said.concat());
    }
}
