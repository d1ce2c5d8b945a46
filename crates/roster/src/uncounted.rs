//! Workers that serve without a place in the roster, since it was full when they began.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::table::Roster;

/// A worker that serves without a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uncounted {
    /// Its index, `0..worker_processes - 1`.
    pub index: u32,
    /// Its process.
    pub pid: i32,
    /// When it began, milliseconds since boot, sleep included.
    pub since_boot: u64,
}

/// Linux has no higher pids (`PID_MAX_LIMIT`); what is left of a word holds milliseconds for a century.
const PID_BITS: u32 = 22;
const PID: u64 = (1 << PID_BITS) - 1;

impl Roster<'_> {
    /// Whether there is a place for another worker. Needs no lock, and may no longer be true with it.
    pub fn has_room(&self) -> bool {
        (self.free_slot() as usize) < self.workers.len()
    }

    /// Notes a worker that has found no place. Needs no lock: the note is in a place that belongs to its
    /// index, where no other worker of its generation writes. If one of an older generation has the index,
    /// the newer one is noted.
    pub fn note_uncounted(&self, worker: Uncounted) {
        let Some(record) = self.workers.get(worker.index as usize) else {
            return;
        };
        record.uncounted.store(worker.word(), Release);
        self.head.uncounted_limit.fetch_max(u64::from(worker.index) + 1, Release);
    }

    /// That worker has a place now, or ends.
    pub fn end_uncounted(&self, worker: Uncounted) {
        if let Some(record) = self.workers.get(worker.index as usize) {
            let _ = record.uncounted.compare_exchange(worker.word(), 0, Release, Relaxed);
        }
    }

    /// The workers that were noted. A reader has to see which of them live: a worker that is killed
    /// strikes nothing out.
    pub fn uncounted(&self) -> impl Iterator<Item = Uncounted> + '_ {
        let limit = usize::try_from(self.head.uncounted_limit.load(Acquire)).unwrap_or(usize::MAX);
        let records = self.workers.iter().take(limit).enumerate();
        records.filter_map(|(index, record)| {
            let word = record.uncounted.load(Acquire);
            (word != 0).then_some(Uncounted {
                index: index as u32,
                pid: (word & PID) as i32,
                since_boot: word >> PID_BITS,
            })
        })
    }
}

impl Uncounted {
    /// Process and time in one word.
    fn word(&self) -> u64 {
        self.since_boot << PID_BITS | u64::from(self.pid as u32) & PID
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::layout::{Head, WorkerRecord};

    #[test]
    fn each_index_has_one() {
        let head = Head::default();
        let workers = [WorkerRecord::default(), WorkerRecord::default()];
        let roster =
            Roster { head: &head, generations: &[], workers: &workers, events: &[], messages: &[] };
        roster.create(0, 0);
        assert!(roster.has_room());
        let one = Uncounted { index: 1, pid: 4_194_303, since_boot: 1 << 41 };
        roster.note_uncounted(one);
        assert_eq!(roster.uncounted().collect::<Vec<_>>(), [one]);
        let successor = Uncounted { pid: 12, since_boot: 6, ..one };
        roster.note_uncounted(successor);
        roster.end_uncounted(one);
        assert_eq!(roster.uncounted().collect::<Vec<_>>(), [successor]);
        roster.end_uncounted(successor);
        assert_eq!(roster.uncounted().count(), 0);
        // Beyond all places: nothing is noted, and nothing breaks.
        let beyond = Uncounted { index: 2, ..one };
        roster.note_uncounted(beyond);
        roster.end_uncounted(beyond);
        assert_eq!(roster.uncounted().count(), 0);
    }
}
