//! What can be asked for: the base model and its adapters, some of which come and go at run time.

use std::sync::Mutex;
use std::time::Duration;

use super::errors::{ApiError, quote};
use super::host::lock;
use crate::engine::AdapterId;

/// Adapters a server lists at most.
const ADAPTERS_MAX: usize = 1024;

/// The base model and the adapters.
#[derive(Debug)]
pub(super) struct Models {
    base: String,
    max_model_len: u32,
    adapters: Mutex<Adapters>,
}

#[derive(Debug)]
struct Adapters {
    listed: Vec<Adapter>,
    /// Every adapter there ever was has its own number, so that a name loaded anew hits no old cache.
    next: u32,
}

impl Adapters {
    fn new(loras: &[String]) -> Adapters {
        let listed = (0..)
            .zip(loras.iter().take(ADAPTERS_MAX))
            .map(|(id, name)| Adapter {
                id: AdapterId(id),
                name: name.clone(),
                path: format!("/adapters/{name}"),
            })
            .collect::<Vec<_>>();
        let next = u32::try_from(listed.len()).unwrap_or(u32::MAX);
        Adapters { listed, next }
    }
}

#[derive(Clone, Debug)]
struct Adapter {
    id: AdapterId,
    name: String,
    path: String,
}

impl Models {
    pub(super) fn new(base: &str, max_model_len: u32, loras: &[String]) -> Models {
        let adapters = Mutex::new(Adapters::new(loras));
        Models { base: base.to_owned(), max_model_len, adapters }
    }

    /// Forgets what was loaded and unloaded at run time. The engine must forget all it knows of adapters, too, since
    /// their numbers begin anew.
    pub(super) fn restart(&self, loras: &[String]) {
        *lock(&self.adapters) = Adapters::new(loras);
    }

    /// The model an answer names and the adapter it needs. No name, or an empty one, is the base model.
    pub(super) fn resolve(
        &self,
        name: Option<&str>,
    ) -> Result<(String, Option<AdapterId>), ApiError> {
        match name {
            None | Some("") => Ok((self.base.clone(), None)),
            Some(name) if name == self.base => Ok((self.base.clone(), None)),
            Some(name) => {
                let adapters = lock(&self.adapters);
                let adapter = adapters.listed.iter().find(|a| a.name == name);
                let id = adapter.ok_or_else(|| ApiError::unknown_model(name, &self.base))?.id;
                Ok((name.to_owned(), Some(id)))
            }
        }
    }

    /// Names of adapters, joined by commas; those unloaded meanwhile are left out.
    pub(super) fn names(&self, ids: &[AdapterId]) -> String {
        let adapters = lock(&self.adapters);
        let name = |id: &AdapterId| adapters.listed.iter().find(|a| a.id == *id);
        let names: Vec<&str> = ids.iter().filter_map(name).map(|a| a.name.as_str()).collect();
        names.join(",")
    }

    /// Adds an adapter. A path that ends in `none` holds no adapter.
    pub(super) fn load(&self, name: &str, path: &str) -> Result<(), ApiError> {
        let mut adapters = lock(&self.adapters);
        if adapters.listed.iter().any(|a| a.name == name) {
            return Err(ApiError::adapter_loaded(name));
        }
        if path.ends_with("/none") || path.is_empty() {
            return Err(ApiError::adapter_path(name, path));
        }
        if adapters.listed.len() >= ADAPTERS_MAX {
            return Err(ApiError::bad_request(format!("more than {ADAPTERS_MAX} adapters")));
        }
        let id = AdapterId(adapters.next);
        adapters.next += 1;
        adapters.listed.push(Adapter { id, name: name.to_owned(), path: path.to_owned() });
        Ok(())
    }

    /// Removes an adapter; requests under way keep it.
    pub(super) fn unload(&self, name: &str) -> Result<AdapterId, ApiError> {
        let mut adapters = lock(&self.adapters);
        let at = adapters.listed.iter().position(|a| a.name == name);
        let at = at.ok_or_else(|| ApiError::adapter_unknown(name))?;
        Ok(adapters.listed.remove(at).id)
    }

    /// The body of GET /v1/models.
    pub(super) fn list(&self, now: Duration, mut fresh_id: impl FnMut() -> String) -> String {
        let created = now.as_secs();
        let base = quote(&self.base);
        let mut card = |name: &str, root: &str, parent: &str, length: &str| {
            let (name, root, permission) = (quote(name), quote(root), fresh_id());
            format!(
                r#"{{"id":{name},"object":"model","created":{created},"owned_by":"vllm","root":{root},"parent":{parent},"max_model_len":{length},"permission":[{{"id":"modelperm-{permission}","object":"model_permission","created":{created},"allow_create_engine":false,"allow_sampling":true,"allow_logprobs":true,"allow_search_indices":false,"allow_view":true,"allow_fine_tuning":false,"organization":"*","group":null,"is_blocking":false}}]}}"#
            )
        };
        let mut cards = vec![card(&self.base, &self.base, "null", &self.max_model_len.to_string())];
        for adapter in &lock(&self.adapters).listed {
            cards.push(card(&adapter.name, &adapter.path, &base, "null"));
        }
        format!(r#"{{"object":"list","data":[{}]}}"#, cards.join(","))
    }
}
