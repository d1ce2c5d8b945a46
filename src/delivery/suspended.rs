//! A lock that was let go of in the middle of an event, to come back to it.

use linux::mutex::{MutexError, Taken};
use roster::{Transaction, Transition};

use super::guard::{is_mine, LockGuard};
use super::wait::{Occasion, Wait};
use crate::actions::{detached, Running};
use crate::config::Conf;
use crate::nginx::clock;
use crate::nginx::log::Log;
use crate::nginx::process;
use crate::nginx::timer;
use crate::nginx::zone::Zone;

/// How long nobody else goes on in the place of a process that is to come back to the lock, beyond the
/// time of the program that it awaits, milliseconds. A worker that serves comes back in some
/// milliseconds, unless something else holds up its event loop, or nginx looks at its timers at ticks only.
const COMES_BACK: u64 = 2000;

/// What a process has let go of the lock with, to come back: between two programs of an event, or while
/// it awaits one, a worker serves, and whatever else runs in its event loop may hold it up for long.
pub struct Suspended<'a> {
    zone: Zone<'a>,
    conf: &'a Conf,
    log: Log<'a>,
    transaction: Transaction,
    program: Option<Running>,
}

impl<'a> LockGuard<'a> {
    /// Lets go, to come back.
    pub fn suspend(mut self) -> Suspended<'a> {
        let left = self.program.as_ref().map_or(0, Running::time_left);
        let patience = left.saturating_add(COMES_BACK);
        let patience = patience.saturating_add(timer::delay());
        let now = clock::now();
        let until = now.monotonic.saturating_add(patience);
        let transaction = std::mem::take(&mut self.transaction);
        transaction.suspend(self.roster(), process::pid(), now.since_boot, until);
        let program = self.program.take();
        Suspended { zone: self.zone, conf: self.conf, log: self.log, transaction, program }
    }
}

impl<'a> Suspended<'a> {
    /// Whether there is nothing to come back for yet: the program that is awaited runs.
    pub fn is_awaiting(&mut self) -> bool {
        self.program.as_mut().is_some_and(|program| program.poll().is_none())
    }

    /// Takes the lock again if it is free.
    pub fn try_resume(self) -> Resumed<'a> {
        match self.zone.lock().try_take() {
            Err(MutexError::Busy) => Resumed::Busy(self),
            taken => self.go_on(taken),
        }
    }

    /// Takes the lock again, at an end, however long that takes.
    pub fn resume(self) -> Resumed<'a> {
        let mut wait = Wait::new(self.zone, self.conf, self.log, Occasion::End);
        let taken = self.zone.lock().take(&mut || wait.goes_on());
        self.go_on(taken)
    }

    fn go_on(self, taken: Result<Taken, MutexError>) -> Resumed<'a> {
        let Suspended { zone, conf, log, transaction, program } = self;
        let roster = zone.roster();
        let taken = is_mine(taken, zone, log);
        if !taken || !transaction.resume(roster, process::pid()) {
            if taken {
                zone.lock().release();
                log!(log, Notice, "others have gone on with the event meanwhile");
            }
            if let Some(program) = program {
                detached::adopt(program, zone);
            }
            return Resumed::Lost(transaction.transitions().copied().collect());
        }
        roster.set_holder(Some(process::pid()));
        Resumed::Held(LockGuard { zone, conf, log, transaction, program })
    }
}

/// What became of a lock that was let go of.
pub enum Resumed<'a> {
    /// It is held again.
    Held(LockGuard<'a>),
    /// Somebody looks whether it is free.
    Busy(Suspended<'a>),
    /// It took too long, and another process has gone on; or this one was told to end at once. These
    /// were still to be recorded.
    Lost(Vec<Transition>),
}
