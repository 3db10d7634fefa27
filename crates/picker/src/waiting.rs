//! Requests that wait in the gateway until an endpoint has room for them.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::{Mutex, MutexGuard};
use scheduling::{Admission, AdmissionQueue, Entry, InferenceRequest, Ticket, Unschedulable};
use tokio::{sync::oneshot, time::timeout};

use crate::{
    Refusal,
    absences::Slots,
    monotonic,
    pool::{Picked, Pool},
    prompt::Prompt,
};

/// Knows whether anybody waits anywhere, and for which pools.
///
/// Whoever gives room back, however that comes about, [tells](Lobby::release) the lobby. While nobody waits, that is one
/// look at a number.
#[derive(Debug, Default)]
pub(crate) struct Lobby {
    waiting: AtomicUsize,
    /// Pools for which somebody has waited; few, and forgotten with the pool.
    pools: Mutex<Vec<Weak<Pool>>>,
}

impl Lobby {
    /// There may be room: lets requests go that wait, as far as there is. No lock may be held.
    pub(crate) fn release(&self) {
        // Whoever enters tries once more after it has counted itself, so nobody is missed.
        if self.waiting.load(Ordering::SeqCst) == 0 {
            return;
        }
        let mut pools = self.pools.lock();
        pools.retain(|pool| pool.strong_count() > 0);
        let known: Vec<Arc<Pool>> = pools.iter().filter_map(Weak::upgrade).collect();
        drop(pools);
        for pool in known {
            pool.release();
        }
    }

    fn enter(&self, pool: &Arc<Pool>) {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let mut pools = self.pools.lock();
        if !pools.iter().any(|known| std::ptr::eq(known.as_ptr(), Arc::as_ptr(pool))) {
            pools.push(Arc::downgrade(pool));
        }
    }

    fn leave(&self) {
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A request that waits.
#[derive(Debug)]
pub(crate) struct Waiter {
    prompt: Prompt<'static>,
    entry: Entry,
    answer: oneshot::Sender<Result<Picked, Refusal>>,
}

/// The requests of one pool that wait.
#[derive(Debug, Default)]
pub(crate) struct Room {
    queue: Mutex<AdmissionQueue<Waiter>>,
    /// Times at which there may have become room, after which nobody has looked yet.
    unseen: AtomicUsize,
}

impl Room {
    pub(crate) fn lock(&self) -> MutexGuard<'_, AdmissionQueue<Waiter>> {
        self.queue.lock()
    }
}

/// What became of a request that asked for an endpoint.
pub(crate) enum Placed {
    Picked(Picked),
    Waits(Wait),
}

/// A place in a pool's queue. Dropping it gives the place up.
#[derive(Debug)]
pub(crate) struct Wait {
    pool: Arc<Pool>,
    ticket: Ticket,
    answer: oneshot::Receiver<Result<Picked, Refusal>>,
}

impl Wait {
    /// Resolves when the request has an endpoint, or has been refused. Dropping the future gives the place up, and the
    /// endpoint if there was one just then.
    pub(crate) async fn picked(mut self) -> Result<Picked, Refusal> {
        let longest = self.pool.flow_control().wait_max;
        let answer = timeout(longest, &mut self.answer).await;
        // Nobody drops a sender without a word, but for a panic.
        let gone = || Err(Refusal::Panicked);
        match answer {
            Ok(Ok(picked)) => picked,
            Ok(Err(_)) => gone(),
            // It has been let go at this very moment.
            Err(_) if !self.leave() => (&mut self.answer).await.unwrap_or_else(|_| gone()),
            Err(_) => {
                self.pool.release();
                Err(Refusal::QueueTimeout {
                    pool: self.pool.key().to_string(),
                    waited: longest,
                    retry_after: self.pool.retry_after(&self.pool.room().lock()),
                })
            }
        }
    }

    /// Gives the place up; false if it was gone already.
    fn leave(&self) -> bool {
        let waiter = self.pool.room().lock().leave(self.ticket);
        if waiter.is_some() {
            self.pool.lobby().leave();
        }
        waiter.is_some()
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        if self.leave() {
            // Those behind it may have been held up by it.
            self.pool.release();
        }
    }
}

impl Pool {
    /// Finds an endpoint for a request, or lets it wait if every endpoint would make it wait. Those that wait already are
    /// not passed over.
    pub(crate) fn place(
        self: &Arc<Self>,
        prompt: Prompt<'_>,
        body_bytes: u64,
        now: Duration,
    ) -> Result<Placed, Refusal> {
        // What generates nothing takes no room.
        if !self.is_late_binding() || !prompt.generates() {
            let picked = self.pick(&prompt.request(Admission::Always), prompt.operation(), now);
            return picked
                .map(Placed::Picked)
                .map_err(|why| self.refusal(why, &self.room().lock()));
        }
        let entry = self.entry(&prompt, body_bytes);
        let mut room = self.room().lock();
        // Where no endpoint is ready, whoever comes is told at once, and those that wait wait on.
        if room.is_empty() || !self.has_usable() {
            let admission = room.admission(&entry, now);
            match self.pick(&prompt.request(admission), prompt.operation(), now) {
                Ok(picked) => {
                    room.passed(&entry, now);
                    return Ok(Placed::Picked(picked));
                }
                Err(Unschedulable::Saturated { .. }) => {}
                Err(why) => return Err(self.refusal(why, &room)),
            }
        }
        self.make_room(&mut room, &entry)?;
        let (sender, answer) = oneshot::channel();
        let waiter = Waiter { prompt: prompt.into_owned(), entry, answer: sender };
        let ticket = room.enter(waiter, entry);
        self.lobby().enter(self);
        drop(room);
        // Room may have been given back meanwhile, when nobody was there yet to be told.
        self.release();
        Ok(Placed::Waits(Wait { pool: Arc::clone(self), ticket, answer }))
    }

