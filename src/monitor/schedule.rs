//! When this worker comes back to what: its schedule, and the timer of all that is to be done between two
//! heartbeats.

use std::cell::Cell;

use ngx::ffi::ngx_msec_t;

use crate::nginx::log::Log;
use crate::nginx::main_thread::MainThreadCell;
use crate::nginx::timer::Timer;

/// How soon to come back to a lock that is busy, at first, or a program that runs, milliseconds.
pub const SOON: ngx_msec_t = 10;
/// How soon to come back to a death whose cause is not known yet, milliseconds.
pub const AT_ONCE: ngx_msec_t = 1;

/// The schedule of this worker; all times are of the monotonic clock, milliseconds, 0 for never.
#[derive(Clone, Copy)]
pub struct Schedule {
    /// 0 in a process without event loop.
    pub interval: u64,
    /// How far a heartbeat may overrun.
    pub failed: u64,
    /// The last heartbeat.
    pub beat: u64,
    /// When to look again at workers that seemed hung.
    pub confirm_at: u64,
    /// When to look again which peers are to be watched.
    pub tend_at: u64,
    /// When to tell that this worker drains for too long.
    pub stuck_at: u64,
    /// What `retry_after` comes back to.
    pub on_retry: Option<fn()>,
}

impl Schedule {
    pub const NONE: Schedule = Schedule {
        interval: 0,
        failed: 0,
        beat: 0,
        confirm_at: 0,
        tend_at: 0,
        stuck_at: 0,
        on_retry: None,
    };

    /// That of this process.
    pub fn get() -> Schedule {
        SCHEDULE.get_or(Schedule::NONE)
    }

    /// This process has it from here on.
    pub fn set(self) {
        SCHEDULE.set(self);
    }

    /// Changes the schedule.
    pub fn update(change: impl FnOnce(&mut Schedule)) {
        let mut schedule = Schedule::get();
        change(&mut schedule);
        schedule.set();
    }
}

/// The schedule of this process.
static SCHEDULE: MainThreadCell<Cell<Schedule>> = MainThreadCell::new(Cell::new(Schedule::NONE));

static RETRY: MainThreadCell<Timer> = MainThreadCell::new(Timer::new());

/// Comes back after a time, or earlier if that is already arranged.
pub fn retry_after(after: ngx_msec_t) {
    let Some(on_retry) = Schedule::get().on_retry else {
        return;
    };
    if !RETRY.is_due_within(after) {
        RETRY.arm(after, on_retry, Log::current());
    }
}

/// Comes back after a time, whatever was arranged before.
pub fn arm_retry(after: ngx_msec_t, handler: fn(), log: Log) {
    RETRY.arm(after, handler, log);
}

/// Takes the timer out of the event loop.
pub fn disarm_retry() {
    RETRY.disarm();
}
