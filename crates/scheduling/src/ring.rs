//! A consistent hash ring: endpoints on a circle, each in many places.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::EndpointId;

/// Places of an endpoint on the ring; KubeAI's `replication`.
const PLACES: u64 = 256;

/// Endpoints by the places where their hashes put them. Adding or removing one moves only what is next to its places.
#[derive(Clone, Debug, Default)]
pub(crate) struct HashRing(Vec<(u64, u32)>);

impl HashRing {
    /// The ring of these endpoints; each is told by the number beside its name.
    pub(crate) fn new<'a>(endpoints: impl Iterator<Item = (u32, &'a EndpointId)>) -> Self {
        let mut places: Vec<(u64, u32)> = endpoints
            .flat_map(|(index, id)| {
                let name = id.as_str().as_bytes();
                (0..PLACES).map(move |place| (xxh3_64_with_seed(name, place), index))
            })
            .collect();
        places.sort_unstable();
        Self(places)
    }

    /// The endpoints from this point on, clockwise, with repetitions.
    pub(crate) fn from(&self, point: u64) -> impl Iterator<Item = u32> {
        let start = self.0.partition_point(|(place, _)| *place < point);
        self.0[start..].iter().chain(&self.0[..start]).map(|(_, index)| *index)
    }
}

#[cfg(test)]
mod tests;
