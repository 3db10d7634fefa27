//! The whole story of a request.

use std::{pin::pin, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{Request, Response};
use openai::Envelope;
use picker::{
    Asked, EndpointPicker, OpenRecord, RECORD_TEXT_BYTES_MAX, Refusal, RequestRecord, Routed,
    Sampling, Tasks, contain,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use crate::{
    Limits,
    alarm::within,
    client::{BrokenOff, RequestBody},
    explain::{X_TOKENWEIR_EXPLAIN, is_asked},
    head::{Head, Peer},
    reply::{ReplyBody, refuse},
    upstream::{Outbound, Upstream},
};

/// Capacity reserved for a body before more than that of it has arrived: a claimed length is not believed. Most prompts have
/// room in it, and are not moved; what of it nothing arrives for is no memory yet.
const BODY_RESERVE_BYTES_MAX: usize = 256 * 1024;

/// Room for bodies is given out in units of this; what is smaller is not counted.
const BODY_UNIT_BYTES: usize = 64 * 1024;

/// How the proxy behaves.
#[derive(Clone, Copy, Debug)]
pub struct ProxyOptions {
    pub limits: Limits,
    /// Names the endpoint in the response header `x-tokenweir-endpoint`, and tells the whole decision in
    /// `x-tokenweir-decision` to a client that asks for it.
    pub endpoint_header: bool,
    /// Gives requests a span; which of them, if any. Without it the client's is passed on.
    pub traces: Option<Sampling>,
}

impl Default for ProxyOptions {
    fn default() -> Self {
        Self { limits: Limits::default(), endpoint_header: true, traces: None }
    }
}

/// Carries requests to endpoints and answers back. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct Proxy(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    picker: EndpointPicker,
    upstream: Upstream,
    limits: Limits,
    /// Clients may ask for their request's decision.
    explains: bool,
    traces: Option<Sampling>,
    /// Units of room for bodies.
    bodies: Arc<Semaphore>,
    connections: Tasks,
}

impl Proxy {
    /// `connections` owns the client connections, `background` those to endpoints.
    pub fn new(
        picker: EndpointPicker,
        options: ProxyOptions,
        connections: Tasks,
        background: &Tasks,
    ) -> Self {
        let upstream = Upstream::new(options, background, connections.cutoff());
        let ProxyOptions { limits, endpoint_header: explains, traces } = options;
        let bodies = Arc::new(Semaphore::new(limits.bodies_bytes_max / BODY_UNIT_BYTES));
        Self(Arc::new(Inner { picker, upstream, limits, explains, traces, bodies, connections }))
    }

    /// The same proxy on another thread, one of so many: what it knows is shared, its connections to endpoints are its own.
    pub(crate) fn beside(&self, threads: usize) -> Self {
        let Inner { picker, upstream, limits, explains, traces, bodies, connections } = &*self.0;
        Self(Arc::new(Inner {
            picker: picker.clone(),
            upstream: upstream.beside(threads),
            limits: *limits,
            explains: *explains,
            traces: *traces,
            bodies: Arc::clone(bodies),
            connections: connections.clone(),
        }))
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.0.limits
    }

    pub(crate) fn picker(&self) -> &EndpointPicker {
        &self.0.picker
    }

    /// Owner of the client connections; stopping it drains the proxy.
    pub(crate) fn connections(&self) -> &Tasks {
        &self.0.connections
    }

    /// Answers one request. Dropping the future is the client's departure: the claim is returned,
    /// the endpoint's request aborted, the record written.
    pub(crate) async fn serve(
        &self,
        request: Request<RequestBody>,
        peer: Peer,
    ) -> Response<ReplyBody> {
        let (parts, body) = request.into_parts();
        let head = Head::new(parts, peer, self.0.traces);
        let explain = self.0.explains && is_asked(head.value(&X_TOKENWEIR_EXPLAIN));
        let mut record = self.0.picker.open(RequestRecord { explain, ..head.record() });
        let (shape, request_id) = (head.operation.error_shape(), head.request_id.clone());
        match contain(Box::pin(self.answer(&head, body, &mut record))).await {
            Ok(Ok(response)) => response,
            Ok(Err(refusal)) => refuse(&refusal, shape, &request_id, &mut record),
            Err(panic) => {
                self.0.picker.metrics().panics.inc();
                tracing::error!(?request_id, %panic, "request panicked: a bug");
                refuse(&Refusal::Panicked, shape, &request_id, &mut record)
            }
        }
    }

    async fn answer(
        &self,
        head: &Head,
        body: RequestBody,
        record: &mut OpenRecord,
    ) -> Result<Response<ReplyBody>, Refusal> {
        if self.0.connections.is_stopping() {
            return Err(Refusal::Draining);
        }
        head.check(&self.0.limits)?;
        let routed = self.0.picker.route(head)?;
        note_route(record, &routed);
        let mut room = BodyRoom { bodies: &self.0.bodies, taken: None };
        let bounds = (routed.delivery.body_bytes_max, self.0.limits.body_read_timeout);
        let until = self.0.upstream.until(None);
        let body = until.get(pin!(read_bounded(body, bounds, &mut room, record))).await??;
        let envelope = read_envelope(head, &body, record)?;
        panic_if_asked(head, &body, "waiting");
        let asked = Asked {
            envelope: envelope.as_ref(),
            body: &body,
            objective: head.objective(),
            flow: head.flow(),
        };
        note_queued(record);
        // Waiting for an endpoint with room takes its time from the answer.
        let until = self.0.upstream.until(routed.timeout);
        let assignment = until.get(pin!(self.0.picker.pick(&routed, asked, record))).await??;
        panic_if_asked(head, &body, "assigned");
        let delivery = routed.delivery;
        let (body, envelope) = (&body, envelope.as_ref());
        let outbound = Outbound { head, body, envelope, until, delivery };
        let sent = self.0.upstream.send(&outbound, assignment).await;
        sent.map_err(|(refusal, assignment)| {
            *record = assignment.into_record();
            refusal
        })
    }
}

/// In builds with debug assertions a request may ask for a bug at this place, one whose message quotes it; in a release
/// build nothing of this is left. A panic cannot be had from outside otherwise, and what becomes of one has to be tested.
fn panic_if_asked(head: &Head, body: &Bytes, place: &str) {
    if cfg!(debug_assertions) {
        let asked = head.parts.headers.get("x-tokenweir-panic");
        let asked = asked.is_some_and(|value| value == place);
        assert!(!asked, "{:?} {:?} {body:?}", head.parts.uri, head.parts.headers);
    }
}

fn note_route(record: &mut OpenRecord, routed: &Routed) {
    if let Some(record) = record.get() {
        record.route = Some(Arc::clone(&routed.name));
        record.pool = Some(routed.pool.clone());
    }
}

/// For its span, if it gets one: from here on the request waits for an endpoint.
fn note_queued(record: &mut OpenRecord) {
    if let Some(trace) = record.get().and_then(|record| record.trace.as_mut()) {
        trace.queued = Some(Instant::now());
    }
}

fn read_envelope(
    head: &Head,
    body: &Bytes,
    record: &mut OpenRecord,
) -> Result<Option<Envelope>, Refusal> {
    if !head.operation.reads_body() {
        return Ok(None);
    }
    let envelope = Envelope::parse(head.operation, body)
        .map_err(|invalid| Refusal::InvalidBody(invalid.to_string()))?;
    if let Some(record) = record.get() {
        let model = envelope.model().filter(|model| !model.is_empty());
        record.request_model = model.map(|model| {
            let end = model.floor_char_boundary(RECORD_TEXT_BYTES_MAX);
            model.get(..end).unwrap_or_default().to_owned()
        });
        record.stream = envelope.stream();
    }
    Ok(Some(envelope))
}

/// A request's share of the memory that all bodies may take; given back when dropped.
struct BodyRoom<'a> {
    bodies: &'a Arc<Semaphore>,
    taken: Option<OwnedSemaphorePermit>,
}

