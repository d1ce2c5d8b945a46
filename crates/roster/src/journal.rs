//! A change in full, with every value it leaves behind, so that carrying it out twice is the same
//! as once. It is written down before it is carried out: whoever finds it there finishes it.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::event::{Event, Kind};
use crate::layout::{Reloads, JOURNAL_WORDS, NONE};
use crate::table::Roster;
use crate::words::{load, store};

/// What a generation's record becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GenerationChange {
    pub slot: u32,
    /// 0 frees the slot.
    pub number: u64,
    pub retired: bool,
    pub running: u32,
    pub present: u32,
    pub began: u64,
    pub expected: u32,
    pub ready: bool,
    pub ready_after: u32,
    pub started: i64,
}

/// What a worker's record becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WorkerChange {
    pub slot: u32,
    /// 0 frees the slot.
    pub generation: u64,
    pub pid: u32,
    pub index: u32,
    pub process_slot: u32,
    pub hung: bool,
    pub since_boot: u64,
    /// 0 leaves it alone: the worker itself may be writing it, without the lock.
    pub beat: u64,
    pub heartbeat_timeout: u32,
    pub next: u32,
    pub draining_since: u64,
    pub stuck: bool,
    pub respawns: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub event: Event,
    pub generation: GenerationChange,
    pub worker: Option<WorkerChange>,
    /// What the head becomes.
    pub current: u64,
    pub free_worker: u32,
    pub worker_limit: u32,
    pub reloads: Reloads,
    pub lost_master: u32,
    /// Whether every generation before the event's is retired by it.
    pub retires_older: bool,
    /// What is counted: events of this kind, losses for this reason, respawns.
    pub kind_count: u64,
    pub loss_count: u64,
    pub respawn_count: u64,
    /// What `index_respawns` and `index_pid` of the worker's index become.
    pub index_respawns: u64,
    pub index_pid: u32,
}

