//! A process of the model as the roster's transaction sees it: it has two hooks for each event, a
//! function and a program.

use roster::{Event, Host, Kind, Now, Point, Ran, Reason, Report};

use super::CALLBACKS;
use crate::common::NOW;

/// A process that holds the lock.
pub struct Process<'a> {
    pub pid: i32,
    /// By whose configuration it dispatches.
    pub generation: u64,
    /// Whether the program that it awaits runs.
    pub runs: &'a mut bool,
    /// The hook that the last step began.
    pub began: Option<(Event, u32)>,
    /// Whether an event could not be read, or a transition was refused.
    pub complaint: Option<String>,
    /// Called at each step of recording.
    pub at: &'a mut dyn FnMut(),
}

impl Host for Process<'_> {
    fn now(&self) -> Now {
        NOW
    }

    fn microseconds(&self) -> u64 {
        0
    }

    fn pid(&self) -> i32 {
        self.pid
    }

    fn generation(&self) -> u64 {
        self.generation
    }

    fn next_hook(&self, _: Kind, from: u32) -> Option<u32> {
        (from < CALLBACKS).then_some(from)
    }

    fn run_hook(&mut self, event: &Event, index: u32) -> Ran {
        self.began = Some((*event, index));
        match (index, event.kind.is_awaited()) {
            (0, _) => Ran::Finished,
            (_, true) => {
                *self.runs = true;
                Ran::Awaited
            }
            (_, false) => Ran::Started,
        }
    }

    fn poll_program(&mut self, blocking: bool) -> Option<bool> {
        *self.runs &= !blocking;
        (!*self.runs).then_some(true)
    }

    fn write_event(&mut self, _: &Event, _: u64) {}

    fn judge(&mut self, reason: Reason) -> Reason {
        reason
    }

    fn report(&mut self, report: Report<'_>) {
        if let Report::Unreadable | Report::Refused(..) = report {
            self.complaint = Some(format!("{report:?}"));
        }
    }

    fn failpoint(&mut self, _: Kind, point: Point) {
        if let Point::Recording(_) = point {
            (self.at)();
        }
    }
}
