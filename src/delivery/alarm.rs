//! What nginx's error log says of what an operator has to know, whatever `on` lines there are.

use roster::{Roster, Transition};

use crate::nginx::clock;
use crate::nginx::log::Log;

/// Logs a transition that is about to be recorded, if it is one of those.
pub fn report(roster: Roster<'_>, transition: &Transition, log: Log) {
    let worker = |slot: u32| roster.worker(slot);
    match *transition {
        Transition::MasterLost { pid } => log!(
            log,
            Error,
            "the master process {pid} is gone: nobody replaces workers that die, and nginx can't be reloaded"
        ),
        Transition::WorkerHung { slot } => {
            if let Some(w) = worker(slot) {
                let ago = clock::monotonic().saturating_sub(w.beat);
                log!(log, Warn, "worker {} missed its heartbeat, the last was {ago} ms ago", w.pid);
            }
        }
        Transition::WorkerStuck { slot, connections } => {
            if let Some(w) = worker(slot) {
                let since = w.draining_since.unwrap_or_default();
                let seconds = clock::monotonic().saturating_sub(since) / 1000;
                log!(
                    log,
                    Warn,
                    "worker {} has been draining for {seconds}s, connections: {connections}",
                    w.pid
                );
            }
        }
        _ => {}
    }
}
