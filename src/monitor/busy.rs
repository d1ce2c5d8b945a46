//! A lock that is busy while this worker has something to tell: when to come back to it.
//!
//! Its holder may be in a callback for long, so a worker comes back more and more rarely, and earlier
//! only if the holder dies, which its pidfd says.

use core::cell::Cell;

use ngx::ffi::ngx_msec_t;

use super::schedule::{retry_after, SOON};
use crate::config::Conf;
use crate::delivery::Blocked;
use crate::nginx::log::Log;
use crate::nginx::main_thread::MainThreadCell;
use crate::nginx::watch::Watch;
use crate::nginx::zone::Zone;

/// The longest time until a worker comes back, milliseconds: with a heartbeat each second it wakes up less
/// than twice a second.
const RARELY: ngx_msec_t = 1280;
/// The same if it does not learn of the holder's death otherwise.
const UNWATCHED: ngx_msec_t = 80;

#[derive(Clone, Copy)]
struct Busy {
    blocked: Blocked,
    /// How long it last took to come back, milliseconds.
    pause: ngx_msec_t,
    /// The pid of the holder that is watched; 0 for none.
    watched: i32,
}

impl Busy {
    const NO: Busy = Busy { blocked: Blocked::NONE, pause: SOON, watched: 0 };
}

static BUSY: MainThreadCell<Cell<Busy>> = MainThreadCell::new(Cell::new(Busy::NO));
static HOLDER: MainThreadCell<Watch> = MainThreadCell::new(Watch::new());

/// What the event loop calls when the holder of the lock has died: it is to call `note_death`.
type OnDeath = fn();

/// The lock is busy: comes back later.
pub fn come_back(zone: Zone, conf: &Conf, on_death: OnDeath, log: Log) {
    let before = BUSY.get_or(Busy::NO);
    let mut busy = before;
    busy.blocked.look(zone, conf, log);
    let pid = |busy: Busy| busy.blocked.obstacle().map_or(0, |obstacle| obstacle.pid);
    let holder = pid(busy);
    if holder != pid(before) || holder == 0 {
        busy.pause = SOON;
        busy.unwatch();
    } else {
        busy.pause = busy.pause.saturating_mul(2);
        busy.watch(holder, on_death, log);
    }
    let longest = if busy.watched == 0 { UNWATCHED } else { RARELY };
    busy.pause = busy.pause.min(longest);
    BUSY.set(busy);
    retry_after(busy.pause);
}

/// How long to wait for what is left to do, milliseconds.
pub fn pause() -> ngx_msec_t {
    BUSY.get_or(Busy::NO).pause
}

/// The lock is not busy any more.
pub fn reset() {
    BUSY.get_or(Busy::NO).unwatch();
    BUSY.set(Busy::NO);
}

impl Busy {
    fn watch(&mut self, holder: i32, on_death: OnDeath, log: Log) {
        if self.watched != 0 {
            return;
        }
        if HOLDER.here().is_some_and(|watch| watch.open(holder, on_death, log).is_ok()) {
            self.watched = holder;
        }
    }

    fn unwatch(&mut self) {
        if core::mem::take(&mut self.watched) != 0 {
            if let Some(watch) = HOLDER.here() {
                watch.close();
            }
        }
    }
}

/// The event loop says that the holder has died. Whether there is something to do.
pub fn note_death() -> bool {
    let died = HOLDER.here().is_some_and(Watch::has_died);
    if BUSY.get_or(Busy::NO).watched == 0 || !died {
        return false;
    }
    reset();
    true
}
