//! Which kinds the API server serves, in which versions.

use std::collections::{BTreeMap, btree_map::Entry as MapEntry};

use kube::Client;
use tokio::time::timeout;

use super::{
    entry::Source,
    follower::{ANSWER_MAX, no_answer},
};
use crate::object::Kind;

/// The kinds of ours that are there, each group's in its best version.
pub(super) async fn discover(client: &Client) -> Result<Vec<Source>, kube::Error> {
    let groups = answer(client.list_api_groups()).await?;
    let mut served: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for group in &groups.groups {
        let versions = group.versions.iter().map(|version| version.version.as_str());
        served.insert(&group.name, versions.collect());
    }
    // Core kinds are always there.
    let mut sources = Vec::new();
    let mut names: BTreeMap<(&str, &str), Vec<String>> = BTreeMap::new();
    for kind in Kind::ALL {
        for (group, versions) in kind.served() {
            if group.is_empty() {
                sources.push(Source { kind, group, version: versions[0] });
                continue;
            }
            let Some(offered) = served.get(group) else { continue };
            for version in best_first(versions) {
                if !offered.contains(&version) {
                    continue;
                }
                let held = match names.entry((group, version)) {
                    MapEntry::Occupied(known) => known.into_mut(),
                    MapEntry::Vacant(unknown) => {
                        unknown.insert(resources(client, group, version).await?)
                    }
                };
                if held.contains(&kind.plural()) {
                    sources.push(Source { kind, group, version });
                    break;
                }
            }
        }
    }
    Ok(sources)
}

/// Plural names of what a version of a group holds.
async fn resources(
    client: &Client,
    group: &str,
    version: &str,
) -> Result<Vec<String>, kube::Error> {
    match answer(client.list_api_group_resources(&format!("{group}/{version}"))).await {
        Ok(list) => Ok(list.resources.into_iter().map(|resource| resource.name).collect()),
        // Removed since the groups were listed.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

async fn answer<T>(asked: impl Future<Output = Result<T, kube::Error>>) -> Result<T, kube::Error> {
    timeout(ANSWER_MAX, asked).await.unwrap_or_else(|_| Err(no_answer()))
}

/// Kubernetes's own order: stable before beta before alpha, then the higher number.
fn best_first(versions: &[&'static str]) -> Vec<&'static str> {
    let mut versions = versions.to_vec();
    versions
        .sort_by_key(|version| std::cmp::Reverse(kube::core::Version::parse(version).priority()));
    versions
}
