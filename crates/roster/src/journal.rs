//! A change in full, with every value it leaves behind, so that carrying it out twice is the same
//! as once. It is written down before it is carried out: the next holder of the lock that finds it in
//! the journal finishes it.

use std::ops::Range;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::event::{Event, Kind};
use crate::fields::{fields, Entry, Place, ENTRY_WORDS};
use crate::layout::{Reloads, JOURNAL_WORDS, NONE};
use crate::table::Roster;
use crate::views::{GenerationView, WorkerView};
use crate::words::{load, store, Word};

/// What a generation's record becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GenerationChange {
    pub to: GenerationView,
    /// Whether the slot becomes free.
    pub ends: bool,
}

/// What a worker's record becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WorkerChange {
    /// Its connections and its registration are not part of the change.
    pub to: WorkerView,
    /// Whether the slot becomes free.
    pub ends: bool,
    /// Whether its heartbeat is stored. The worker itself may be writing it, without the lock.
    pub beats: bool,
}

fields! {
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Change {
        /// What the head becomes.
        pub current: u64 = Place::word(5),
        pub free_worker: u32 = Place::low(6),
        pub worker_limit: u32 = Place::high(6),
        pub lost_master: Option<i32> = Place::high(4),
        /// Whether every generation before the event's is retired by it.
        pub retires_older: bool = Place::word(7),
        /// What is counted: events of this kind, losses for this reason, respawns.
        pub kind_count: u64 = Place::word(22),
        pub loss_count: u64 = Place::word(23),
        pub respawn_count: u64 = Place::word(24),
        /// What `index_respawns` and `index_pid` of the worker's index become.
        pub index_respawns: u64 = Place::word(25),
        pub index_pid: u32 = Place::low(28),
    }
    besides {
        pub event: Event,
        pub generation: GenerationChange,
        pub worker: Option<WorkerChange>,
        pub reloads: Reloads,
    }
}

/// The words of the attempts to reload.
const RELOADS: Range<usize> = 16..22;
const GENERATION_SLOT: Place = Place::low(0);
/// 0 if the slot becomes free.
const GENERATION_NUMBER: Place = Place::word(1);
/// `NONE` if there is no worker.
const WORKER_SLOT: Place = Place::low(8);
/// 0 if the slot becomes free.
const WORKER_GENERATION: Place = Place::word(9);
/// 0 if it is not stored.
const WORKER_BEAT: Place = Place::word(13);

impl From<GenerationView> for GenerationChange {
    fn from(to: GenerationView) -> GenerationChange {
        GenerationChange { to, ends: false }
    }
}

impl From<WorkerView> for WorkerChange {
    fn from(to: WorkerView) -> WorkerChange {
        WorkerChange { to, ends: false, beats: false }
    }
}

impl GenerationChange {
    fn put(&self, entry: &mut Entry) {
        entry.put(GENERATION_SLOT, self.to.slot);
        entry.put(GENERATION_NUMBER, if self.ends { 0 } else { self.to.number });
        self.to.put(entry);
    }

    fn get(entry: &Entry) -> GenerationChange {
        let number = entry.get(GENERATION_NUMBER);
        let to = GenerationView::get(entry, entry.get(GENERATION_SLOT), number);
        GenerationChange { to, ends: number == 0 }
    }

    /// What the generation is after the change.
    pub(crate) fn view(&self) -> Option<GenerationView> {
        (!self.ends).then_some(self.to)
    }
}

impl WorkerChange {
    fn put(&self, entry: &mut Entry) {
        entry.put(WORKER_SLOT, self.to.slot);
        entry.put(WORKER_GENERATION, if self.ends { 0 } else { self.to.generation });
        entry.put(WORKER_BEAT, if self.beats { self.to.beat } else { 0 });
        self.to.put(entry);
    }