    /// Refuses a request that may not wait; one that matters less may have to leave for it.
    fn make_room(&self, room: &mut AdmissionQueue<Waiter>, entry: &Entry) -> Result<(), Refusal> {
        let pool = || self.key().to_string();
        if entry.priority < 0 {
            return Err(Refusal::Shed { pool: pool(), retry_after: self.retry_after(room) });
        }
        let limits = self.flow_control();
        while room.is_full(entry, &limits) {
            let retry_after = self.retry_after(room);
            // What could not wait in an empty room puts out nobody.
            let fits = entry.bytes <= limits.bytes_max;
            let Some(waiter) = fits.then(|| room.give_way(entry.priority)).flatten() else {
                return Err(Refusal::QueueFull { pool: pool(), retry_after });
            };
            self.lobby().leave();
            // If it has left just now, nobody hears it, which is as well.
            let _ = waiter.answer.send(Err(Refusal::QueueFull { pool: pool(), retry_after }));
        }
        Ok(())
    }

    /// Lets requests go that wait, in their order, as far as there is room.
    pub(crate) fn release(&self) {
        let unseen = &self.room().unseen;
        unseen.fetch_add(1, Ordering::SeqCst);
        loop {
            // Those whose client has left just now; dropped when the room is not locked any more, for that gives back what
            // they hold and comes here again.
            let unclaimed;
            let mut room = self.room().lock();
            // Whoever looks from now on sees what brought us here: one look is enough for all who wait for the lock.
            if unseen.swap(0, Ordering::SeqCst) == 0 {
                return;
            }
            match self.release_one(&mut room, monotonic()) {
                Some(sent) => unclaimed = sent.err(),
                None => return,
            }
            // There may be room for more, but others have a turn at the lock in between.
            unseen.fetch_add(1, Ordering::SeqCst);
            drop(room);
            drop(unclaimed);
        }
    }

    /// Lets the first request go for which there is room. `None` if there is none.
    fn release_one(
        &self,
        room: &mut AdmissionQueue<Waiter>,
        now: Duration,
    ) -> Option<Result<(), Picked>> {
        let (late, mut overtaken) = (self.is_late_binding(), Vec::new());
        // What those that were overtaken too often have to themselves.
        let mut reserved = Slots::new();
        for ticket in room.next() {
            let waiter = room.get(ticket)?;
            let admission = if late {
                room.admission(&waiter.entry, now)
            } else {
                // It has just been switched off.
                Admission::Always
            };
            let overdue = room.is_overdue(ticket);
            let request = waiter.prompt.request(admission);
            let request = InferenceRequest { reserved: &reserved, overdue, ..request };
            match self.pick(&request, waiter.prompt.operation(), now) {
                Ok(picked) => {
                    let waiter = room.go(ticket, &overtaken, now)?;
                    self.lobby().leave();
                    let sent = waiter.answer.send(Ok(picked));
                    let unclaimed = sent.err().and_then(Result::ok);
                    return Some(unclaimed.map_or(Ok(()), Err));
                }
                // If there is no such, all that it could go to are kept for those before it.
                Err(Unschedulable::Saturated { soonest }) if overdue => reserved.extend(soonest),
                // Who leaves room for others is not overtaken by them.
                Err(Unschedulable::Saturated { .. }) if admission == Admission::WhenFree => {
                    overtaken.push(ticket);
                }
                Err(Unschedulable::Saturated { .. }) => {}
                // The endpoints may come back while it waits.
                Err(Unschedulable::NoEndpoints | Unschedulable::Shed) => return None,
            }
        }
        None
    }

    fn refusal(&self, why: Unschedulable, room: &AdmissionQueue<Waiter>) -> Refusal {
        let pool = self.key().to_string();
        match why {
            Unschedulable::NoEndpoints => Refusal::NoEndpoints { pool },
            Unschedulable::Shed | Unschedulable::Saturated { .. } => {
                Refusal::Shed { pool, retry_after: self.retry_after(room) }
            }
        }
    }
}

#[cfg(test)]
mod tests;
