//! Waits between tries.

use std::time::Duration;

use http::{HeaderMap, HeaderValue};

use super::{Backoff, RetryAfter, WAIT_MAX};

#[tokio::test(start_paused = true)]
async fn waits_grow_up_to_their_maximum_and_begin_anew_after_a_success() {
    let mut backoff = Backoff::new(RetryAfter::default());
    let waits: Vec<Duration> = (0..8).map(|_| backoff.wait()).collect();
    assert!(waits[0] <= Duration::from_millis(500) && waits[0] >= Duration::from_millis(250));
    assert!(waits[7] <= WAIT_MAX && waits[7] >= WAIT_MAX / 2);
    backoff.reset();
    assert!(backoff.wait() <= Duration::from_millis(500));
}

#[tokio::test(start_paused = true)]
async fn the_server_may_ask_for_more_and_not_for_everything() {
    let retry_after = RetryAfter::default();
    let mut backoff = Backoff::new(retry_after.clone());
    let mut headers = HeaderMap::new();
    headers.insert("retry-after", HeaderValue::from_static("7"));
    retry_after.note(&headers);
    assert_eq!(backoff.wait(), Duration::from_secs(7));
    headers.insert("retry-after", HeaderValue::from_static("86400"));
    retry_after.note(&headers);
    assert_eq!(backoff.wait(), Duration::from_mins(1));
    tokio::time::advance(Duration::from_mins(1)).await;
    backoff.reset();
    assert!(backoff.wait() <= Duration::from_millis(500), "it has had its time");
}