    fn get(entry: &Entry) -> Option<WorkerChange> {
        let slot = entry.get(WORKER_SLOT);
        let (generation, beat) = (entry.get(WORKER_GENERATION), entry.get(WORKER_BEAT));
        let to = WorkerView::get(entry, slot, generation, beat, None, 0);
        (slot != NONE).then_some(WorkerChange { to, ends: generation == 0, beats: beat != 0 })
    }

    /// What the worker is after the change. `before` is what the slot held.
    pub(crate) fn view(&self, before: Option<WorkerView>, event: &Event) -> Option<WorkerView> {
        let same = before.filter(|_| event.kind != Kind::WorkerStart);
        (!self.ends).then(|| WorkerView {
            beat: if self.beats { self.to.beat } else { same.map_or(0, |w| w.beat) },
            connections: same.and_then(|w| w.connections),
            registration: same.map_or(event.seq, |w| w.registration),
            ..self.to
        })
    }
}

impl Change {
    fn to_words(self) -> [u64; JOURNAL_WORDS] {
        let mut entry = Entry([0; ENTRY_WORDS]);
        self.put(&mut entry);
        self.generation.put(&mut entry);
        match self.worker {
            Some(worker) => worker.put(&mut entry),
            None => entry.put(WORKER_SLOT, NONE),
        }
        for (word, count) in RELOADS.zip(self.reloads.to_words()) {
            entry.put(Place::word(word), count);
        }
        let mut words = [0; JOURNAL_WORDS];
        let all = self.event.to_words().into_iter().chain(entry.0);
        words.iter_mut().zip(all).for_each(|(to, word)| *to = word);
        words
    }

    fn from_words(words: &[u64; JOURNAL_WORDS]) -> Option<Change> {
        let (event, entry) = words.split_first_chunk()?;
        let entry = Entry(entry.first_chunk().copied()?);
        let reloads = entry.0.get(RELOADS)?.first_chunk().copied()?;
        Some(Change::get(
            &entry,
            Event::from_words(event)?,
            GenerationChange::get(&entry),
            WorkerChange::get(&entry),
            Reloads::from_words(reloads),
        ))
    }
}

