//! The table itself: making it, and everything that is only read or is one store.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::layout::{
    EventRecord, GenerationRecord, Head, MessageRecord, OomRecord, Reloads, WorkerRecord,
    LAYOUT_VERSION, MAGIC, NONE,
};
use crate::sync::AtomicU32;
use crate::views::{GenerationView, WorkerView};
use crate::words::{load, Word};

/// The roster in somebody's memory.
#[derive(Clone, Copy, Debug)]
pub struct Roster<'a> {
    /// The node.
    pub head: &'a Head,
    /// Its generations.
    pub generations: &'a [GenerationRecord],
    /// Their workers.
    pub workers: &'a [WorkerRecord],
    /// What happened to them, a ring.
    pub events: &'a [EventRecord],
    /// Texts of the newest events that have one.
    pub messages: &'a [MessageRecord],
}

/// The running workers, seen from one generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Of the nearest older generation that has not finished, none if there is none.
    pub n_prev: Option<u32>,
    /// Of the generation itself.
    pub n_mine: u32,
    /// Of the nearest newer generation that has not finished, none if there is none.
    pub n_next: Option<u32>,
    /// Of all generations before the one of `n_prev`.
    pub n_older: u32,
}

/// The lock was let go of in the middle of an event by a process that is to come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// The process.
    pub pid: i32,
    /// When it let go, milliseconds since boot, sleep included. A process that began later is another.
    pub since_boot: u64,
    /// Until when others wait for it, milliseconds of the monotonic clock.
    pub until: u64,
}

impl<'a> Roster<'a> {
    /// Fills fresh, zeroed memory. `generation` is the number of the last generation before this
    /// history, 0 if there was none: numbers stay unique in the life of a node. `history` is to be
    /// a number that no other history has.
    pub fn create(&self, generation: u64, history: u64) {
        let head = self.head;
        let count = |n: usize| u32::try_from(n).unwrap_or(NONE);
        head.generation_slots.store(count(self.generations.len()), Relaxed);
        head.worker_slots.store(count(self.workers.len()), Relaxed);
        head.event_slots.store(count(self.events.len()), Relaxed);
        head.generation.store(generation, Relaxed);
        head.history.store(history, Relaxed);
        // The slots are not touched: memory that nobody uses costs nothing.
        head.free_worker.store(NONE, Relaxed);
        head.layout.store(LAYOUT_VERSION, Relaxed);
        head.magic.store(MAGIC, Release);
    }

    /// Whether the memory holds a roster that this build understands, of just this geometry.
    pub fn is_compatible(&self) -> bool {
        let fits = |slots: &AtomicU32, n: usize| slots.load(Relaxed) as usize == n;
        self.head.magic.load(Acquire) == MAGIC
            && self.head.layout.load(Relaxed) == LAYOUT_VERSION
            && fits(&self.head.generation_slots, self.generations.len())
            && fits(&self.head.worker_slots, self.workers.len())
            && fits(&self.head.event_slots, self.events.len())
    }

    /// The generation committed last, 0 before the first.
    pub fn current_generation(&self) -> u64 {
        self.head.generation.load(Acquire)
    }

    /// Names the history that `seq` and the numbers of generations are of.
    pub fn history_id(&self) -> u64 {
        self.head.history.load(Relaxed)
    }

    /// Whether the node is known to stop. Nothing but the start of a worker or a generation takes
    /// that back.
    pub fn is_stopping(&self) -> bool {
        self.head.stopping.load(Acquire) != 0
    }

    /// The node is known to stop: every event from here on says so. The caller holds the lock.
    pub fn set_stopping(&self) {
        self.head.stopping.store(1, Release);
    }

    /// The number of the newest event.
    pub fn seq(&self) -> u64 {
        self.head.seq.load(Acquire)
    }

