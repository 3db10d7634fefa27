//! An endpoint's load, told along with an answer: a look at it between two scrapes.
//!
//! vLLM tells it with answers that are not streamed, in a header, to who asks for it in another. The
//! gateway asks on its own account, once in a while; what a client has asked for itself is the
//! client's, and heard on its way.

use http::{HeaderMap, HeaderName, StatusCode, response};
use openai::{Envelope, LOAD_FORMAT, LOAD_HEADER, LOAD_REQUEST_HEADER, LoadReport, Operation};
use picker::{Assignment, Endpoint};

use crate::upstream::Outbound;

const REQUEST_HEADER: HeaderName = HeaderName::from_static(LOAD_REQUEST_HEADER);
/// The header that asks.
pub(crate) const ASKING: (HeaderName, &str) = (REQUEST_HEADER, LOAD_FORMAT);
const HEADER: HeaderName = HeaderName::from_static(LOAD_HEADER);

/// Whether an answer may tell the load.
fn may_tell(outbound: &Outbound<'_>) -> bool {
    let operation = outbound.head.operation;
    matches!(operation, Operation::Completions | Operation::ChatCompletions)
        && !outbound.envelope.is_some_and(Envelope::stream)
}

fn client_asks(outbound: &Outbound<'_>) -> bool {
    outbound.head.value(&REQUEST_HEADER).is_some()
}

/// Whether to ask with this request.
pub(crate) fn asks(outbound: &Outbound<'_>, endpoint: &Endpoint) -> bool {
    may_tell(outbound) && !client_asks(outbound) && endpoint.asks_report()
}

/// Takes in what an answer's head tells. To be called as soon as it has come: it tells of that
/// moment.
pub(crate) fn hear(parts: &response::Parts, outbound: &Outbound<'_>, assignment: &Assignment) {
    if parts.status == StatusCode::OK
        && let Some(value) = parts.headers.get(HEADER)
        && may_tell(outbound)
        && let Some(load) = LoadReport::parse(value.as_bytes())
    {
        assignment.reported(load);
    }
}

/// Takes the load out of an answer's head, unless the client has asked for it.
pub(crate) fn strip(headers: &mut HeaderMap, outbound: &Outbound<'_>) {
    if may_tell(outbound) && !client_asks(outbound) {
        headers.remove(HEADER);
    }
}