impl BodyRoom<'_> {
    /// Makes room for a body that has grown to this size.
    fn take(&mut self, body_bytes: usize) -> Result<(), Refusal> {
        let wanted = body_bytes / BODY_UNIT_BYTES;
        let taken = self.taken.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let more = u32::try_from(wanted.saturating_sub(taken)).unwrap_or(u32::MAX);
        if more == 0 {
            return Ok(());
        }
        let permit = Arc::clone(self.bodies).try_acquire_many_owned(more);
        let permit = permit.map_err(|_| Refusal::Overloaded)?;
        match &mut self.taken {
            Some(taken) => taken.merge(permit),
            None => self.taken = Some(permit),
        }
        Ok(())
    }
}

/// The whole body, up to the limits in bytes and time.
async fn read_bounded(
    mut body: RequestBody,
    (bytes_max, timeout): (usize, Duration),
    room: &mut BodyRoom<'_>,
    record: &mut OpenRecord,
) -> Result<Bytes, Refusal> {
    let too_large = Refusal::BodyTooLarge { limit_bytes: bytes_max };
    if body.left() > bytes_max as u64 {
        return Err(too_large);
    }
    if body.is_ended() {
        return Ok(Bytes::new());
    }
    let mut reading = Reading { bytes_max, room, record };
    match within(timeout, pin!(reading.collect(&mut body))).await {
        Some(read) => read?.ok_or(too_large),
        None => Err(Refusal::BodyTimeout(timeout)),
    }
}

