//! What is counted of callbacks. Each is one addition: a process that dies in between leaves at most
//! one callback counted in part.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::event::Kind;
use crate::layout::{CallbackRecord, CALLBACK_BUCKETS};
use crate::table::Roster;
use crate::words::Word;

/// What the callbacks for one kind of event did since the history began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallbackStats {
    /// How many have begun.
    pub runs: u64,
    /// How many failed: a function that returned anything but 0, a program that could not be started,
    /// ended otherwise than with status 0 or ran out of time, and those that were interrupted.
    pub failures: u64,
    /// How long those took that are over, microseconds. Programs that nobody waits for take as long
    /// as their start.
    pub time: u64,
    /// How many of those took up to each of the `BOUNDS` and more than the one before, and how many
    /// took more than the last.
    pub buckets: [u64; CALLBACK_BUCKETS],
}

impl CallbackStats {
    /// Bounds of the buckets, microseconds.
    pub const BOUNDS: [u64; CALLBACK_BUCKETS - 1] =
        [10, 100, 1_000, 5_000, 10_000, 50_000, 100_000, 500_000, 1_000_000, 5_000_000, 10_000_000];

    fn read(record: &CallbackRecord) -> CallbackStats {
        CallbackStats {
            runs: record.runs.load(Relaxed),
            failures: record.failures.load(Relaxed),
            time: record.time.load(Relaxed),
            buckets: record.buckets.each_ref().map(|bucket| bucket.load(Relaxed)),
        }
    }
}

impl<'a> Roster<'a> {
    fn callback_record(&self, kind: Kind) -> Option<&'a CallbackRecord> {
        self.head.callbacks.get(kind as usize)
    }

    /// Notes that a callback for an event of a kind begins. `now` is in milliseconds of the monotonic
    /// clock.
    pub fn callback_begins(&self, kind: Kind, now: u64) {
        if let Some(record) = self.callback_record(kind) {
            record.runs.fetch_add(1, Relaxed);
        }
        self.head.callback_since.store(now.max(1), Release);
    }

    /// Notes that it is over and took so many microseconds.
    pub fn callback_over(&self, kind: Kind, took: u64) {
        self.head.callback_since.store(0, Release);
        let Some(record) = self.callback_record(kind) else {
            return;
        };
        // The last bucket has no bound.
        let bounds = CallbackStats::BOUNDS.into_iter().chain([u64::MAX]);
        if let Some((_, bucket)) = bounds.zip(&record.buckets).find(|(bound, _)| took <= *bound) {
            bucket.fetch_add(1, Relaxed);
        }
        record.time.fetch_add(took, Relaxed);
    }

    /// Notes that one failed. May be called at any time, by any process that has the zone.
    pub fn callback_failed(&self, kind: Kind) {
        if let Some(record) = self.callback_record(kind) {
            record.failures.fetch_add(1, Relaxed);
        }
    }

    /// What the callbacks for a kind of event did.
    pub fn callbacks(&self, kind: Kind) -> CallbackStats {
        self.callback_record(kind).map(CallbackStats::read).unwrap_or_default()
    }

    /// Since when a callback runs, milliseconds of the monotonic clock; none while none does.
    pub fn callback_since(&self) -> Option<u64> {
        Word::from_word(self.head.callback_since.load(Acquire))
    }

    /// Notes when the history began, wall clock, milliseconds.
    pub fn set_started(&self, wall: i64) {
        self.head.started.store(wall as u64, Relaxed);
    }

    /// When the history began, wall clock, milliseconds.
    pub fn started(&self) -> i64 {
        self.head.started.load(Relaxed) as i64
    }

    /// Notes since when the master reads a configuration, wall clock, milliseconds; none when it no
    /// longer does.
    pub fn set_loading_since(&self, wall: Option<i64>) {
        self.head.loading_since.store(wall.to_word(), Release);
    }

    /// Since when the master reads a configuration, wall clock, milliseconds; none while it does not.
    pub fn loading_since(&self) -> Option<i64> {
        Word::from_word(self.head.loading_since.load(Acquire))
    }

    /// Lines of the event log that could not be written, since the history began.
    pub fn log_failures(&self) -> u64 {
        self.head.log_failures.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::Head;

    #[test]
    fn a_callback_is_counted_in_its_bucket() {
        let head = Head::default();
        let roster =
            Roster { head: &head, generations: &[], workers: &[], events: &[], messages: &[] };
        let kind = Kind::WorkerStart;
        for took in [10, 11, 20_000_000] {
            roster.callback_begins(kind, 5);
            assert_eq!(roster.callback_since(), Some(5));
            roster.callback_over(kind, took);
            assert_eq!(roster.callback_since(), None);
        }
        roster.callback_failed(kind);
        let stats = roster.callbacks(kind);
        assert_eq!((stats.runs, stats.failures, stats.time), (3, 1, 20_000_021));
        assert_eq!(stats.buckets, [1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(roster.callbacks(Kind::WorkerExit), CallbackStats::default());
    }
}
