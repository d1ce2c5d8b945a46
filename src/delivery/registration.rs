//! How a worker gets its place in the roster.

use std::cell::Cell;

use roster::{Event, Full, Transition};

use super::guard::LockGuard;
use super::membership::{set_member, Member};
use crate::config::Conf;
use crate::nginx::log::Log;
use crate::nginx::main_thread::MainThreadCell;
use crate::nginx::process;
use crate::nginx::timer;
use crate::nginx::zone::Zone;

/// The start of the worker that this process is, as it was recorded.
static START: MainThreadCell<Cell<Option<Event>>> = MainThreadCell::new(Cell::new(None));

/// The start of this worker, as it was recorded.
pub fn start() -> Option<Event> {
    START.get_or(None)
}

/// Makes this process a member of the roster, unless there is no room.
pub fn register(
    guard: &mut LockGuard<'_>,
    zone: Zone,
    conf: &Conf,
    respawn_of: Option<i32>,
    log: Log,
) {
    let pid = process::pid();
    let generation = conf.generation.get();
    let heartbeat_timeout = conf.interval().saturating_add(conf.failed()) as u64;
    let heartbeat_timeout = heartbeat_timeout.saturating_add(timer::delay());
    let recorded = guard.record(Transition::WorkerStart {
        generation,
        pid,
        index: process::worker_index(),
        process_slot: process::slot(),
        heartbeat_timeout: u32::try_from(heartbeat_timeout).unwrap_or(u32::MAX),
        respawn_of,
    });
    match recorded {
        Ok(recorded) => {
            let slot = recorded.slot.unwrap_or_default();
            let generation_slot = recorded.generation_slot;
            let registration = recorded.event.seq;
            // SAFETY: a worker keeps its cycle until it exits. A single process that leaves the zone gets
            // another place, or none, before that is unmapped (`lifecycle::loaded`).
            let zone = unsafe { zone.keep() };
            let member = Member { zone, generation, slot, registration, generation_slot, pid };
            set_member(Some(member));
            START.set(Some(recorded.event));
        }
        Err(Full::Workers) => log!(
            log,
            Error,
            "no room for another worker, process {pid} serves but is not counted: \
             raise the size in the \"zone\" directive"
        ),
        Err(_) => log!(log, Error, "process {pid} is not counted: its generation is over already"),
    }
}
