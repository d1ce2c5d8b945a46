//! What the tests of the laws share: memory for a roster, and a ledger that knows the laws.

#![allow(dead_code)] // Not every test uses all of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use roster::{Event, Geometry, Kind, Now, Roster};

/// A moment; time stands still in the tests.
pub const NOW: Now = Now { wall: 1_700_000_000_000, monotonic: 5, since_boot: 6 };

/// Names the history of every roster in the tests.
pub const HISTORY: u64 = 77;

/// Memory for a roster, as plain as that of a zone.
pub struct Memory {
    geometry: Geometry,
    words: Box<[AtomicU64]>,
}

impl Memory {
    /// Zeros.
    pub fn zeroed(geometry: Geometry) -> Memory {
        let words = (0..geometry.total() / 8).map(|_| AtomicU64::new(0)).collect();
        Memory { geometry, words }
    }

    /// A roster without history.
    pub fn new(geometry: Geometry) -> Memory {
        let memory = Memory::zeroed(geometry);
        memory.roster().create(0, HISTORY);
        memory
    }

    /// The roster in it.
    pub fn roster(&self) -> Roster<'_> {
        let base = self.words.as_ptr().cast::<u8>();
        let g = &self.geometry;
        // SAFETY: `geometry.total()` bytes lie there, aligned to 8, which the offsets keep; all
        // records are atomics, for which any bit pattern is valid and whose memory may be written
        // to through a shared reference, as this is itself made of atomics.
        unsafe {
            Roster {
                head: &*base.cast(),
                generations: std::slice::from_raw_parts(
                    base.add(g.generations_offset()).cast(),
                    g.generations,
                ),
                workers: std::slice::from_raw_parts(base.add(g.workers_offset()).cast(), g.workers),
                events: std::slice::from_raw_parts(base.add(g.events_offset()).cast(), g.events),
                messages: std::slice::from_raw_parts(
                    base.add(g.messages_offset()).cast(),
                    g.messages,
                ),
            }
        }
    }

    /// Every word of it.
    pub fn words(&self) -> &[AtomicU64] {
        &self.words
    }

    /// A copy of every word.
    pub fn save(&self) -> Box<[u64]> {
        self.words.iter().map(|word| word.load(Relaxed)).collect()
    }

    /// Puts a copy back.
    pub fn restore(&self, saved: &[u64]) {
        assert_eq!(saved.len(), self.words.len());
        for (word, saved) in self.words.iter().zip(saved) {
            word.store(*saved, Relaxed);
        }
    }
}

/// The laws that the events and the table are held to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Law {
    /// `seq` has no gaps.
    Gapless,
    /// Each start is followed by exactly one end, of workers and of generations.
    OneEnd,
    /// The counts are what the events so far say, so each moves by one and only with an event.
    Counts,
    /// The table is what the events say.
    Table,
    /// A generation is ready once, and not before it is.
    Ready,
    /// A callback runs at most once, and all of an event's run if nobody dies.
    Callbacks,
    /// Who reads without the lock sees what is before or after a change, and nothing between.
    Snapshot,
    /// Nothing is told before what happened before it, and no two callbacks overlap.
    Order,
}

/// A law that does not hold, and how.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Broken(pub Law, pub String);

/// Counts along from the events alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ledger {
    /// Number of a generation, its workers and whether each is hung.
    pub generations: BTreeMap<u64, BTreeMap<i32, bool>>,
    over: BTreeSet<u64>,
    ready: BTreeSet<u64>,
    /// Whether the newest event says that the node stops.
    stopping: bool,
    /// How many workers make a generation ready.
    pub expected: u32,
    /// The newest event in it.
    pub seq: u64,
    /// The newest generation in it.
    pub newest: u64,
}

impl Ledger {
    /// Nothing has happened; a generation is ready with `expected` workers.
    pub fn new(expected: u32) -> Ledger {
        Ledger { expected, ..Ledger::default() }
    }

    fn running(&self, generation: u64) -> Option<u32> {
        let workers = self.generations.get(&generation)?;
        Some(workers.values().filter(|hung| !**hung).count() as u32)
    }

    fn check_counts(&self, event: &Event) -> Result<(), Broken> {
        let mut older = self.generations.range(..event.generation).rev();
        let prev = older.next().and_then(|(g, _)| self.running(*g));
        let older: u32 = older.filter_map(|(g, _)| self.running(*g)).sum();
        let next = self.generations.range(event.generation + 1..).next();
        let told = (event.n_prev, Some(event.n_mine), event.n_next, event.n_older);
        let counted = (
            // A reload may be the first thing in a history.
            prev.or(event.n_prev.filter(|n| event.kind == Kind::MasterStart && *n == 0)),
            self.running(event.generation),
            next.and_then(|(g, _)| self.running(*g)),
            older,
        );
        law(told == counted, Law::Counts, || format!("{event:?}, counted are {counted:?}"))
    }

    /// Holds what an event leaves to what there is once it is taken.
    fn check_left(&self, event: &Event) -> Result<(), Broken> {
        let left = self.running(event.generation).unwrap_or(0);
        law(event.n_left == left, Law::Counts, || format!("{event:?}, left are {left}"))
    }

    /// Once the node is known to stop every event says so, but for a start.
    fn check_stopping(&mut self, event: &Event) -> Result<(), Broken> {
        let starts = matches!(event.kind, Kind::MasterStart | Kind::WorkerStart);
        let fine = if starts { !event.stopping } else { event.stopping || !self.stopping };
        self.stopping = event.stopping;
        law(fine, Law::Order, || format!("{event:?}, the node stops or not"))
    }

