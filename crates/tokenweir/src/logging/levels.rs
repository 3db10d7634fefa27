//! How much each room logs.

use std::collections::BTreeMap;

use tracing_subscriber::filter::LevelFilter;

/// The rooms, which are what a level can be set for.
const ROOMS: [&str; 9] = [
    "admin",
    "controller",
    "datalayer",
    "openai",
    "picker",
    "proxy",
    "scheduling",
    "sim",
    "tokenweir",
];
/// Stands for all rooms.
const ALL: &str = "level";
const LEVELS: &str = "off, error, warn, info, debug or trace";
/// Most of what libraries may log: below it they tell what they carry, and that may be a prompt or a key.
const LIBRARIES_MAX: LevelFilter = LevelFilter::INFO;

/// The client of the Kubernetes API logs every failure of every request; what is wrong is told once, by whoever asked.
const SILENT: &str = "kube_client=off";

/// A level for all rooms, and others for some.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Levels {
    all: LevelFilter,
    rooms: BTreeMap<&'static str, LevelFilter>,
}

impl Default for Levels {
    fn default() -> Self {
        Self { all: LevelFilter::INFO, rooms: BTreeMap::new() }
    }
}

impl Levels {
    /// Reads words such as `info,proxy=debug`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut levels = Self::default();
        let words: Vec<_> =
            text.split(',').map(str::trim).filter(|word| !word.is_empty()).collect();
        // The level for all comes first, wherever it stands.
        for all in [true, false] {
            for word in words.iter().filter(|word| word.contains('=') != all) {
                let (name, level) = word.split_once('=').unwrap_or((ALL, word));
                levels.set(name.trim(), level.trim())?;
            }
        }
        Ok(levels)
    }

    /// Applies all pairs of a name and a level, or none.
    pub(super) fn change(&self, pairs: &[(String, String)]) -> Result<Self, String> {
        let mut levels = self.clone();
        pairs.iter().try_for_each(|(name, level)| levels.set(name, level))?;
        Ok(levels)
    }

    /// A level for all rooms takes back those of single ones.
    fn set(&mut self, name: &str, level: &str) -> Result<(), String> {
        let wanted = match level {
            "off" => LevelFilter::OFF,
            "error" => LevelFilter::ERROR,
            "warn" => LevelFilter::WARN,
            "info" => LevelFilter::INFO,
            "debug" => LevelFilter::DEBUG,
            "trace" => LevelFilter::TRACE,
            _ => return Err(format!("{name}={level}: expected {LEVELS}")),
        };
        if name == ALL {
            *self = Self { all: wanted, rooms: BTreeMap::new() };
            return Ok(());
        }
        let room = ROOMS.iter().find(|room| **room == name).ok_or_else(|| {
            format!("{name} cannot be set; expected {ALL}, for all, or one of {}", ROOMS.join(", "))
        })?;
        self.rooms.insert(room, wanted);
        Ok(())
    }

    /// As the log's filter takes them.
    pub(super) fn directives(&self) -> String {
        let rooms = self.each().map(|(room, level)| format!("{room}={level}"));
        let libraries = format!("{},{SILENT}", self.all.min(LIBRARIES_MAX));
        std::iter::once(libraries).chain(rooms).collect::<Vec<_>>().join(",")
    }

    /// As the admin port shows them.
    pub(super) fn shown(&self) -> serde_json::Value {
        let rooms: BTreeMap<_, _> =
            self.each().map(|(room, level)| (room, level.to_string())).collect();
        serde_json::json!({ ALL: self.all.to_string(), "rooms": rooms })
    }

    fn each(&self) -> impl Iterator<Item = (&'static str, LevelFilter)> {
        ROOMS.into_iter().map(|room| (room, *self.rooms.get(room).unwrap_or(&self.all)))
    }
}

#[cfg(test)]
mod tests;
