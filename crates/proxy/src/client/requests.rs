//! The requests of one HTTP/1.1 connection, one after another.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response, request::Parts};
use http1::{Answer, BadHead};
use openai::ErrorShape;
use picker::{Metrics, Refusal, RequestRecord};
use tokio::time::timeout;

use super::{Client, HTTP2_PREFACE, LINGER, RequestBody};
use crate::{
    Proxy,
    downstream::Watch,
    head::{Peer, new_request_id},
    reply::{ReplyBody, date, refuse},
};

/// How a connection ended, as far as it speaks HTTP/1.1.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Ended {
    /// It is HTTP/2; nothing of it was taken.
    Http2,
    /// With an answer, or without a request.
    Answered,
    /// The client has left, or is to see that its answer was cut.
    Broken,
}

/// One connection.
pub(super) struct Http1<'a> {
    pub(super) proxy: &'a Proxy,
    pub(super) client: &'a Arc<Client>,
    pub(super) watch: &'a Arc<Watch>,
    pub(super) peer: Peer,
}

impl Http1<'_> {
    /// Answers requests until there are no more. Dropping the future cuts the one under way.
    pub(super) async fn serve(&self) -> Ended {
        if poll_fn(|context| self.client.lock().poll_begins(context, HTTP2_PREFACE)).await {
            return Ended::Http2;
        }
        loop {
            let answered = match poll_fn(|context| self.poll_head(context)).await {
                Ok(Some(head)) => self.exchange(head).await,
                Ok(None) => return Ended::Answered,
                Err(bad) => self.refuse_unread(&refusal(&bad)).await,
            };
            if !answered {
                return Ended::Broken;
            }
            if !self.client.lock().persists() {
                return Ended::Answered;
            }
        }
    }

    fn poll_head(&self, context: &mut Context<'_>) -> Poll<Result<Option<Parts>, BadHead>> {
        let mut client = self.client.lock();
        let head = client.poll_head(context);
        if head.is_pending() && !client.unread().is_empty() {
            self.watch.bytes_came();
        }
        head
    }

    /// One request and its answer; false if that did not come to its end.
    async fn exchange(&self, head: Parts) -> bool {
        let active = self.watch.begin(false, self.metrics());
        let request = Request::from_parts(head, RequestBody::Http1(Arc::clone(self.client)));
        let serving = Box::pin(self.proxy.serve(request, self.peer));
        let Some(mut response) = self.while_there(serving).await else { return false };
        active.note_age(&mut response, self.metrics());
        self.answer(response).await
    }

    /// Nothing if the client leaves before: the request is then dropped where it is.
    fn while_there<F: Future + Unpin>(
        &self,
        mut serving: F,
    ) -> impl Future<Output = Option<F::Output>> {
        poll_fn(move |context| match Pin::new(&mut serving).poll(context) {
            Poll::Ready(response) => Poll::Ready(Some(response)),
            Poll::Pending => self.client.lock().poll_left(context).map(|()| None),
        })
    }

    /// Writes an answer; false if it did not come to its end. Whoever drops the future has cut it.
    fn answer(&self, response: Response<ReplyBody>) -> impl Future<Output = bool> {
        let mut answer = Answer::new(response, date);
        let mut resets = false;
        poll_fn(move |context| {
            let mut client = self.client.lock();
            let written = client.poll_answer(context, &mut answer).map(|written| written.is_ok());
            // From its beginning to its end, however it is cut.
            if resets != (answer.ends_by_closing() && written != Poll::Ready(true)) {
                resets = !resets;
                if let Err(error) = client.stream().reset_on_close(resets) {
                    tracing::debug!(%error, "a cut answer may pass for a whole one");
                }
            }
            written
        })
    }

    /// Answers a head that did not come in time, if one has begun; false if it could not be told.
    pub(super) async fn refuse_late(&self) -> bool {
        let begun = {
            let mut client = self.client.lock();
            client.give_up();
            // No head of HTTP/1.1 begins as HTTP/2 does, and who has sent nothing waits for nothing.
            !HTTP2_PREFACE.starts_with(client.unread())
        };
        let late = Refusal::HeaderTimeout(self.proxy.limits().header_read_timeout);
        begun && timeout(LINGER, self.refuse_unread(&late)).await.unwrap_or(false)
    }

    /// Answers a head that could not be read, and writes its record.
    async fn refuse_unread(&self, refusal: &Refusal) -> bool {
        let _active = self.watch.begin(false, self.metrics());
        let request_id = new_request_id();
        let mut record = RequestRecord::new(self.peer.remote, self.peer.local);
        for text in [&mut record.method, &mut record.path, &mut record.authority] {
            "-".clone_into(text);
        }
        record.request_id = request_id.to_str().unwrap_or_default().to_owned();
        let mut record = self.proxy.picker().open(record);
        self.answer(refuse(refusal, ErrorShape::OpenAi, &request_id, &mut record)).await
    }

    fn metrics(&self) -> &Metrics {
        self.proxy.picker().metrics()
    }
}

/// What its sender is told.
fn refusal(bad: &BadHead) -> Refusal {
    tracing::debug!(%bad, "head refused");
    match bad {
        BadHead::Malformed(_) => Refusal::MalformedHead,
        BadHead::TooLarge => Refusal::HeadersTooLarge,
        BadHead::TargetTooLong => Refusal::PathTooLong,
    }
}
