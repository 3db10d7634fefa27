use super::*;
use crate::engine::Finish;

fn host(change: impl FnOnce(&mut EngineConfig)) -> Arc<Host> {
    let mut config = EngineConfig::default();
    change(&mut config);
    Arc::new(Host::new(config, false))
}

fn request(prompt: u32, output: u32) -> Request {
    Request {
        id: RequestId(0),
        adapter: None,
        salt: 0,
        prompt_tokens: prompt,
        output_tokens: output,
        max_tokens: None,
        finish: Finish::Length,
        content: Vec::new(),
    }
}

/// Runs the engine beside `test` on the paused clock.
async fn with_engine(host: &Arc<Host>, test: impl Future<Output = ()>) {
    tokio::select! {
        () = host.drive() => {}
        () = test => {}
    }
}

async fn beyond(ticket: &Ticket, seen: u32) -> u32 {
    poll_fn(|cx| ticket.poll_beyond(seen, cx)).await
}

#[tokio::test(start_paused = true)]
async fn tokens_come_when_the_formula_says() {
    let host = host(|_| {});
    with_engine(&host, async {
        let ticket = host.offer(request(550, 11)).unwrap();
        let began = Instant::now();
        assert_eq!(beyond(&ticket, 0).await, 1);
        let first = began.elapsed().as_secs_f64();
        ticket.finished().await;
        let last = began.elapsed().as_secs_f64();
        assert!((0.094..0.099).contains(&first), "{first}");
        assert!((0.30..0.32).contains(&(last - first)), "{}", last - first);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_request_whose_client_left_is_gone_within_a_tenth_of_a_second() {
    let host = host(|_| {});
    with_engine(&host, async {
        let stays = host.offer(request(100, 1000)).unwrap();
        let leaves = host.offer(request(100, 1000)).unwrap();
        beyond(&leaves, 5).await;
        assert_eq!(host.metrics().running, 2);
        drop(leaves);
        let left = Instant::now();
        while host.metrics().running > 1 {
            host.stepped.notified().await;
        }
        assert!(left.elapsed() < Duration::from_millis(100), "{:?}", left.elapsed());
        assert_eq!((host.aborted(), host.live()), (1, 1));
        stays.finished().await;
        drop(stays);
        assert_eq!((host.aborted(), host.live()), (1, 0));
        assert!(host.metrics().kv_cache_usage.abs() < f64::EPSILON);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_engine_wakes_up_for_the_next_request() {
    let host = host(|_| {});
    with_engine(&host, async {
        for _ in 0..3 {
            let ticket = host.offer(request(10, 5)).unwrap();
            ticket.finished().await;
            tokio::time::sleep(Duration::from_mins(1)).await;
        }
        // 15 tokens of about 30 ms: time asleep is not worked off.
        assert_eq!(host.metrics().generation_tokens, 15);
        assert!(host.metrics().e2e_latency.sum < 1.0);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_frozen_engine_gives_nothing_and_goes_on_when_it_is_freed() {
    let host = host(|_| {});
    with_engine(&host, async {
        let ticket = host.offer(request(10, 50)).unwrap();
        let seen = beyond(&ticket, 3).await;
        host.freeze(true);
        let frozen = host.metrics();
        let wait = tokio::time::timeout(Duration::from_secs(100), beyond(&ticket, seen));
        assert!(wait.await.is_err());
        assert_eq!(host.metrics(), frozen);
        host.freeze(false);
        ticket.finished().await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_sleeps_holds_nobody_up() {
    let host = host(|_| {});
    with_engine(&host, async {
        let sleeps = host.offer(request(100, 50)).unwrap();
        let reads = host.offer(request(100, 50)).unwrap();
        reads.finished().await;
        assert_eq!(beyond(&sleeps, 0).await, 50);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn label_sets_of_adapters_are_kept_but_not_for_ever() {
    let host = host(|config| config.max_loras = 100);
    with_engine(&host, async {
        for adapter in 0..100 {
            let request = Request { adapter: Some(AdapterId(adapter)), ..request(10, 2) };
            host.offer(request).unwrap().finished().await;
        }
        let series = host.lora_series();
        assert_eq!(series.len(), LORA_SERIES_MAX);
        assert_eq!(series.last().unwrap().running, [AdapterId(99)]);
    })
    .await;
}
