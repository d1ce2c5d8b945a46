//! Programs that no process waits for, until it is known how they ended.

use std::cell::{Cell, RefCell};

use super::program::Running;
use crate::nginx::main_thread::MainThreadCell;
use crate::nginx::zone::Zone;

static PROGRAMS: MainThreadCell<RefCell<Vec<Running>>> =
    MainThreadCell::new(RefCell::new(Vec::new()));

type Wake = Option<fn()>;

/// Lets the event loop come back to `reap`, in a process that has one.
static WAKE: MainThreadCell<Cell<Wake>> = MainThreadCell::new(Cell::new(None));

/// Registers what lets the event loop come back to `reap`.
pub fn set_wake(wake: fn()) {
    WAKE.set(Some(wake));
}

/// Keeps a program that no process waits for, until it is known how it ended. A master has no event
/// loop for that: there it is the next event that asks.
pub fn adopt(running: Running, zone: Zone) {
    reap(|| Some(zone));
    PROGRAMS.with(|programs| programs.push(running));
    if let Some(wake) = WAKE.get_or(None) {
        wake();
    }
}

/// Counts the programs that have failed in a zone, which is asked for only if there are programs, and
/// forgets those that have ended; true if some have not.
pub fn reap<'a>(zone: impl FnOnce() -> Option<Zone<'a>>) -> bool {
    let left = PROGRAMS.with(|programs| {
        if programs.is_empty() {
            return false;
        }
        let zone = zone();
        // Those of the master are its own.
        programs.retain(|program| !program.is_inherited());
        programs.retain_mut(|program| match program.poll() {
            None => true,
            Some(succeeded) => {
                if let Some(zone) = zone.filter(|_| !succeeded) {
                    zone.roster().callback_failed(program.kind);
                }
                false
            }
        });
        !programs.is_empty()
    });
    left.unwrap_or(false)
}

/// Waits until no start of a program runs in this process's memory any more: code of the module may be
/// unloaded after that.
pub fn settle() {
    PROGRAMS.with(|programs| {
        programs.iter_mut().filter(|program| !program.is_inherited()).for_each(Running::settle);
    });
}
