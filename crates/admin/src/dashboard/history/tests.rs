//! What comes of samples of a picker with some requests.

use std::sync::Arc;
use std::{
    net::SocketAddr,
    pin::pin,
    task::{Context, Poll, Waker},
};

use picker::{
    AppProtocol, Asked, Desired, EndpointPicker, EndpointSpec, Finish, Journal, Metrics, PoolKey,
    PoolKind, PoolSpec, RequestRecord, Workload,
};
use scheduling::{EndpointId, Policy};
use serde_json::Value;

use super::*;

#[derive(Debug)]
struct NoJournal;

impl Journal for NoJournal {
    fn write(&self, _: &RequestRecord) {}
}

struct Setting {
    picker: EndpointPicker,
    history: History,
    /// Seconds since the start.
    now: u64,
}

fn key(kind: PoolKind, port: u16) -> PoolKey {
    PoolKey { kind, namespace: "default".into(), name: "llama".into(), port }
}

fn desired() -> Desired {
    let endpoint = EndpointSpec {
        id: EndpointId::new("10.0.0.1:8000"),
        workload: "vllm-0".into(),
        host: "10.0.0.1".into(),
        port: 8000,
        protocol: AppProtocol::Http1,
    };
    let pool = PoolSpec {
        endpoints: vec![endpoint],
        ..PoolSpec::new(key(PoolKind::InferencePool, 0), Policy::LeastRequest)
    };
    Desired { pools: vec![pool], ..Desired::default() }
}

impl Setting {
    fn new() -> Self {
        let workload = Workload { name: "tokenweir".into(), namespace: "default".into() };
        let metrics = Arc::new(Metrics::new(workload).expect("metrics"));
        let picker = EndpointPicker::new(metrics, Arc::new(NoJournal), 1);
        picker.writer().apply(desired());
        Self { picker, history: History::default(), now: 0 }
    }

    /// A streamed request for a model, with its time to first token and its tokens.
    fn request(&self, model: &str, ttft: Duration, (prompt, completion): (u64, u64)) {
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let record = RequestRecord {
            request_model: Some(model.into()),
            pool: Some(key(PoolKind::InferencePool, 0)),
            stream: true,
            response_code: 200,
            ..RequestRecord::new(address, address)
        };
        let started = record.started;
        let mut open = self.picker.open(record);
        let routed = self.picker.straight_to(&key(PoolKind::InferencePool, 0));
        let picked = pin!(self.picker.pick(&routed, Asked::default(), &mut open))
            .poll(&mut Context::from_waker(Waker::noop()));
        let Poll::Ready(Ok(mut assignment)) = picked else { panic!("nothing was picked") };
        assignment.tokens(started + ttft);
        let usage = openai::Usage {
            prompt_tokens: Some(prompt),
            completion_tokens: Some(completion),
            ..openai::Usage::default()
        };
        assignment.usage(usage);
        assignment.finish(Finish::Complete(None));
    }

    /// Seconds pass, in each of which it samples.
    fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.now += 1;
            self.history.sample(&self.picker.view(), Duration::from_secs(self.now));
        }
    }

    fn shown(&self) -> Value {
        serde_json::to_value(self.history.shown()).expect("JSON")
    }

    fn series(&self, of: &str, name: &str) -> Value {
        let shown = self.shown();
        let all = shown.as_array().expect("an array");
        let found = all
            .iter()
            .find(|one| one["of"] == of && one["name"].as_str().unwrap_or_default() == name);
        found.unwrap_or_else(|| panic!("no {of} {name}: {shown}")).clone()
    }

    fn points(&self, of: &Of) -> Value {
        serde_json::to_value(self.history.points(of).expect("a series")).expect("JSON")
    }
}

const TENTH: Duration = Duration::from_millis(100);

#[test]
fn requests_and_tokens_count_for_all_for_their_pool_and_for_their_model() {
    let mut setting = Setting::new();
    setting.pass(1);
    setting.request("a", TENTH, (10, 5));
    setting.request("a", TENTH, (20, 6));
    setting.request("b", TENTH, (40, 7));
    setting.pass(1);
    let check = |of: &str, name: &str, expected: [u64; 3]| {
        let series = setting.series(of, name);
        let total = |key: &str| series["total"][key].as_u64().expect("a total");
        let totals = ["requests", "prompt_tokens", "completion_tokens"].map(total);
        assert_eq!(totals, expected, "{of} {name}");
        // All of them came in the last second.
        let point = ["requests", "prompt_tokens", "completion_tokens"];
        let point = point.map(|key| series["point"][key].to_string());
        assert_eq!(point, expected.map(|total| format!("{total}.0")), "{of} {name}");
    };
    check("all", "", [3, 70, 18]);
    check("pool", "llama", [3, 70, 18]);
    check("model", "a", [2, 30, 11]);
    check("model", "b", [1, 40, 7]);
}

#[test]
fn times_are_of_the_last_minute_and_of_the_last_hour() {
    let mut setting = Setting::new();
    setting.request("a", Duration::from_millis(50), (1, 1));
    setting.pass(61);
    let series = setting.series("model", "a");
    assert!(series["minute"]["ttft"].is_null(), "a minute is over: {series}");
    assert_eq!(series["hour"]["ttft"][0], 0.05, "between 0.04 and 0.06");
    setting.request("a", Duration::from_millis(700), (1, 1));
    setting.pass(1);
    let series = setting.series("model", "a");
    assert_eq!(series["minute"]["ttft"][0], 0.625, "between 0.5 and 0.75");
    assert_eq!(series["point"]["ttft"][0], 0.625);
    setting.pass(3660);
    let series = setting.series("model", "a");
    assert!(series["hour"]["ttft"].is_null(), "an hour is over: {series}");
    assert_eq!(series["total"]["requests"], 2, "the totals stay");
}

