//! Waiting for the lock: as long as nobody tells this process to end, with a warning from one of those
//! who wait, and with an end to a callback that takes too long.

use core::cell::Cell;
use core::fmt;
use std::thread;
use std::time::Duration;

use linux::mutex::Holder;
use linux::pidfd::Pidfd;
use linux::process::{is_gone, is_replaced, Stat};
use ngx::ffi::ngx_time_update;
use roster::{Pending, Reservation, Roster};

use super::membership::beat;
use crate::config::Conf;
use crate::nginx::clock;
use crate::nginx::failpoint;
use crate::nginx::log::Log;
use crate::nginx::main_thread::MainThreadCell;
use crate::nginx::process;
use crate::nginx::zone::Zone;

/// What a process waits for the lock for, which says when it gives up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occasion {
    /// A start or a reload: it need not be recorded once the process is told to end.
    Begin,
    /// An end: recording it is worth `STOP_GRACE` more, since all workers that a stop ends want the
    /// lock at once.
    End,
}

/// How long a process that ends waits for the lock once it is to end at once, milliseconds: nginx kills
/// its workers 3.15 s after it has told them (`ngx_master_process_cycle`).
const STOP_GRACE: u64 = 2500;

/// How often to see whether somebody has come back to the lock, milliseconds, in the long run: each look
/// costs some microseconds, and hundreds of processes may wait.
const SEE_AGAIN: u64 = 25;

/// When this process was first seen to be told to end, monotonic clock, milliseconds; 0 if it was not. It may
/// wait more than once at its end.
static TOLD: MainThreadCell<Cell<u64>> = MainThreadCell::new(Cell::new(0));

/// A process that keeps others from taking the lock.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Obstacle {
    /// The process.
    pub pid: i32,
    /// A moment at which it lived, milliseconds since boot.
    since_boot: u64,
    /// Which callback it runs, see `Label::version`.
    callback: u64,
    /// Whether it holds the lock; otherwise it is to come back to it.
    holds: bool,
}

impl Obstacle {
    /// The obstacle now, as far as that can be said.
    pub fn of(zone: Zone) -> Option<Obstacle> {
        let callback = zone.label().version();
        if let Some(Holder { tid, since_boot }) = zone.lock().holder() {
            return Some(Obstacle { pid: tid, since_boot, callback, holds: true });
        }
        let reserved = zone.roster().reservation()?;
        let (pid, since_boot) = (reserved.pid, reserved.since_boot);
        Some(Obstacle { pid, since_boot, callback, holds: false })
    }

    /// A number for the zone; its low byte is 0.
    fn key(&self) -> u64 {
        let key = self.since_boot.rotate_left(24) ^ self.callback.rotate_left(44);
        (key ^ (self.pid as u64) << 8) & !0xff
    }
}

/// For how long the same obstacle is in the way.
#[derive(Clone, Copy)]
pub struct Blocked {
    obstacle: Option<Obstacle>,
    /// Monotonic clock, milliseconds.
    since: u64,
}

impl Blocked {
    /// By nobody.
    pub const NONE: Blocked = Blocked { obstacle: None, since: 0 };

    /// By whom, as of the last look.
    pub fn obstacle(&self) -> Option<Obstacle> {
        self.obstacle
    }

    /// Looks again. A worker that has held the lock for `callback_timeout` in the same callback, while
    /// this process waited, is killed.
    pub fn look(&mut self, zone: Zone, conf: &Conf, log: Log) {
        let (now, obstacle) = (clock::monotonic(), Obstacle::of(zone));
        if obstacle != self.obstacle || self.since == 0 {
            *self = Blocked { obstacle, since: now };
        }
        let (Some(obstacle), Some(timeout)) = (self.obstacle, conf.callback_timeout) else {
            return;
        };
        if obstacle.holds && self.blocked() >= timeout as u64 {
            kill(zone, obstacle, log);
        }
    }

    /// Milliseconds.
    fn blocked(&self) -> u64 {
        clock::monotonic().saturating_sub(self.since)
    }

    /// Warns after 1, 2, 4, 8 … seconds, if no other process has.
    fn warn(&self, zone: Zone, log: Log) {
        let (Some(obstacle), Some(doublings)) =
            (self.obstacle, (self.blocked() / 1000).checked_ilog2())
        else {
            return;
        };
        if zone.is_first_to_warn(obstacle.key() | u64::from(doublings.saturating_add(1))) {
            // SAFETY: this thread is the one that nginx's cached time is for. In a start, an exit or
            // a reload nobody else moves it.
            unsafe { ngx_time_update() };
            let seconds = 1u64 << doublings;
            log!(log, Warn, "blocked for {seconds}s by {}", By(zone, obstacle.pid));
        }
    }
}

