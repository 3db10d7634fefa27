//! The state of each endpoint over time, for people to look at.

/// Moments kept; when there are more, every second one is dropped and the pauses double.
const MOMENTS_MAX: usize = 480;

/// KV use and queue of each endpoint over time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Series {
    /// Seconds from the start.
    pub seconds: Vec<f64>,
    /// Share of KV in use, an endpoint each, a moment each.
    pub kv_usage: Vec<Vec<f64>>,
    /// Requests waiting in the endpoint.
    pub waiting: Vec<Vec<f64>>,
    /// Only every so manyeth moment is kept.
    stride: u64,
    seen: u64,
}

impl Series {
    /// Of so many endpoints, with nothing noted yet.
    pub fn new(endpoints: usize) -> Series {
        let each = vec![Vec::new(); endpoints];
        Series { kv_usage: each.clone(), waiting: each, stride: 1, ..Series::default() }
    }

    /// Notes each endpoint's KV use and waiting requests at a moment.
    pub fn add(&mut self, seconds: f64, state: impl Iterator<Item = (f64, f64)>) {
        self.seen += 1;
        if !(self.seen - 1).is_multiple_of(self.stride) {
            return;
        }
        self.seconds.push(seconds);
        for (endpoint, (kv, waiting)) in state.enumerate() {
            self.kv_usage[endpoint].push(kv);
            self.waiting[endpoint].push(waiting);
        }
        if self.seconds.len() > MOMENTS_MAX {
            self.stride *= 2;
            halve(&mut self.seconds);
            self.kv_usage.iter_mut().chain(&mut self.waiting).for_each(halve);
        }
    }
}

fn halve(values: &mut Vec<f64>) {
    let mut index = 0;
    values.retain(|_| {
        index += 1;
        index % 2 == 1
    });
}