/// A body being read.
struct Reading<'a, 'b> {
    bytes_max: usize,
    room: &'a mut BodyRoom<'b>,
    record: &'a mut OpenRecord,
}

impl Reading<'_, '_> {
    /// `None` if the body is larger than it may be. One piece is passed on without copying.
    async fn collect(&mut self, body: &mut RequestBody) -> Result<Option<Bytes>, Refusal> {
        let first = body.piece().await.map_err(|broken| self.broken(broken))?;
        let first = first.unwrap_or_default();
        if !self.takes(first.len(), first.len())? {
            return Ok(None);
        }
        if body.is_ended() {
            return Ok(Some(first));
        }
        let mut whole = BytesMut::with_capacity(first.len() + claimed(body, 0));
        whole.extend_from_slice(&first);
        loop {
            if whole.len() == whole.capacity() {
                whole.reserve(claimed(body, whole.len()));
            }
            let read = body.read_into(&mut whole).await.map_err(|broken| self.broken(broken))?;
            if read == 0 {
                return Ok(Some(whole.freeze()));
            }
            if !self.takes(read, whole.len())? {
                return Ok(None);
            }
        }
    }

    /// Whether so much more may be held, which is then so much in all.
    fn takes(&mut self, more: usize, bytes: usize) -> Result<bool, Refusal> {
        if let Some(record) = self.record.get() {
            record.bytes_received += more as u64;
        }
        if bytes > self.bytes_max {
            return Ok(false);
        }
        self.room.take(bytes)?;
        Ok(true)
    }

    fn broken(&mut self, BrokenOff { why, has_left }: BrokenOff) -> Refusal {
        if has_left {
            // Nobody is there to be refused: dropped now, the record says so.
            drop(self.record.take());
        }
        Refusal::InvalidBody(format!("the request body broke off: {why}; send it whole"))
    }
}

/// Room for what is to come, after so much: what is claimed is believed as far as as much has come.
fn claimed(body: &RequestBody, come: usize) -> usize {
    let believed = come.max(BODY_RESERVE_BYTES_MAX);
    usize::try_from(body.left()).map_or(believed, |left| left.min(believed))
}
