//! One HTTP exchange over one connection: what the small clients of this room need.

use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;

use crate::outcome::Failed;

/// Longest answer read, in bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Longest wait for a whole answer.
const ANSWER_WAIT_MAX: Duration = Duration::from_mins(1);

/// Sends one request to `authority` and reads the whole answer. Dropping the future closes the
/// connection.
pub(crate) async fn fetch(
    authority: &str,
    host: &str,
    method: Method,
    path: &str,
    body: Bytes,
) -> anyhow::Result<(u16, Bytes)> {
    let exchange = async {
        let stream = TcpStream::connect(authority)
            .await
            .with_context(|| format!("cannot connect to {authority}"))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, host)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))?;
        let answer = async {
            let response = sender.send_request(request).await?;
            let status = response.status().as_u16();
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(anyhow::Error::from_boxed)?;
            anyhow::Ok((status, body.to_bytes()))
        };
        let mut answer = std::pin::pin!(answer);
        tokio::select! {
            answer = &mut answer => answer,
            ended = connection => {
                ended?;
                answer.await
            }
        }
    };
    match tokio::time::timeout(ANSWER_WAIT_MAX, exchange).await {
        Ok(answer) => answer,
        Err(_) => bail!("{authority} did not answer within {ANSWER_WAIT_MAX:?}"),
    }
}

/// What the admin port of a running gateway says at this path. Dropping the future closes the connection.
pub(crate) async fn ask_admin<T: DeserializeOwned>(admin: &str, path: &str) -> Result<T, Failed> {
    let base = admin.trim_end_matches('/');
    let authority = base.strip_prefix("http://").unwrap_or(base);
    let answer = fetch(authority, authority, Method::GET, path, Bytes::new()).await;
    let (status, body) = answer.map_err(|error| {
        Failed::Run(format!("{error:#}; is the gateway running, and is this its --admin address?"))
    })?;
    if status != 200 {
        let said = String::from_utf8_lossy(&body).trim().to_owned();
        return Err(Failed::Run(format!("the gateway answered {status}: {said}")));
    }
    serde_json::from_slice(&body).map_err(Failed::run)
}
