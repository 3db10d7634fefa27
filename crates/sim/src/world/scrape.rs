//! Scrapes: a question, a look, an answer, each a while after the other.

use scheduling::{Reading, ScrapeMark, Signals};

use super::events::Event;
use super::gateway::signals;
use super::run::Run;

/// A scrape under way.
#[derive(Debug)]
pub(super) struct Scrape {
    gateway: u32,
    endpoint: u32,
    mark: ScrapeMark,
    said: Option<Signals>,
}

impl Run<'_> {
    pub(super) fn plan_scrapes(&mut self, gateway: usize, endpoint: usize, phase: f64) {
        let small = |index: usize| u32::try_from(index).unwrap_or(u32::MAX);
        let event = Event::ScrapeSent { gateway: small(gateway), endpoint: small(endpoint) };
        self.events.at(self.config.scrape_interval.mul_f64(phase), event);
    }

    pub(super) fn scrape_sent(&mut self, gateway: u32, endpoint: u32) {
        let mark = self.gateways[gateway as usize].mark(endpoint);
        let scrape = self.scrapes.add(Scrape { gateway, endpoint, mark, said: None });
        self.events.at(self.now + self.config.network_delay, Event::ScrapeRead { scrape });
        let again = Event::ScrapeSent { gateway, endpoint };
        self.events.at(self.now + self.config.scrape_interval, again);
    }

    pub(super) fn scrape_read(&mut self, scrape: u32) {
        let Some(asked) = self.scrapes.get(scrape) else { return };
        let endpoint = &self.endpoints[asked.endpoint as usize];
        let heard = self.now + self.config.network_delay;
        asked.said = match &endpoint.frozen {
            _ if endpoint.down => None,
            Some(frozen) => Some(said_again(frozen.clone(), heard)),
            None if endpoint.draining => Some(without_load(&signals(&endpoint.engine, heard))),
            None => Some(signals(&endpoint.engine, heard)),
        };
        self.events.at(heard, Event::ScrapeHeard { scrape });
    }

    pub(super) fn scrape_heard(&mut self, scrape: u32) {
        let Some(Scrape { gateway, endpoint, mark, said }) = self.scrapes.take(scrape) else {
            return;
        };
        // The real gateway asks for health with every scrape.
        let index = gateway;
        let gateway = &mut self.gateways[index as usize];
        gateway.set_ready(endpoint, said.is_some());
        if let Some(said) = said {
            gateway.scraped(endpoint, mark, said);
        }
        self.release(index);
    }
}

/// What a server says that is draining.
fn without_load(said: &Signals) -> Signals {
    fn none<T: Default>(reading: Option<Reading<T>>) -> Option<Reading<T>> {
        reading.map(|reading| Reading { value: T::default(), ..reading })
    }
    Signals {
        waiting: none(said.waiting),
        running: none(said.running),
        kv_usage: none(said.kv_usage),
        running_adapters: None,
        ..said.clone()
    }
}

/// Old values that sound new.
fn said_again(old: Signals, heard: std::time::Duration) -> Signals {
    fn now<T>(reading: Option<Reading<T>>, heard: std::time::Duration) -> Option<Reading<T>> {
        reading.map(|reading| Reading { heard, ..reading })
    }
    Signals {
        waiting: now(old.waiting, heard),
        running: now(old.running, heard),
        kv_usage: now(old.kv_usage, heard),
        prompt_tokens: now(old.prompt_tokens, heard),
        generation_tokens: now(old.generation_tokens, heard),
        ..old
    }
}
