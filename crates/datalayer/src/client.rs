//! Requests to one endpoint over one connection, opened anew when it has closed.

use std::{future::Future, time::Duration};

use http::StatusCode;
use picker::{EndpointSpec, Tasks};
use tokio::time::timeout;

use crate::{connection::Connection, failure::Failure};

pub(crate) struct Client {
    spec: EndpointSpec,
    /// What the `Host` header says.
    authority: String,
    tasks: Tasks,
    connection: Option<Connection>,
}

/// What is asked of the endpoint.
#[derive(Clone, Copy)]
pub(crate) struct Get {
    pub(crate) path: &'static str,
    /// Connecting included.
    pub(crate) timeout: Duration,
    pub(crate) body_bytes_max: usize,
}

impl Client {
    pub(crate) fn new(spec: EndpointSpec, tasks: Tasks) -> Self {
        let authority = if spec.host.contains(':') {
            format!("[{}]:{}", spec.host, spec.port)
        } else {
            format!("{}:{}", spec.host, spec.port)
        };
        Self { spec, authority, tasks, connection: None }
    }

    /// Gets a path into `body`. A failure, a timeout or dropping the future closes the connection;
    /// the next call opens another.
    pub(crate) async fn get(
        &mut self,
        get: Get,
        body: &mut Vec<u8>,
    ) -> Result<StatusCode, Failure> {
        let Get { path, timeout: limit, .. } = get;
        let got = timeout(limit, self.get_unhurried(get, body)).await;
        got.unwrap_or(Err(Failure::Timeout { path, limit }))
    }

    async fn get_unhurried(&mut self, get: Get, body: &mut Vec<u8>) -> Result<StatusCode, Failure> {
        // Taken, and given back only when whole: whatever happens in between closes it.
        if let Some(connection) = self.connection.take().filter(|held| !held.is_closed()) {
            match self.get_over(connection, get, body).await {
                // vLLM closes idle connections, perhaps just now; that says nothing about it.
                Err(Failure::Unanswered { .. }) => {}
                settled => return settled,
            }
        }
        let connection = Connection::open(&self.spec, &self.tasks).await?;
        self.get_over(connection, get, body).await
    }

    async fn get_over(
        &mut self,
        mut connection: Connection,
        get: Get,
        body: &mut Vec<u8>,
    ) -> Result<StatusCode, Failure> {
        let Get { path, body_bytes_max, .. } = get;
        let status = connection.get(&self.authority, path, body, body_bytes_max).await?;
        self.connection = Some(connection);
        Ok(status)
    }

    /// Minds the connection while waiting for something else, and lets go of it when the endpoint
    /// does. Dropping the future loses nothing.
    pub(crate) async fn idle_during<T>(&mut self, work: impl Future<Output = T>) -> T {
        let Some(connection) = &mut self.connection else { return work.await };
        let done = connection.idle_during(work).await;
        self.connection = self.connection.take().filter(|held| !held.is_closed());
        done
    }
}
