use std::{
    net::{SocketAddr, TcpListener},
    sync::atomic::{AtomicUsize, Ordering},
};

use picker::{RequestTrace, TraceContext};

use super::*;

/// Counts records that were passed on.
#[derive(Debug, Default)]
struct Counted(AtomicUsize);

impl Journal for Counted {
    fn write(&self, _: &RequestRecord) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn record() -> RequestRecord {
    let here = SocketAddr::from(([127, 0, 0, 1], 4000));
    let settings = TraceSettings::default();
    let context = TraceContext::begin(None, None, settings.sampling, (1, 2));
    let trace = RequestTrace { context, queued: None, connected: None };
    RequestRecord { trace: Some(Box::new(trace)), ..RequestRecord::new(here, here) }
}

fn start(endpoint: &str) -> (Traces, IntCounter, Arc<Counted>) {
    let dropped = IntCounter::new("dropped", "Dropped.").unwrap();
    let next = Arc::new(Counted::default());
    let settings = TraceSettings::default();
    let traces = Traces::start(&settings, endpoint, dropped.clone(), Arc::clone(&next) as _);
    (traces.unwrap_or_else(|error| panic!("{error:?}")), dropped, next)
}

#[test]
fn a_collector_that_takes_nothing_costs_spans_and_no_record() {
    // Its connections are made by the system and never answered.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let (traces, dropped, next) =
        start(&format!("http://{}/v1/traces", silent.local_addr().unwrap()));
    let sent = 2 * SPANS_MAX + BATCH_MAX;
    let record = record();
    for _ in 0..sent {
        traces.write(&record);
    }
    assert_eq!(next.0.load(Ordering::Relaxed), sent, "every record goes on");
    // What waits fills the queue, and one batch is under way.
    let lost = usize::try_from(dropped.get()).unwrap();
    assert!((1..=sent - SPANS_MAX).contains(&lost), "{lost} of {sent}");
}

#[test]
fn spans_that_cannot_be_sent_are_counted() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}/v1/traces", closed.local_addr().unwrap());
    drop(closed);
    let (traces, dropped, _) = start(&endpoint);
    for _ in 0..3 {
        traces.write(&record());
    }
    traces.flush(EXPORT_TIMEOUT * 2);
    assert_eq!(dropped.get(), 3);
}
