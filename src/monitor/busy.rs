//! A lock that is busy while this worker has something to tell: when to come back to it.
//!
//! Who holds it may be in a callback for long, so a worker comes back more and more rarely, and earlier
//! only if the holder dies, which its pidfd says.

use core::cell::Cell;

use ngx::ffi::{ngx_event_t, ngx_msec_t};

use super::schedule::{retry_after, SOON};
use crate::config::Conf;
use crate::delivery::Blocked;
use crate::nginx::log::Log;
use crate::nginx::pidfd::Pidfd;
use crate::nginx::process::PerProcess;
use crate::nginx::zone::Zone;

/// The longest time until a worker comes back, milliseconds: with a heartbeat each second it wakes up less
/// than twice a second.
const RARELY: ngx_msec_t = 1280;
/// The same if it does not learn of the holder's death otherwise.
const UNWATCHED: ngx_msec_t = 80;

struct Busy {
    blocked: Cell<Blocked>,
    /// How long it last took to come back, milliseconds.
    pause: Cell<ngx_msec_t>,
    /// Who is watched; 0 for nobody.
    watched: Cell<i32>,
}

static BUSY: PerProcess<Busy> = PerProcess(Busy {
    blocked: Cell::new(Blocked::NONE),
    pause: Cell::new(SOON),
    watched: Cell::new(0),
});
static mut HOLDER: Pidfd = Pidfd::new();

/// What the event loop calls when the holder of the lock has died: it is to call `note_death`.
type OnDeath = unsafe extern "C" fn(*mut ngx_event_t);

/// The lock is busy: comes back later.
pub fn come_back(zone: Zone, conf: &Conf, on_death: OnDeath, log: Log) {
    let before = BUSY.blocked.get();
    let mut blocked = before;
    blocked.look(zone, conf, log);
    BUSY.blocked.set(blocked);
    let pid = |blocked: Blocked| blocked.obstacle().map_or(0, |obstacle| obstacle.pid);
    let holder = pid(blocked);
    if holder != pid(before) || holder == 0 {
        BUSY.pause.set(SOON);
        unwatch();
    } else {
        BUSY.pause.set(2 * BUSY.pause.get());
        watch(holder, on_death, log);
    }
    let longest = if BUSY.watched.get() == 0 { UNWATCHED } else { RARELY };
    BUSY.pause.set(BUSY.pause.get().min(longest));
    retry_after(BUSY.pause.get());
}

/// How long to wait for what is left to do, milliseconds.
pub fn pause() -> ngx_msec_t {
    BUSY.pause.get()
}

/// The lock is not busy any more.
pub fn reset() {
    BUSY.blocked.set(Blocked::NONE);
    BUSY.pause.set(SOON);
    unwatch();
}

fn watch(holder: i32, on_death: OnDeath, log: Log) {
    if BUSY.watched.get() != 0 {
        return;
    }
    // SAFETY: a static that watches nobody, and the event loop is this thread's.
    if unsafe { Pidfd::open(&raw mut HOLDER, holder, on_death, log) }.is_ok() {
        BUSY.watched.set(holder);
    }
}

fn unwatch() {
    if BUSY.watched.take() != 0 {
        // SAFETY: a static, and the event loop is this thread's.
        unsafe { Pidfd::close(&raw mut HOLDER) };
    }
}

/// The event loop says that the holder has died. Whether there is something to do.
pub fn note_death() -> bool {
    let holder = &raw const HOLDER;
    // SAFETY: a static of this module, and the event loop is this thread's.
    let died = unsafe { (*holder).has_died() };
    if BUSY.watched.get() == 0 || !died {
        return false;
    }
    reset();
    true
}
