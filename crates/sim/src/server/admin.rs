//! `/admin/fault`: a server's fault over HTTP. [`super::control`] does the same for a fleet.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde_json::Value;

use super::errors::{ApiError, quote};
use super::fault::{Fault, FaultError};
use super::observe::Handle;

/// Where a server tells and takes its fault.
pub(super) const PATH: &str = "/admin/fault";
/// Bytes of a body that names a fault.
const BODY_BYTES_MAX: usize = 4096;
/// How long such a body may take to arrive.
const BODY_TIME_MAX: Duration = Duration::from_secs(10);

/// A fault told to whoever asks or sets it.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) fault: Fault,
    /// It would cut this answer off, so it is to be set when the answer is out.
    pub(super) afterwards: bool,
}

impl Told {
    pub(super) fn json(&self) -> String {
        format!(r#"{{"fault":{}}}"#, quote(&self.fault.to_string()))
    }
}

/// Tells the fault, or sets it. Dropping the future before the body is read changes nothing.
pub(super) async fn answer(handle: &Handle, request: Request<Incoming>) -> Result<Told, ApiError> {
    match *request.method() {
        Method::GET => Ok(Told { fault: handle.fault(), afterwards: false }),
        Method::POST => {
            let fault = read(request).await?;
            let afterwards = fault.closes_port();
            if !afterwards {
                handle.set_fault(fault);
            }
            Ok(Told { fault, afterwards })
        }
        _ => Err(ApiError::wrong_method("GET, POST")),
    }
}

/// The fault a request's body names, as plain text or as JSON.
pub(super) async fn read(request: Request<Incoming>) -> Result<Fault, ApiError> {
    let body = Limited::new(request.into_body(), BODY_BYTES_MAX).collect();
    let body = tokio::time::timeout(BODY_TIME_MAX, body).await;
    let body = body.map_err(|_| ApiError::bad_request("the body takes too long"))?;
    let body = body.map_err(|_| ApiError::body_too_large())?.to_bytes();
    parse(&body).map_err(|error| ApiError::bad_request(error.to_string()))
}

fn parse(body: &Bytes) -> Result<Fault, FaultError> {
    let text = std::str::from_utf8(body).map_err(|_| FaultError::new("the body is not UTF-8"))?;
    if !text.trim_start().starts_with('{') {
        return text.parse();
    }
    let json: Value =
        serde_json::from_str(text).map_err(|_| FaultError::new("the body is no JSON"))?;
    match json.get("fault").and_then(Value::as_str) {
        Some(fault) => fault.parse(),
        None => Err(FaultError::new("the body has no text `fault`")),
    }
}