#[test]
fn a_model_first_asked_for_now_had_no_requests_before() {
    let mut setting = Setting::new();
    setting.pass(9);
    setting.request("a", TENTH, (50, 5));
    setting.pass(1);
    for (of, name) in [("pool", "llama"), ("model", "a")] {
        let minute = setting.series(of, name)["minute"].clone();
        assert_eq!((&minute["requests"], &minute["prompt_tokens"]), (&0.1.into(), &5.0.into()));
    }
}

#[test]
fn seconds_that_were_missed_are_gaps() {
    let mut setting = Setting::new();
    setting.pass(2);
    setting.now += 3;
    setting.request("a", TENTH, (8, 4));
    setting.pass(1);
    let requests = setting.points(&Of::All)["seconds"]["requests"].clone();
    assert_eq!(requests, serde_json::json!([0.0, 0.0, null, null, null, 0.25]));
}

#[test]
fn points_are_as_many_as_their_maxima_say() {
    let mut setting = Setting::new();
    setting.pass(STEP * 2);
    let steps = setting.points(&Of::All)["steps"]["requests"].clone();
    assert_eq!(steps.as_array().map(Vec::len), Some(2));
    setting.pass(SECONDS_MAX as u64 + STEP * STEPS_MAX as u64);
    let points = setting.points(&Of::All);
    let count = |of: &str| points[of]["in_flight"].as_array().map(Vec::len);
    assert_eq!((count("seconds"), count("steps")), (Some(SECONDS_MAX), Some(STEPS_MAX)));
}

#[test]
fn models_and_pools_beyond_their_maxima_are_one() {
    let mut setting = Setting::new();
    for nth in 0..MODELS_MAX + 5 {
        setting.request(&format!("m{nth:03}"), TENTH, (10, 5));
    }
    let pools = (0..POOLS_MAX + 5).map(|nth| {
        let name = format!("p{nth:03}").into();
        PoolSpec::new(PoolKey { name, ..key(PoolKind::InferencePool, 0) }, Policy::Random)
    });
    setting.picker.writer().apply(Desired { pools: pools.collect(), ..Desired::default() });
    setting.pass(2);
    let shown = setting.shown();
    let count = |of: &str| {
        let all = shown.as_array().expect("an array").iter();
        all.filter(|one| one["of"] == of).count()
    };
    assert_eq!((count("model"), count("pool")), (MODELS_MAX + 1, POOLS_MAX + 1));
    let other = setting.series("model", OTHER)["total"].clone();
    assert_eq!((&other["requests"], &other["prompt_tokens"]), (&5.into(), &50.into()));
    assert_eq!(setting.series("all", "")["total"]["requests"], MODELS_MAX + 5);
}

#[test]
fn pools_with_one_destination_show_its_tokens_and_all_counts_them_once() {
    let mut setting = Setting::new();
    let mut both = desired();
    both.pools.push(PoolSpec::new(key(PoolKind::Service, 8000), Policy::RoundRobin));
    setting.picker.writer().apply(both);
    setting.request("a", TENTH, (10, 5));
    setting.pass(1);
    let prompt = |of: &str, name: &str| setting.series(of, name)["total"]["prompt_tokens"].clone();
    assert_eq!([prompt("pool", "llama"), prompt("pool", "llama:8000")], [10, 10]);
    assert_eq!(prompt("all", ""), 10);
}

#[test]
fn a_pool_that_was_removed_keeps_its_counts() {
    let mut setting = Setting::new();
    setting.request("a", TENTH, (10, 5));
    setting.pass(1);
    setting.picker.writer().apply(Desired::default());
    setting.pass(1);
    let series = setting.series("pool", "llama");
    assert_eq!(series["total"]["prompt_tokens"], 10);
    assert_eq!(series["point"]["prompt_tokens"], 0.0);
    assert!(series["point"]["in_flight"].is_null());
}

#[test]
fn outcomes_are_counted_for_five_minutes_an_hour_and_ever() {
    let mut setting = Setting::new();
    setting.request("a", TENTH, (1, 1));
    setting.pass(1);
    let pick = |setting: &Setting| {
        let shown = serde_json::to_value(setting.history.outcomes_shown()).expect("JSON");
        let one = shown[0].clone();
        assert_eq!((one["outcome"].as_str(), one["pool"].as_str()), (Some("pick"), Some("llama")));
        assert_eq!(one["what"], "only");
        ["five_minutes", "hour", "total"].map(|key| one[key].as_u64().expect("a count"))
    };
    assert_eq!(pick(&setting), [1, 1, 1]);
    setting.pass(360);
    assert_eq!(pick(&setting), [0, 1, 1]);
    setting.request("a", TENTH, (1, 1));
    setting.pass(1);
    assert_eq!(pick(&setting), [1, 2, 2]);
    setting.pass(3600);
    assert_eq!(pick(&setting), [0, 0, 2]);
}

#[test]
fn numbers_are_sent_with_as_many_digits_as_are_shown() {
    let mut setting = Setting::new();
    setting.pass(1);
    setting.request("a", TENTH, (1_234_567, 1));
    setting.now += 2;
    setting.pass(1);
    let tokens = setting.series("model", "a")["point"]["prompt_tokens"].clone();
    assert_eq!(tokens, 411_500.0, "a third of them, rounded");
}
