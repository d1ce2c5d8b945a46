//! What the event loop has begun to tell and not finished: it comes back to that.

use std::cell::RefCell;

use ngx::ffi::ngx_msec_t;
use roster::{Mode, Transition};

use super::drain;
use super::schedule::{retry_after, Schedule, AT_ONCE, SOON};
use crate::delivery::{LockGuard, Resumed, Suspended};
use crate::nginx::clock;
use crate::nginx::main_thread::MainThreadCell;

/// What the event loop has begun and not finished.
static SUSPENDED: MainThreadCell<RefCell<Option<Suspended<'static>>>> =
    MainThreadCell::new(RefCell::new(None));

/// Whether something is.
pub fn is_under_way() -> bool {
    SUSPENDED.with(|suspended| suspended.is_some()).unwrap_or(false)
}

/// Goes on with what was begun and with these transitions, and comes back later if that is not all.
pub fn work(mut guard: LockGuard<'static>, transitions: impl IntoIterator<Item = Transition>) {
    if !guard.commit(transitions, Mode::NonBlocking) {
        // Not 0: nginx runs a timer that is due again before it looks at its connections.
        let soon = if guard.is_awaiting() { SOON } else { AT_ONCE };
        suspend(guard.suspend(), soon);
    }
}

fn suspend(suspended: Suspended<'static>, soon: ngx_msec_t) {
    SUSPENDED.with(|place| place.replace(suspended));
    retry_after(soon);
}

fn take() -> Option<Suspended<'static>> {
    SUSPENDED.with(Option::take).flatten()
}

/// Comes back to what was begun, if there is such and it is time.
pub fn come_back() {
    let Some(mut suspended) = take() else {
        return;
    };
    if suspended.is_awaiting() {
        suspend(suspended, SOON);
        return;
    }
    match suspended.try_resume() {
        Resumed::Held(guard) => work(guard, []),
        Resumed::Busy(suspended) => suspend(suspended, AT_ONCE),
        Resumed::Lost(transitions) => give_back(&transitions),
    }
}

/// Hands over what the event loop had begun, finished. None if there is nothing, or others have finished
/// it.
pub fn take_over() -> Option<LockGuard<'static>> {
    match take()?.resume() {
        Resumed::Held(mut guard) => {
            guard.commit([], Mode::Blocking);
            Some(guard)
        }
        Resumed::Lost(transitions) => {
            give_back(&transitions);
            None
        }
        // Only a process that does not wait finds the lock busy.
        Resumed::Busy(_) => None,
    }
}

/// What was to be told of this worker itself is still to be told. What was to be told of others is seen
/// again.
fn give_back(transitions: &[Transition]) {
    for transition in transitions {
        match transition {
            Transition::WorkerDraining { .. } => drain::not_told(),
            Transition::WorkerStuck { .. } => {
                Schedule::update(|schedule| schedule.stuck_at = clock::monotonic());
            }
            _ => {}
        }
    }
}
