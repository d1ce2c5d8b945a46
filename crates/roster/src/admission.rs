//! Suspending a transaction and resuming it.
//!
//! A worker that serves does not keep the lock while its event loop turns, since whatever else runs
//! there may hold it up for long. Between two hooks of an event, or while it awaits a program, it
//! suspends its transaction: it reserves what is left of the event and releases the lock. Whoever
//! takes the lock meanwhile leaves the event alone, until that process resumes, dies, or has not
//! come back in time.

use crate::table::{Reservation, Roster};
use crate::transaction::Transaction;

/// Whether a process that took the lock may begin a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It may.
    Granted,
    /// It may: the process with this id had suspended a transaction and is gone.
    Orphaned(i32),
    /// It may: the process with this id had suspended a transaction and has not resumed it in time.
    Expired(i32),
    /// It has to release the lock and come back: a suspended transaction is to be resumed first.
    Reserved,
}

impl Roster<'_> {
    /// Asks whether the process that holds the lock may begin a transaction. `now` is the monotonic
    /// clock, milliseconds; `is_gone` tells whether the process that made a reservation is gone.
    pub fn admit(&self, now: u64, is_gone: impl FnOnce(&Reservation) -> bool) -> Admission {
        let Some(reservation) = self.reservation() else {
            return Admission::Granted;
        };
        let admission = if is_gone(&reservation) {
            Admission::Orphaned(reservation.pid)
        } else if now >= reservation.until {
            Admission::Expired(reservation.pid)
        } else {
            return Admission::Reserved;
        };
        self.end_reservation();
        admission
    }
}

impl Transaction {
    /// Reserves what is left, for the process `pid`, which is there at `since_boot` (milliseconds since
    /// boot), until a moment of the monotonic clock, milliseconds. The caller then releases the lock.
    pub fn suspend(&self, roster: Roster<'_>, pid: i32, since_boot: u64, until: u64) {
        roster.reserve(pid, since_boot, until);
    }

    /// Whether the process `pid`, which holds the lock again, may continue. If not, others have
    /// continued with the event, and what this transaction was to record has to be looked at anew.
    #[must_use]
    pub fn resume(&self, roster: Roster<'_>, pid: i32) -> bool {
        let is_mine = roster.reservation().is_some_and(|reservation| reservation.pid == pid);
        if is_mine {
            roster.end_reservation();
        }
        is_mine
    }
}
