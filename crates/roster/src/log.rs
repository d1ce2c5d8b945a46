//! What is noted of the event log: the newest event in it, what is lost, and the line being written.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::table::Roster;

/// A line of the event log that is about to be written. A process that takes the event over from one that
/// died sees by the size of the file how far that process has come, without reading the file: a worker
/// that inherited the file open may not be allowed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogMark {
    /// Device and inode of the file.
    pub file: (u64, u64),
    /// Its size before the line, bytes.
    pub size: u64,
    /// Length of the line with all that goes with it, bytes.
    pub length: u64,
}

/// How far a process that died has come with a line of the event log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogProgress {
    /// Nothing of it is in the file.
    NotBegun,
    /// A part of it is.
    Torn,
    /// All of it is.
    Written,
}

impl LogMark {
    /// How far the line has come, by what the file is now. Of another file, as after `USR1`, or of one
    /// that was emptied since, that can't be known: the line counts as not begun, since an event that is logged
    /// twice is known by its number, and one that is missing is missed.
    pub fn progress(&self, file: (u64, u64), size: u64) -> LogProgress {
        if file != self.file || size <= self.size {
            LogProgress::NotBegun
        } else if size.saturating_sub(self.size) < self.length {
            LogProgress::Torn
        } else {
            LogProgress::Written
        }
    }
}

impl Roster<'_> {
    /// The newest event that is in the event log, or was to be and is lost.
    pub fn logged(&self) -> u64 {
        self.head.logged.load(Acquire)
    }

    /// Notes that the line of an event is about to be written. The caller holds the lock.
    pub fn log_begins(&self, seq: u64, mark: LogMark) {
        let words = [mark.file.0, mark.file.1, mark.size, mark.length];
        // A mark that is half written is none.
        self.head.log_mark[0].store(0, Release);
        for (word, value) in self.head.log_mark[1..].iter().zip(words) {
            word.store(value, Release);
        }
        self.head.log_mark[0].store(seq, Release);
    }

    /// What was noted by a process that began to write the line of this event, if one did.
    pub fn log_mark(&self, seq: u64) -> Option<LogMark> {
        let [noted, device, inode, size, length] = &self.head.log_mark;
        (noted.load(Acquire) == seq && seq != 0).then(|| LogMark {
            file: (device.load(Relaxed), inode.load(Relaxed)),
            size: size.load(Relaxed),
            length: length.load(Relaxed),
        })
    }

    /// Notes that an event is in the event log. If the one before could not be written, returns how
    /// many lines are lost so far, since the history began; otherwise 0.
    pub fn log_written(&self, seq: u64) -> u64 {
        self.head.logged.store(seq, Release);
        if self.head.log_state.swap(0, Relaxed) & 1 == 0 {
            return 0;
        }
        self.head.log_failures.load(Relaxed)
    }

    /// Notes that an event could not be written to the event log, or just a part of its line. True
    /// if the one before could.
    pub fn log_failed(&self, seq: u64, torn: bool) -> bool {
        let state = self.head.log_state.load(Relaxed);
        self.head.log_failures.fetch_add(1, Relaxed);
        let torn = torn || state & 2 != 0;
        self.head.log_state.store(1 | u32::from(torn) << 1, Relaxed);
        self.head.logged.store(seq, Release);
        state & 1 == 0
    }

    /// Notes that the last line of the event log is not whole.
    pub fn log_torn(&self) {
        self.head.log_state.fetch_or(2, Relaxed);
    }

    /// Whether the last line of the event log is not whole.
    pub fn log_is_torn(&self) -> bool {
        self.head.log_state.load(Relaxed) & 2 != 0
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::layout::Head;

    const MARK: LogMark = LogMark { file: (7, 9), size: 100, length: 10 };

    #[test]
    fn the_size_tells_how_far_a_line_has_come() {
        let progress = |size| MARK.progress((7, 9), size);
        assert_eq!([0, 99, 100].map(progress), [LogProgress::NotBegun; 3]);
        assert_eq!([101, 109].map(progress), [LogProgress::Torn; 2]);
        assert_eq!([110, 500].map(progress), [LogProgress::Written; 2]);
        assert_eq!(MARK.progress((7, 8), 110), LogProgress::NotBegun);
        let wrong = LogMark { size: u64::MAX, length: u64::MAX, ..MARK };
        assert_eq!(wrong.progress((7, 9), 110), LogProgress::NotBegun);
    }

    #[test]
    fn a_mark_is_of_one_event() {
        let head = Head::default();
        let roster =
            Roster { head: &head, generations: &[], workers: &[], events: &[], messages: &[] };
        assert_eq!(roster.log_mark(0), None);
        roster.log_begins(3, MARK);
        assert_eq!((roster.log_mark(3), roster.log_mark(4)), (Some(MARK), None));
    }
}