impl Roster<'_> {
    /// Writes a change down. From here on it happens, whatever becomes of this process.
    pub(crate) fn journal(&self, change: &Change) {
        store(&*self.head.journal, &change.to_words());
        self.head.epoch.store(self.head.epoch.load(Relaxed) | 1, Release);
    }

    /// The change that was written down and not known to be finished.
    pub(crate) fn journaled(&self) -> Option<Change> {
        if self.head.epoch.load(Acquire) & 1 == 0 {
            return None;
        }
        Change::from_words(&load(&self.head.journal))
    }

    /// Carries out what was written down. `step` is called between the parts.
    pub(crate) fn apply(&self, change: &Change, step: &mut dyn FnMut()) {
        let event = &change.event;
        if let Some(record) = self.event_record(event.seq) {
            record.took.store(u64::MAX, Release);
            store(&record.words, &event.to_words());
        }
        step();

        if change.retires_older {
            self.retire_before(event.generation);
        }
        let g = &change.generation;
        if let Some(record) = self.generations.get(g.to.slot as usize) {
            g.to.store(record);
            record.number.store(if g.ends { 0 } else { g.to.number }, Release);
        }
        step();

        self.head.free_worker.store(change.free_worker, Release);
        self.head.worker_limit.store(change.worker_limit, Release);
        if let Some(w) = &change.worker {
            self.apply_worker(w, event);
            if let Some(record) = self.workers.get(w.to.index as usize) {
                record.index_respawns.store(change.index_respawns, Release);
                record.index_pid.store(change.index_pid, Release);
            }
        }
        step();

        if let Some(count) = self.head.kinds.get(event.kind as usize) {
            count.store(change.kind_count, Release);
        }
        if let Some(count) = event.reason.and_then(|r| self.head.losses.get(r.index())) {
            count.store(change.loss_count, Release);
        }
        self.head.respawns.store(change.respawn_count, Release);
        store(&self.head.reloads, &change.reloads.to_words());
        self.head.lost_master.store(change.lost_master.to_word() as u32, Release);
        self.head.stopping.store(event.stopping.into(), Release);
        self.head.generation.store(change.current, Release);
        self.head.seq.store(event.seq, Release);
        step();
        self.carried_out();
    }

    fn apply_worker(&self, w: &WorkerChange, event: &Event) {
        let Some(record) = self.workers.get(w.to.slot as usize) else {
            return;
        };
        w.to.store(record);
        if w.beats {
            record.beat.store(w.to.beat, Release);
        }
        if w.ends {
            record.connections.store(0, Release);
            record.marks.store(0, Release);
            record.registration.store(0, Release);
        } else if event.kind == Kind::WorkerStart {
            record.registration.store(event.seq, Release);
        }
        record.generation.store(if w.ends { 0 } else { w.to.generation }, Release);
    }

    /// Strikes out what was written down.
    pub(crate) fn carried_out(&self) {
        let epoch = self.head.epoch.load(Relaxed);
        self.head.epoch.store(epoch.wrapping_add(epoch & 1), Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENT: Event = Event {
        seq: 1,
        time: 2,
        kind: Kind::WorkerStart,
        generation: 3,
        pid: 4,
        worker: Some(5),
        n_prev: Some(6),
        n_mine: 7,
        n_next: None,
        n_older: 8,
        n_left: 41,
        stopping: true,
        respawn_of: Some(42),
        history: 43,
        reason: None,
        connections: Some(24),
        duration: None,
    };

    const GENERATION: GenerationView = GenerationView {
        slot: 9,
        number: 3,
        retired: true,
        running: 10,
        present: 11,
        began: 25,
        expected: 26,
        ready: true,
        ready_after: 34,
        started: 35,
    };

    const WORKER: WorkerView = WorkerView {
        slot: 12,
        generation: 13,
        pid: 14,
        index: 15,
        process_slot: 16,
        hung: true,
        since_boot: 17,
        beat: 18,
        heartbeat_timeout: 23,
        next: 19,
        draining_since: Some(27),
        stuck: true,
        respawns: 36,
        connections: None,
        registration: 0,
    };

    /// Every value is another.
    fn change() -> Change {
        Change {
            event: EVENT,
            generation: GENERATION.into(),
            worker: Some(WorkerChange { beats: true, ..WORKER.into() }),
            current: 20,
            free_worker: 21,
            worker_limit: 22,
            reloads: Reloads {
                succeeded: 28,
                failed: 29,
                succeeded_at: Some(30),
                failed_at: Some(31),
                duration: 32,
                last_failed: true,
            },
            lost_master: Some(33),
            retires_older: true,
            kind_count: 37,
            loss_count: 38,
            respawn_count: 39,
            index_respawns: 40,
            index_pid: 44,
        }
    }

    #[test]
    fn a_change_survives_the_zone() {
        let change = change();
        assert_eq!(Change::from_words(&change.to_words()), Some(change));
        let change = Change { worker: None, retires_older: false, ..change };
        assert_eq!(Change::from_words(&change.to_words()), Some(change));
        assert_eq!(Change::from_words(&[0; JOURNAL_WORDS]), None);
    }

    #[test]
    fn each_field_keeps_its_place() {
        // Other builds read these: a field that moves is another LAYOUT_VERSION.
        let pair = |low: u64, high: u64| low | high << 32;
        #[rustfmt::skip]
        let entry = [
            pair(9, 3), 3, pair(10, 11), 25, pair(26, 33), 20, pair(21, 22), 1,
            pair(12, 3), 13, pair(14, 15), pair(16, 19), 17, 18, 23, 27,
            28, 29, 30, 31, 32, 1, 37, 38, 39, 40, pair(34, 36), 35, 44, 0,
        ];
        assert_eq!(change().to_words()[Event::WORDS..], entry);
    }
}