fn pack(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

fn flags(first: bool, second: bool) -> u32 {
    u32::from(first) | u32::from(second) << 1
}

fn low(word: u64) -> u32 {
    word as u32
}

fn high(word: u64) -> u32 {
    (word >> 32) as u32
}

impl Change {
    fn to_words(self) -> [u64; JOURNAL_WORDS] {
        let mut words = [0; JOURNAL_WORDS];
        let (event, rest) = words.split_at_mut(Event::WORDS);
        event.copy_from_slice(&self.event.to_words());

        let g = self.generation;
        rest[0] = pack(g.slot, flags(g.retired, g.ready));
        rest[1] = g.number;
        rest[2] = pack(g.running, g.present);
        rest[3] = g.began;
        rest[4] = pack(g.expected, self.lost_master);
        rest[5] = self.current;
        rest[6] = pack(self.free_worker, self.worker_limit);
        rest[7] = self.retires_older.into();
        rest[8] = pack(NONE, 0);
        if let Some(w) = self.worker {
            rest[8] = pack(w.slot, flags(w.hung, w.stuck));
            rest[9] = w.generation;
            rest[10] = pack(w.pid, w.index);
            rest[11] = pack(w.process_slot, w.next);
            rest[12] = w.since_boot;
            rest[13] = w.beat;
            rest[14] = w.heartbeat_timeout.into();
            rest[15] = w.draining_since;
        }
        rest[16..][..Reloads::WORDS].copy_from_slice(&self.reloads.to_words());
        rest[22] = self.kind_count;
        rest[23] = self.loss_count;
        rest[24] = self.respawn_count;
        rest[25] = self.index_respawns;
        rest[26] = pack(g.ready_after, self.worker.map_or(0, |w| w.respawns));
        rest[27] = g.started as u64;
        rest[28] = self.index_pid.into();
        words
    }

    fn from_words(words: &[u64; JOURNAL_WORDS]) -> Option<Change> {
        let (event, rest) = words.split_first_chunk::<{ Event::WORDS }>()?;
        let worker = (low(rest[8]) != NONE).then(|| WorkerChange {
            slot: low(rest[8]),
            hung: high(rest[8]) & 1 != 0,
            stuck: high(rest[8]) & 2 != 0,
            generation: rest[9],
            pid: low(rest[10]),
            index: high(rest[10]),
            process_slot: low(rest[11]),
            next: high(rest[11]),
            since_boot: rest[12],
            beat: rest[13],
            heartbeat_timeout: low(rest[14]),
            draining_since: rest[15],
            respawns: high(rest[26]),
        });
        let reloads = rest.get(16..)?.first_chunk().copied()?;
        Some(Change {
            event: Event::from_words(event)?,
            generation: GenerationChange {
                slot: low(rest[0]),
                number: rest[1],
                retired: high(rest[0]) & 1 != 0,
                ready: high(rest[0]) & 2 != 0,
                running: low(rest[2]),
                present: high(rest[2]),
                began: rest[3],
                expected: low(rest[4]),
                ready_after: low(rest[26]),
                started: rest[27] as i64,
            },
            worker,
            current: rest[5],
            free_worker: low(rest[6]),
            worker_limit: high(rest[6]),
            reloads: Reloads::from_words(reloads),
            lost_master: high(rest[4]),
            retires_older: rest[7] != 0,
            kind_count: rest[22],
            loss_count: rest[23],
            respawn_count: rest[24],
            index_respawns: rest[25],
            index_pid: low(rest[28]),
        })
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
        if let Some(record) = self.generations.get(g.slot as usize) {
            record.retired.store(g.retired.into(), Release);
            record.running.store(g.running, Release);
            record.present.store(g.present, Release);
            record.began.store(g.began, Release);
            record.expected.store(g.expected, Release);
            record.ready.store(g.ready.into(), Release);
            record.ready_after.store(g.ready_after, Release);
            record.started.store(g.started as u64, Release);
            record.number.store(g.number, Release);
        }
        step();

        self.head.free_worker.store(change.free_worker, Release);
        self.head.worker_limit.store(change.worker_limit, Release);
        if let Some(w) = &change.worker {
            if let Some(record) = self.workers.get(w.slot as usize) {
                record.pid.store(w.pid, Release);
                record.index.store(w.index, Release);
                record.process_slot.store(w.process_slot, Release);
                record.hung.store(w.hung.into(), Release);
                record.since_boot.store(w.since_boot, Release);
                if w.beat != 0 {
                    record.beat.store(w.beat, Release);
                }
                record.heartbeat_timeout.store(w.heartbeat_timeout, Release);
                record.next.store(w.next, Release);
                record.draining_since.store(w.draining_since, Release);
                record.stuck.store(w.stuck.into(), Release);
                record.respawns.store(w.respawns, Release);
                if w.generation == 0 {
                    record.connections.store(0, Release);
                    record.marks.store(0, Release);
                    record.registration.store(0, Release);
                } else if event.kind == Kind::WorkerStart {
                    record.registration.store(event.seq, Release);
                }
                record.generation.store(w.generation, Release);
            }
            if let Some(record) = self.workers.get(w.index as usize) {
                record.index_respawns.store(change.index_respawns, Release);
                record.index_pid.store(change.index_pid, Release);
            }
        }
        step();

        self.head.kinds[event.kind as usize].store(change.kind_count, Release);
        if let Some(reason) = event.reason {
            self.head.losses[reason.index()].store(change.loss_count, Release);
        }
        self.head.respawns.store(change.respawn_count, Release);
        store(&self.head.reloads, &change.reloads.to_words());
        self.head.lost_master.store(change.lost_master, Release);
        self.head.stopping.store(event.stopping.into(), Release);
        self.head.generation.store(change.current, Release);
        self.head.seq.store(event.seq, Release);
        step();
        self.carried_out();
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

    #[test]
    fn a_change_survives_the_zone() {
        let event = Event {
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
        let change = Change {
            event,
            generation: GenerationChange {
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
            },
            worker: Some(WorkerChange {
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
                draining_since: 27,
                stuck: true,
                respawns: 36,
            }),
            current: 20,
            free_worker: 21,
            worker_limit: 22,
            reloads: Reloads {
                succeeded: 28,
                failed: 29,
                succeeded_at: 30,
                failed_at: 31,
                duration: 32,
                last_failed: true,
            },
            lost_master: 33,
            retires_older: true,
            kind_count: 37,
            loss_count: 38,
            respawn_count: 39,
            index_respawns: 40,
            index_pid: 44,
        };
        assert_eq!(Change::from_words(&change.to_words()), Some(change));
        let change = Change { worker: None, retires_older: false, ..change };
        assert_eq!(Change::from_words(&change.to_words()), Some(change));
        assert_eq!(Change::from_words(&[0; JOURNAL_WORDS]), None);
    }
}