/// Kills the worker that holds the lock. Never the master, without whom nobody would start workers. Nor
/// does a master kill anything else than its workers: it may be root's, and workers write to the zone.
fn kill(zone: Zone, obstacle: Obstacle, log: Log) {
    let named = failpoint::content("lock.holder").and_then(|pid| pid.trim().parse().ok());
    let pid = named.unwrap_or(obstacle.pid);
    if pid == process::pid() || (process::is_worker() && pid == process::master()) {
        return;
    }
    let is_news = || zone.is_first_to_warn(obstacle.key() | 0xff);
    let pidfd = match Pidfd::open(pid) {
        Ok(pidfd) => pidfd,
        Err(error) => {
            if error.raw_os_error() != Some(libc::ESRCH) && is_news() {
                log!(log, Error, "pidfd_open({pid}) failed ({error})");
            }
            return;
        }
    };
    // The descriptor is that of the holder if that still holds the lock and has not got its pid from it.
    if Obstacle::of(zone) != Some(obstacle) || is_replaced(pid, obstacle.since_boot) {
        return;
    }
    let is_child = || Stat::of(pid).is_some_and(|stat| stat.parent == process::pid());
    if !process::is_worker() && !is_child() {
        if is_news() {
            log!(
                log,
                Alert,
                "callback_timeout is over, but process {pid}, which has the lock, is no worker \
                 of this master"
            );
        }
        return;
    }
    if is_news() {
        let by = By(zone, pid);
        log!(log, Error, "callback_timeout is over for {by}, killing the process");
    }
    // It fails only for one that is gone.
    let _ = pidfd.send_signal(libc::SIGKILL);
}

/// Names a process that others wait for, and the callback that it runs.
struct By<'a>(Zone<'a>, i32);

impl fmt::Display for By<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let By(zone, pid) = self;
        let running = zone.roster().pending().filter(|pending| pending.begun > 0);
        if let (Some(Pending { event, .. }), Some(label)) = (running, zone.label().get()) {
            write!(f, "{label} of {} {} in ", event.kind.name(), event.id())?;
        }
        write!(f, "process {pid}")
    }
}

/// A process that waits.
pub(super) struct Wait<'a> {
    zone: Zone<'a>,
    conf: &'a Conf,
    log: Log<'a>,
    occasion: Occasion,
    blocked: Blocked,
}

impl<'a> Wait<'a> {
    pub fn new(zone: Zone<'a>, conf: &'a Conf, log: Log<'a>, occasion: Occasion) -> Wait<'a> {
        Wait { zone, conf, log, occasion, blocked: Blocked::NONE }
    }

    /// To be called at least every 50 ms; false if this process is to go on without the lock.
    pub fn goes_on(&mut self) -> bool {
        // Whoever waits lives: the others must not think it hung.
        beat();
        self.blocked.look(self.zone, self.conf, self.log);
        self.blocked.warn(self.zone, self.log);
        if !self.is_finished() {
            return true;
        }
        // SAFETY: as in `Blocked::warn`.
        unsafe { ngx_time_update() };
        let by = self.blocked.obstacle().map_or(0, |obstacle| obstacle.pid);
        log!(
            self.log,
            Warn,
            "told to end while blocked by {}, going on without the lock",
            By(self.zone, by)
        );
        false
    }

    fn is_finished(&self) -> bool {
        let (told, grace) = match self.occasion {
            Occasion::Begin => (process::is_terminated() || process::is_told_to_quit(), 0),
            // A master ends after its workers: the holder of the lock is none of them then.
            Occasion::End => (process::is_terminated() || !process::is_worker(), STOP_GRACE),
        };
        if !told {
            return false;
        }
        let now = clock::monotonic();
        let told_at = match TOLD.get_or(now) {
            0 => now,
            before => before,
        };
        TOLD.set(told_at);
        now.saturating_sub(told_at) >= grace
    }
}

/// Waits, without the lock, as long as somebody is to come back to it. False if this process is to go on
/// without the lock.
pub(super) fn await_return(roster: Roster<'_>, wait: &mut Wait<'_>) -> bool {
    let mut pause = 1u64;
    while let Some(Reservation { pid, since_boot, until }) = roster.reservation() {
        if clock::monotonic() >= until || is_gone(pid, since_boot) {
            break;
        }
        thread::sleep(Duration::from_millis(pause));
        pause = SEE_AGAIN.min(pause.saturating_mul(2));
        if !wait.goes_on() {
            return false;
        }
    }
    true
}
