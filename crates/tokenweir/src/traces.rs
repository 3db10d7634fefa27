//! Traces: one span a request, made of its record when it has ended, sent to an OpenTelemetry collector in batches.
//!
//! Nothing is done for them while a request runs but to note three instants. A thread of its own sends them, so that a slow
//! collector slows no request: what its queue has no room for, and what the collector does not take, is dropped and counted.

use std::{
    sync::{
        Arc,
        mpsc::{SyncSender, sync_channel},
    },
    time::Duration,
};

use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::{
    Resource,
    trace::{SpanData, SpanExporter as _},
};
use picker::{Journal, RequestRecord};
use prometheus::IntCounter;
use tokio::{
    sync::mpsc::{Receiver, Sender, channel},
    time::{Instant, timeout_at},
};

use crate::{outcome::Failed, settings::TraceSettings};

mod span;

/// Spans that wait to be sent; more are dropped.
const SPANS_MAX: usize = 2048;
/// Spans of one request to the collector.
const BATCH_MAX: usize = 512;
/// Longest time a span waits for others to be sent with.
const BATCH_WAIT_MAX: Duration = Duration::from_secs(1);
/// Longest time a request to the collector takes, its repetitions included.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);

/// Makes spans of records, and passes the records on.
#[derive(Debug)]
pub(crate) struct Traces {
    messages: Sender<Message>,
    dropped: IntCounter,
    next: Arc<dyn Journal>,
}

#[derive(Debug)]
enum Message {
    Span(Box<SpanData>),
    /// Answered once everything before it was sent.
    Flush(SyncSender<()>),
}

impl Traces {
    /// Starts the thread that sends, which ends when this is dropped. `dropped` counts what is not sent; `next` gets every
    /// record as well.
    pub(crate) fn start(
        settings: &TraceSettings,
        endpoint: &str,
        dropped: IntCounter,
        next: Arc<dyn Journal>,
    ) -> Result<Self, Failed> {
        let builder = SpanExporter::builder().with_http();
        let builder = builder.with_endpoint(endpoint).with_timeout(EXPORT_TIMEOUT);
        let builder = builder.with_protocol(Protocol::HttpBinary);
        let mut exporter = builder.build().map_err(Failed::run)?;
        exporter.set_resource(&resource(&settings.service_name));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(Failed::run)?;
        let (messages, waiting) = channel(SPANS_MAX);
        let sender = Batches { exporter, dropped: dropped.clone(), failing: false };
        let thread = std::thread::Builder::new().name("traces".to_owned());
        thread.spawn(move || runtime.block_on(sender.run(waiting))).map_err(Failed::run)?;
        Ok(Self { messages, dropped, next })
    }

    /// Blocks until every span so far is sent or given up, or the time is over.
    pub(crate) fn flush(&self, wait_max: Duration) {
        let (done, flushed) = sync_channel(1);
        let asked = self.messages.try_send(Message::Flush(done)).is_ok();
        if !asked || flushed.recv_timeout(wait_max).is_err() {
            tracing::warn!("the last spans may not have been exported");
        }
    }
}

impl Journal for Traces {
    fn write(&self, record: &RequestRecord) {
        if let Some(span) = span::of(record)
            && self.messages.try_send(Message::Span(Box::new(span))).is_err()
        {
            self.dropped.inc();
        }
        self.next.write(record);
    }
}

/// Who sends; with what `OTEL_RESOURCE_ATTRIBUTES` adds.
fn resource(service_name: &str) -> Resource {
    let version = opentelemetry::KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    Resource::builder().with_attribute(version).with_service_name(service_name.to_owned()).build()
}

struct Batches {
    exporter: SpanExporter,
    dropped: IntCounter,
    failing: bool,
}

impl Batches {
    /// Sends what comes until nobody can send any more.
    async fn run(mut self, mut waiting: Receiver<Message>) {
        let mut batch = Vec::new();
        while let Some(first) = waiting.recv().await {
            let flush = gather(first, &mut batch, &mut waiting).await;
            if !batch.is_empty() {
                self.send(std::mem::take(&mut batch)).await;
            }
            if let Some(done) = flush {
                // Whoever asked may have gone.
                let _gone = done.try_send(());
            }
        }
    }

    async fn send(&mut self, batch: Vec<SpanData>) {
        let spans = batch.len();
        match self.exporter.export(batch).await {
            Ok(()) if self.failing => tracing::info!("spans are exported again"),
            Ok(()) => {}
            Err(error) => {
                self.dropped.inc_by(spans as u64);
                if self.failing {
                    tracing::debug!(%error, spans, "spans cannot be exported");
                } else {
                    tracing::warn!(%error, spans, "spans cannot be exported; more of the same is not told");
                }
                self.failing = true;
                return;
            }
        }
        self.failing = false;
    }
}

/// Fills a batch, until it is full, has waited, or somebody asks for it.
async fn gather(
    first: Message,
    batch: &mut Vec<SpanData>,
    waiting: &mut Receiver<Message>,
) -> Option<SyncSender<()>> {
    let until = Instant::now() + BATCH_WAIT_MAX;
    let mut next = Some(first);
    while let Some(message) = next {
        match message {
            Message::Span(span) => batch.push(*span),
            Message::Flush(done) => return Some(done),
        }
        if batch.len() >= BATCH_MAX {
            break;
        }
        next = timeout_at(until, waiting.recv()).await.ok().flatten();
    }
    None
}

#[cfg(test)]
mod tests;
