//! The page at `/`, its files, and the stream that keeps it up to date.

use admin::PAGES_MAX;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::setting::{DEADLINE, Setting, ask_with, get};

/// An open page.
struct Page {
    stream: TcpStream,
    read: String,
}

impl Page {
    async fn open(setting: &Setting) -> Self {
        let mut stream = TcpStream::connect(setting.admin).await.expect("connect");
        stream.write_all(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("write");
        Self { stream, read: String::new() }
    }

    /// Reads until the text has come.
    async fn until(&mut self, text: &str) {
        let all = async {
            while !self.read.contains(text) {
                let mut bytes = vec![0; 4096];
                let count = self.stream.read(&mut bytes).await.expect("a read");
                assert_ne!(count, 0, "it ended: {}", self.read);
                self.read.push_str(&String::from_utf8_lossy(&bytes[..count]));
            }
        };
        timeout(DEADLINE, all).await.expect("in time");
    }

    /// The next event.
    async fn tick(&mut self) -> Value {
        self.until("data: ").await;
        let (_, rest) = self.read.split_once("data: ").expect("an event");
        self.read = rest.into();
        self.until("\n\n").await;
        let (event, rest) = self.read.split_once("\n\n").expect("its end");
        // Without the lengths of chunks, which stand between events only.
        let event = serde_json::from_str(event).unwrap_or_else(|error| panic!("{error}: {event}"));
        self.read = rest.into();
        event
    }
}

#[tokio::test]
async fn the_page_and_its_files_come_from_here_alone() {
    let setting = Setting::start().await;
    let page = get(setting.admin, "/").await;
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    let policy = page.header("content-security-policy").expect("a policy");
    for rule in ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'"] {
        assert!(policy.contains(rule), "{policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    let mut files = vec![];
    for quoted in page.body.split('"').filter(|text| text.starts_with("dashboard/")) {
        files.push(format!("/{quoted}"));
    }
    // Modules name the others that they need.
    while let Some(path) = files.pop() {
        let file = get(setting.admin, &path).await;
        assert_eq!(file.status, 200, "{path}");
        assert_eq!(file.header("x-content-type-options"), Some("nosniff"), "{path}");
        let imports = file.body.lines().filter(|line| line.starts_with("import "));
        for line in imports {
            let name = line.split("\"./").nth(1).and_then(|rest| rest.split('"').next());
            files.push(format!("/dashboard/{}", name.expect("a module")));
        }
        for elsewhere in ["http://", "https://", "//cdn", "innerHTML", "eval("] {
            let found = file.body.replace("http://www.w3.org", "").contains(elsewhere);
            assert!(!found, "{path} has {elsewhere}");
        }
    }
    assert!(!page.body.contains("style=") && !page.body.contains("onclick"), "nothing inline");
    setting.end().await;
}

#[tokio::test]
async fn a_page_is_told_the_present_at_once_and_each_second() {
    let setting = Setting::start().await;
    let assignment = setting.pick("r1");
    let mut page = Page::open(&setting).await;
    page.until("\r\n\r\n").await;
    let head = page.read.to_lowercase();
    assert!(head.starts_with("http/1.1 200") && head.contains("text/event-stream"), "{head}");
    let first = page.tick().await;
    assert_eq!(first["pools"][0]["endpoints"].as_array().map(Vec::len), Some(2));
    assert_eq!(first["configuration"]["generation"], 3);
    assert_eq!(first["decisions"][0]["request_id"], "r1");
    assert_eq!(first.get("not_ready"), None);

    *setting.unready.lock().expect("unready") = Some("draining".to_owned());
    drop(assignment);
    let next = loop {
        let tick = page.tick().await;
        if tick["sequence"].as_u64() > first["sequence"].as_u64() {
            break tick;
        }
    };
    assert_eq!(next["not_ready"], "draining");
    let all = next["series"].as_array().and_then(|series| series.first()).expect("a series");
    assert_eq!((&all["of"], &all["point"]["in_flight"]), (&json!("all"), &json!(0)));
    assert_eq!(all["total"]["disconnects"], 1, "nobody said how it ended");
    setting.end().await;
}

#[tokio::test]
async fn pages_beyond_the_maximum_are_refused_until_one_has_closed() {
    let setting = Setting::start().await;
    let mut pages = Vec::new();
    for _ in 0..PAGES_MAX {
        let mut page = Page::open(&setting).await;
        page.until("\r\n\r\n").await;
        pages.push(page);
    }
    let refused = get(setting.admin, "/events").await;
    assert_eq!(refused.status, 503);
    assert!(refused.body.contains("close one"), "{}", refused.body);
    assert_eq!(get(setting.admin, "/endpoints").await.status, 200, "there is room for the rest");
    pages.pop();
    let open = async {
        loop {
            let mut page = Page::open(&setting).await;
            page.until("\r\n\r\n").await;
            if page.read.starts_with("HTTP/1.1 200") {
                break;
            }
        }
    };
    timeout(DEADLINE, open).await.expect("a place");
    drop(pages);
    setting.end().await;
}

#[tokio::test]
async fn another_sites_page_cannot_hold_a_stream() {
    let setting = Setting::start().await;
    let headers = "Host: localhost\r\nSec-Fetch-Site: cross-site\r\n";
    assert_eq!(ask_with(setting.admin, "GET", "/events", headers).await.status, 403);
    setting.end().await;
}

#[tokio::test]
async fn open_pages_do_not_hold_up_the_end() {
    let setting = Setting::start().await;
    let mut page = Page::open(&setting).await;
    page.tick().await;
    let silent = Page::open(&setting).await;
    setting.end().await;
    drop((page, silent));
}

#[tokio::test]
async fn the_history_is_told_by_series() {
    let setting = Setting::start().await;
    drop(setting.pick("r1"));
    let mut page = Page::open(&setting).await;
    page.tick().await;
    let overview = get(setting.admin, "/history").await.json();
    let series: Vec<_> =
        overview.as_array().expect("an array").iter().map(|one| &one["of"]).collect();
    assert!(series.contains(&&json!("all")) && series.contains(&&json!("pool")), "{overview}");
    let points = get(setting.admin, "/history?of=pool&name=llama").await.json();
    assert_eq!(points["name"], "llama");
    assert_eq!(points["step_seconds"], 15);
    let seconds = &points["seconds"];
    let count = seconds["requests"].as_array().expect("points").len();
    assert!(count > 0 && seconds["ttft"].as_array().is_some_and(|ttft| ttft.len() == count));
    for (query, advice) in
        [("of=pool&name=none", "/history lists"), ("of=pod", "all, pool or model")]
    {
        let reply = get(setting.admin, &format!("/history?{query}")).await;
        assert_eq!(reply.status, 400, "{query}");
        assert!(reply.body.contains(advice), "{}", reply.body);
    }
    setting.end().await;
}