    /// The generations that have not ended, in no order.
    pub fn generations(&self) -> impl Iterator<Item = GenerationView> + use<'a> {
        let limit = self.head.generation_limit.load(Acquire) as usize;
        let slots = self.generations.iter().take(limit);
        slots.enumerate().filter_map(|(slot, r)| GenerationView::of(slot as u32, r))
    }

    /// One generation, if it has not ended.
    pub fn generation(&self, number: u64) -> Option<GenerationView> {
        self.generations().find(|g| g.number == number)
    }

    /// The workers that have not ended, in no order.
    pub fn workers(&self) -> impl Iterator<Item = WorkerView> + use<'a> {
        let limit = self.head.worker_limit.load(Acquire) as usize;
        let slots = self.workers.iter().take(limit);
        slots.enumerate().filter_map(|(slot, r)| WorkerView::of(slot as u32, r))
    }

    /// The worker in a slot.
    pub fn worker(&self, slot: u32) -> Option<WorkerView> {
        WorkerView::of(slot, self.workers.get(slot as usize)?)
    }

    /// The running workers seen from a generation.
    pub fn counts(&self, generation: u64) -> Counts {
        let mut counts = Counts { n_prev: None, n_mine: 0, n_next: None, n_older: 0 };
        let (mut prev, mut next) = (0, u64::MAX);
        for g in self.generations() {
            if g.number == generation {
                counts.n_mine = g.running;
            } else if g.number > generation {
                if g.number <= next {
                    next = g.number;
                    counts.n_next = Some(g.running);
                }
            } else if g.number > prev {
                // What was the nearest so far is not: it is one of the older.
                prev = g.number;
                let further = counts.n_prev.replace(g.running);
                counts.n_older = counts.n_older.saturating_add(further.unwrap_or(0));
            } else {
                counts.n_older = counts.n_older.saturating_add(g.running);
            }
        }
        counts
    }

    /// The record of a worker, unless the slot is no longer its own.
    fn record_of(&self, slot: u32, registration: u64) -> Option<&'a WorkerRecord> {
        let record = self.workers.get(slot as usize)?;
        (record.registration.load(Acquire) == registration).then_some(record)
    }

    /// The worker that registered in a slot, unless it has ended.
    pub fn registered(&self, slot: u32, registration: u64) -> Option<WorkerView> {
        self.worker(slot).filter(|w| w.registration == registration)
    }

    /// A worker's heartbeat: one store. `now` is in milliseconds of the monotonic clock. Nothing
    /// happens if the slot is no longer its own.
    pub fn beat(&self, slot: u32, registration: u64, now: u64) {
        if let Some(record) = self.record_of(slot, registration) {
            record.beat.store(now, Release);
        }
    }

    /// A worker's open connections, those in use and idle ones: one store, if the slot is still its
    /// own.
    pub fn set_connections(&self, slot: u32, registration: u64, active: u32, idle: u32) {
        if let Some(record) = self.record_of(slot, registration) {
            let word = u64::from(active.saturating_add(1)) | u64::from(idle) << 32;
            record.connections.store(word, Release);
        }
    }

    /// Retires every generation: the node stops.
    pub fn retire_all(&self) {
        self.retire_before(u64::MAX);
    }

    pub(crate) fn retire_before(&self, generation: u64) {
        for record in self.generations {
            let number = record.number.load(Relaxed);
            if number != 0 && number < generation {
                record.retired.store(1, Release);
            }
        }
    }

    /// The oldest generation that has finished and whose `master_exit` is not recorded yet.
    pub fn finished(&self) -> Option<u64> {
        self.generations().filter(|g| g.retired && g.present == 0).map(|g| g.number).min()
    }

    /// The oldest generation whose workers have all started and whose `master_ready` is not recorded
    /// yet.
    pub fn ready(&self) -> Option<u64> {
        let all_started = |g: &GenerationView| g.expected > 0 && g.present >= g.expected;
        self.generations().filter(|g| !g.ready && all_started(g)).map(|g| g.number).min()
    }

    /// The running workers of the generation in a slot: one read.
    pub fn running(&self, generation_slot: u32) -> u32 {
        let record = self.generations.get(generation_slot as usize);
        record.map_or(0, |record| record.running.load(Relaxed))
    }

    /// The reloads that committed: one read.
    pub fn reloads_succeeded(&self) -> u64 {
        self.head.reloads[0].load(Relaxed)
    }

    /// The attempts to reload.
    pub fn reloads(&self) -> Reloads {
        Reloads::from_words(load(&self.head.reloads))
    }

    /// The master whose loss is recorded; none if there is none since the last load.
    pub fn lost_master(&self) -> Option<i32> {
        Word::from_word(self.head.lost_master.load(Acquire).into())
    }

    /// How many of the processes of a cgroup that the kernel killed for memory are accounted for;
    /// none if nobody has noted that. `cgroup` is a hash of its path, not 0.
    pub fn oom_kills(&self, cgroup: u64) -> Option<u64> {
        let record = self.head.oom_kills.iter().find(|r| r.cgroup.load(Acquire) == cgroup)?;
        Some(record.kills.load(Relaxed))
    }

    /// Notes how many are. With more cgroups than there are records for, one that was noted is
    /// forgotten.
    pub fn set_oom_kills(&self, cgroup: u64, kills: u64) {
        let records = &self.head.oom_kills;
        let holds = |cgroup| move |r: &&OomRecord| r.cgroup.load(Acquire) == cgroup;
        let known = records.iter().find(holds(cgroup)).or_else(|| records.iter().find(holds(0)));
        let other = (cgroup as usize).checked_rem(records.len()).and_then(|i| records.get(i));
        let Some(record) = known.or(other) else {
            return;
        };
        if record.cgroup.load(Acquire) != cgroup {
            // No process reads the count of one cgroup as that of another, wherever this one dies.
            record.cgroup.store(0, Release);
        }
        record.kills.store(kills, Release);
        record.cgroup.store(cgroup, Release);
    }

    /// Counts the programs that nobody waits for. The first is 1: a queue in which nothing has begun says 0.
    pub fn next_program(&self) -> u32 {
        self.head.programs.fetch_add(1, Relaxed).wrapping_add(1) as u32
    }

    /// Notes that the holder of the lock lets go of it in the middle of an event, to come back:
    /// no other process continues with it before `until`, by the monotonic clock in milliseconds, as long as
    /// that process lives. `since_boot` is now, in milliseconds since boot, sleep included.
    pub fn reserve(&self, pid: i32, since_boot: u64, until: u64) {
        self.head.reserved_until.store(until, Release);
        self.head.reserved_since.store(since_boot, Release);
        self.head.reserved_by.store(u64::from(pid as u32), Release);
    }

    /// The process that is to come back; see `reserve`.
    pub fn reservation(&self) -> Option<Reservation> {
        match self.head.reserved_by.load(Acquire) as u32 {
            0 => None,
            pid => Some(Reservation {
                pid: pid as i32,
                since_boot: self.head.reserved_since.load(Acquire),
                until: self.head.reserved_until.load(Acquire),
            }),
        }
    }

    /// No process is to come back any more. The caller holds the lock.
    pub fn end_reservation(&self) {
        self.head.reserved_by.store(0, Release);
    }

    /// Notes the process that holds the lock.
    pub fn set_holder(&self, pid: Option<i32>) {
        self.head.holder.store(pid.to_word() as u32, Release);
    }

    /// The process that holds the lock.
    pub fn holder(&self) -> Option<i32> {
        Word::from_word(self.head.holder.load(Acquire).into())
    }

    /// The slot for another worker: one that was given back, else one that was never used.
    pub(crate) fn free_slot(&self) -> u32 {
        match self.head.free_worker.load(Relaxed) {
            NONE => self.head.worker_limit.load(Relaxed),
            slot => slot,
        }
    }

    pub(crate) fn link_free_workers(&self) {
        let limit = self.head.worker_limit.load(Relaxed) as usize;
        let mut next = NONE;
        for (slot, record) in self.workers.iter().enumerate().take(limit).rev() {
            if record.generation.load(Relaxed) == 0 {
                record.next.store(next, Release);
                next = slot as u32;
            }
        }
        self.head.free_worker.store(next, Release);
    }
}

#[cfg(test)]
mod tests;
