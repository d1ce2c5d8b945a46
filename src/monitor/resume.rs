//! What the event loop has begun to tell and not finished: it comes back to that.

use std::cell::RefCell;

use ngx::ffi::ngx_msec_t;
use roster::{Mode, Transition};

use super::drain;
use super::schedule::{retry_after, Rhythm, AT_ONCE, SOON};
use crate::delivery::{Hold, Parked, Resumed};
use crate::nginx::clock;
use crate::nginx::process::PerProcess;

/// What the event loop has begun and not finished.
static SHIFT: PerProcess<RefCell<Option<Parked<'static>>>> = PerProcess(RefCell::new(None));

/// Whether something is.
pub fn is_under_way() -> bool {
    SHIFT.borrow().is_some()
}

/// Goes on with what was begun and with these transitions, and comes back later if that is not all.
pub fn work(mut hold: Hold<'static>, transitions: impl IntoIterator<Item = Transition>) {
    if !hold.run(transitions, Mode::NonBlocking) {
        // Not 0: nginx runs a timer that is due again before it looks at its connections.
        let soon = if hold.is_awaiting() { SOON } else { AT_ONCE };
        park(hold.park(), soon);
    }
}

fn park(parked: Parked<'static>, soon: ngx_msec_t) {
    SHIFT.replace(Some(parked));
    retry_after(soon);
}

/// Comes back to what was begun, if there is such and it is time.
pub fn come_back() {
    let Some(mut parked) = SHIFT.take() else {
        return;
    };
    if parked.is_awaiting() {
        park(parked, SOON);
        return;
    }
    match parked.try_resume() {
        Resumed::Held(hold) => work(hold, []),
        Resumed::Busy(parked) => park(parked, AT_ONCE),
        Resumed::Lost(transitions) => give_back(&transitions),
    }
}

/// Hands over what the event loop had begun, finished. None if there is nothing, or others have finished
/// it.
pub fn take_over() -> Option<Hold<'static>> {
    match SHIFT.take()?.resume() {
        Resumed::Held(mut hold) => {
            hold.run([], Mode::Blocking);
            Some(hold)
        }
        Resumed::Lost(transitions) => {
            give_back(&transitions);
            None
        }
        // Only who does not wait finds the lock busy.
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
                Rhythm::update(|rhythm| rhythm.stuck_at = clock::monotonic());
            }
            _ => {}
        }
    }
}
