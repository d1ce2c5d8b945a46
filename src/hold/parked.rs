//! A lock that was let go of in the middle of an event, to come back to it.

use std::mem::take;
use std::thread;
use std::time::Duration;

use linux::mutex::Taken;
use linux::process::is_gone;
use roster::{Reservation, Roster};

use super::{is_mine, Hold, Occasion, Progress, Wait};
use crate::clock;
use crate::conf::Conf;
use crate::log::Log;
use crate::process;
use crate::watch;
use crate::zone::Zone;

/// How long nobody else goes on in the place of a process that is to come back to the lock, beyond the
/// time of the program that it awaits, milliseconds. A worker that serves comes back in some
/// milliseconds, unless something else holds up its event loop, or nginx looks at its timers at ticks only.
const COMES_BACK: u64 = 2000;

/// How often to see whether it has, milliseconds, in the long run: each look costs some microseconds, and
/// there may be hundreds who wait.
const SEE_AGAIN: u64 = 25;

/// What a process has let go of the lock with, to come back: between two programs of an event, or while
/// it awaits one, a worker serves, and whatever else runs in its event loop may hold it up for long.
pub struct Parked<'a> {
    zone: Zone,
    conf: &'a Conf,
    log: Log,
    progress: Progress,
}

impl<'a> Hold<'a> {
    /// Lets go, to come back.
    pub fn park(mut self) -> Parked<'a> {
        let progress = take(&mut self.progress);
        let patience = match &progress.awaited {
            Some(awaited) => awaited.running.time_left().saturating_add(COMES_BACK),
            None => COMES_BACK,
        };
        let patience = patience.saturating_add(watch::timer_delay());
        let now = clock::now();
        let until = now.monotonic.saturating_add(patience);
        self.roster().reserve(process::pid(), now.since_boot, until);
        Parked { zone: self.zone, conf: self.conf, log: self.log, progress }
    }
}

impl<'a> Parked<'a> {
    /// Whether there is nothing to come back for yet: the program that is awaited runs.
    pub fn is_awaiting(&mut self) -> bool {
        self.progress.awaited.as_mut().is_some_and(|awaited| awaited.running.poll().is_none())
    }

    /// Takes the lock again if it is free.
    pub fn try_resume(self) -> Resumed<'a> {
        match self.zone.lock().try_take() {
            Err(libc::EBUSY) => Resumed::Busy(self),
            taken => self.go_on(taken),
        }
    }

    /// Takes the lock again, at an end, however long that takes. None if others have gone on, or this
    /// process was told to end at once.
    pub fn resume(self) -> Option<Hold<'a>> {
        let mut wait = Wait::new(self.zone, self.conf, self.log, Occasion::End);
        let taken = self.zone.lock().take(&mut || wait.goes_on());
        match self.go_on(taken) {
            Resumed::Held(hold) => Some(hold),
            Resumed::Busy(_) | Resumed::Lost => None,
        }
    }

    fn go_on(self, taken: Result<Taken, i32>) -> Resumed<'a> {
        let Parked { zone, conf, log, progress } = self;
        let roster = zone.roster();
        let taken = is_mine(taken, zone, log);
        if !taken || roster.reservation().is_none_or(|reserved| reserved.pid != process::pid()) {
            if taken {
                zone.lock().release();
                log!(log, Notice, "worker_manager: others have gone on with the event meanwhile");
            }
            if let Some(awaited) = progress.awaited {
                watch::adopt(awaited.running, roster);
            }
            return Resumed::Lost;
        }
        roster.end_reservation();
        roster.set_holder(process::pid());
        Resumed::Held(Hold { zone, conf, log, progress })
    }
}

/// What became of a lock that was let go of.
pub enum Resumed<'a> {
    /// It is held again.
    Held(Hold<'a>),
    /// Somebody looks whether it is free.
    Busy(Parked<'a>),
    /// It took too long: another process has gone on.
    Lost,
}

/// Waits, without the lock, as long as somebody is to come back to it. False if this process is to go on
/// without the lock.
pub(super) fn await_return(roster: Roster<'_>, wait: &mut Wait<'_>) -> bool {
    let mut pause = 1;
    while let Some(Reservation { pid, since_boot, until }) = roster.reservation() {
        if clock::monotonic() >= until || is_gone(pid, since_boot) {
            break;
        }
        thread::sleep(Duration::from_millis(pause));
        pause = (2 * pause).min(SEE_AGAIN);
        if !wait.goes_on() {
            return false;
        }
    }
    true
}
