//! What this process knows of those that died without a word. What it records of them, and when, the
//! roster says.

use roster::{Reason, Roster, Transition, Witness, WorkerView};

use super::{drain, order};
use crate::nginx::process;

/// This process, as a witness of what happens to others.
pub struct ThisProcess {
    /// The moment at which it judges heartbeats, monotonic clock, milliseconds; none if it judges none.
    pub judges_at: Option<u64>,
}

impl ThisProcess {
    /// It judges nobody's heartbeat.
    pub const PLAIN: ThisProcess = ThisProcess { judges_at: None };
}

impl Witness for ThisProcess {
    fn pid(&self) -> i32 {
        process::pid()
    }

    fn process_slot(&self) -> u32 {
        process::slot()
    }

    fn predecessor(&self) -> Option<(i32, Reason)> {
        process::predecessor()
    }

    fn is_gone(&self, pid: i32, since_boot: u64) -> bool {
        linux::process::is_gone(pid, since_boot)
    }

    fn unreaped(&self, pid: i32, since_boot: u64) -> Option<Reason> {
        process::unreaped(pid, since_boot)
    }

    fn reaped(&self, process_slot: u32, pid: i32) -> Option<Reason> {
        process::exit_status(process_slot, pid)
    }

    fn is_orphan(&self) -> bool {
        process::is_orphan()
    }

    fn is_draining(&self) -> bool {
        drain::is_draining()
    }

    fn is_stopping(&self, roster: Roster<'_>, me: &WorkerView) -> bool {
        order::is_stopping(roster, me)
    }

    fn has_other_binary(&self) -> bool {
        order::has_other_binary()
    }

    fn take_draining(&self, me: &WorkerView, stopping: bool) -> Option<Transition> {
        drain::untold_draining(me, stopping)
    }

    fn is_overdue(&self, other: &WorkerView) -> bool {
        self.judges_at.is_some_and(|now| other.is_overdue(now))
    }
}