    /// A worker takes the place of one whose end was told.
    fn check_place(&self, event: &Event) -> Result<(), Broken> {
        let Some(before) = event.respawn_of else { return Ok(()) };
        let gone = self.generations.values().all(|workers| !workers.contains_key(&before));
        let fine = gone && event.kind == Kind::WorkerStart;
        law(fine, Law::OneEnd, || format!("{event:?} in the place of one that lives"))
    }

    /// The next event.
    pub fn take(&mut self, event: &Event) -> Result<(), Broken> {
        self.seq += 1;
        let next = event.seq == self.seq && event.history == HISTORY;
        law(next, Law::Gapless, || format!("{event:?} is not {}", self.seq))?;
        self.take_next(event)?;
        self.check_place(event)?;
        self.check_stopping(event)?;
        self.check_left(event)
    }

    fn take_next(&mut self, event: &Event) -> Result<(), Broken> {
        let generation = event.generation;
        let once = |holds, what| law(holds, Law::OneEnd, || format!("{event:?} {what}"));
        once(!self.over.contains(&generation), "after the end")?;
        if event.kind == Kind::MasterStart {
            self.newest += 1;
            once(generation == self.newest, "is not the next generation")?;
            self.generations.insert(generation, BTreeMap::new());
        }
        let Some(workers) = self.generations.get(&generation) else {
            return once(false, "of a generation that did not start");
        };
        let hung = workers.get(&event.pid).copied();
        let present = workers.len() as u32;
        match event.kind {
            Kind::MasterStart => self.check_counts(event),
            Kind::MasterExit => {
                once(present == 0, "while workers live")?;
                self.check_counts(event)?;
                self.generations.remove(&generation);
                self.over.insert(generation);
                Ok(())
            }
            Kind::WorkerStart => {
                once(hung.is_none(), "twice")?;
                self.set(event, Some(false));
                self.check_counts(event)
            }
            Kind::WorkerRecovered => {
                once(hung == Some(true), "of one that was not hung")?;
                self.set(event, Some(false));
                self.check_counts(event)
            }
            Kind::WorkerHung => {
                once(hung == Some(false), "of one that was hung")?;
                self.check_counts(event)?;
                self.set(event, Some(true));
                Ok(())
            }
            Kind::MasterReady => {
                let all = event.n_mine <= present && present >= self.expected;
                law(all, Law::Ready, || format!("{event:?} too early"))?;
                let first = !self.ready.contains(&generation);
                law(first, Law::Ready, || format!("{event:?} twice"))?;
                self.ready.insert(generation);
                self.check_counts(event)
            }
            Kind::ReloadFailed | Kind::MasterLost => self.check_counts(event),
            Kind::WorkerDraining | Kind::WorkerStuck => {
                once(hung.is_some(), "of nobody")?;
                self.check_counts(event)
            }
            Kind::WorkerExit | Kind::WorkerLost => {
                once(hung.is_some(), "of nobody")?;
                self.check_counts(event)?;
                self.set(event, None);
                Ok(())
            }
        }
    }

    fn set(&mut self, event: &Event, hung: Option<bool>) {
        let workers = self.generations.get_mut(&event.generation).expect("started");
        match hung {
            Some(hung) => workers.insert(event.pid, hung),
            None => workers.remove(&event.pid),
        };
    }

    /// Holds the table to what the events said. Nothing may be under way.
    pub fn check_table(&self, roster: Roster<'_>) -> Result<(), Broken> {
        let mut workers: Vec<(u64, i32, bool)> =
            roster.workers().map(|w| (w.generation, w.pid, w.hung)).collect();
        workers.sort_unstable();
        let told: Vec<(u64, i32, bool)> = self
            .generations
            .iter()
            .flat_map(|(g, workers)| workers.iter().map(|(pid, hung)| (*g, *pid, *hung)))
            .collect();
        law(workers == told, Law::Table, || format!("{workers:?}, told are {told:?}"))?;
        let mut generations: Vec<u64> = roster.generations().map(|g| g.number).collect();
        generations.sort_unstable();
        let told: Vec<u64> = self.generations.keys().copied().collect();
        law(generations == told, Law::Table, || format!("{generations:?}, told are {told:?}"))?;
        for g in roster.generations() {
            let counted = (self.running(g.number), self.generations[&g.number].len() as u32);
            let fits = counted == (Some(g.running), g.present);
            law(fits, Law::Table, || format!("{g:?}, counted are {counted:?}"))?;
        }
        Ok(())
    }
}

/// Holds what a reader sees of a table that a dead holder left to what it is once it is mended.
pub fn check_snapshot(memory: &Memory) -> Result<(), Broken> {
    let look = || {
        let seen = memory.roster().snapshot(2).expect("nothing moves");
        let workers = seen.workers.iter().map(|w| (w.slot, w.generation, w.pid, w.hung, w.beat));
        let workers: Vec<_> = workers.collect();
        (seen.seq, seen.generation, seen.generations, workers, seen.events, seen.kinds)
    };
    let torn = memory.save();
    let seen = look();
    memory.roster().recover();
    let mended = look();
    memory.restore(&torn);
    law(seen == mended, Law::Snapshot, || format!("{seen:?}, mended {mended:?}"))
}

/// Whether a law holds.
pub fn law(holds: bool, law: Law, how: impl FnOnce() -> String) -> Result<(), Broken> {
    if holds {
        Ok(())
    } else {
        Err(Broken(law, how()))
    }
}
