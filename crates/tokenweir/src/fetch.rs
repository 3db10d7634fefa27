//! One HTTP exchange over one connection: what the small clients of this room need.

use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

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
