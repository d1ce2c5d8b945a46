//! A generation and a worker, as they are at one moment and as a change leaves them.

use std::sync::atomic::Ordering::{Acquire, Relaxed};

use crate::fields::{fields, Place};
use crate::layout::{GenerationRecord, WorkerRecord};

fields! {
    /// One generation at one moment.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct GenerationView of GenerationRecord {
        /// Whether a newer one was committed or the node stops.
        pub retired: bool = Place::bit(0, 32),
        /// Workers that run, hung ones not counted.
        pub running: u32 = Place::low(2),
        /// Workers that have not ended, hung ones included.
        pub present: u32 = Place::high(2),
        /// When its configuration began to be read, milliseconds of the monotonic clock.
        pub began: u64 = Place::word(3),
        /// With how many workers it is ready.
        pub expected: u32 = Place::low(4),
        /// Whether its `master_ready` is recorded.
        pub ready: bool = Place::bit(0, 33),
        /// How long that took since `began`, milliseconds.
        pub ready_after: u32 = Place::low(26),
        /// When it was committed, wall clock, milliseconds.
        pub started: i64 = Place::word(27),
    }
    besides {
        /// Its slot in the roster.
        pub slot: u32,
        /// Its number.
        pub number: u64,
    }
}

fields! {
    /// One worker at one moment.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct WorkerView of WorkerRecord {
        /// Its process.
        pub pid: i32 = Place::low(10),
        /// Its index, `0..worker_processes - 1`.
        pub index: u32 = Place::high(10),
        /// Its slot in the master's table of processes.
        pub process_slot: u32 = Place::low(11),
        /// Whether it counts as hung.
        pub hung: bool = Place::bit(8, 32),
        /// When it registered, milliseconds since boot, sleep included.
        pub since_boot: u64 = Place::word(12),
        /// How old its heartbeat may get, milliseconds.
        pub heartbeat_timeout: u32 = Place::low(14),
        pub(crate) next: u32 = Place::high(11),
        /// Since when it drains, milliseconds of the monotonic clock; none if it does not.
        pub draining_since: Option<u64> = Place::word(15),
        /// Whether its `worker_stuck` is recorded: it drains for too long.
        pub stuck: bool = Place::bit(8, 33),
        /// How many workers of its generation had its index before it.
        pub respawns: u32 = Place::high(26),
    }
    besides {
        /// Its slot in the roster.
        pub slot: u32,
        /// Its generation.
        pub generation: u64,
        /// Its last heartbeat, milliseconds of the monotonic clock.
        pub beat: u64,
        /// Its open connections, those in use and idle ones, as of its last heartbeat; none if not known.
        pub connections: Option<(u32, u32)>,
        /// The number of its `worker_start`, which names it: slots and pids are given to others.
        pub registration: u64,
    }
}

impl GenerationView {
    /// The generation in a slot; none if the slot is free.
    pub(crate) fn of(slot: u32, record: &GenerationRecord) -> Option<GenerationView> {
        let number = record.number.load(Acquire);
        (number != 0).then(|| GenerationView::read(record, slot, number))
    }
}

impl WorkerView {
    /// The worker in a slot; none if the slot is free.
    pub(crate) fn of(slot: u32, record: &WorkerRecord) -> Option<WorkerView> {
        let generation = record.generation.load(Acquire);
        (generation != 0).then(|| {
            let beat = record.beat.load(Relaxed);
            let word = record.connections.load(Relaxed);
            let connections =
                (word != 0).then_some(((word as u32).saturating_sub(1), (word >> 32) as u32));
            let registration = record.registration.load(Acquire);
            WorkerView::read(record, slot, generation, beat, connections, registration)
        })
    }

    /// Whether its heartbeat is overdue.
    pub fn is_overdue(&self, now: u64) -> bool {
        now.saturating_sub(self.beat) > u64::from(self.heartbeat_timeout)
    }
}
