//! A worker that found no place in the zone: it serves all the same, is noted in the zone as one that is
//! not counted, and registers as soon as there is room.

use std::cell::Cell;

use linux::process::is_gone;
use roster::Uncounted;

use super::guard::LockGuard;
use super::membership::member;
use super::registration::register;
use crate::config::Conf;
use crate::nginx::clock;
use crate::nginx::log::Log;
use crate::nginx::main_thread::MainThreadCell;
use crate::nginx::process;
use crate::nginx::zone::Zone;

/// This worker, if it is one.
#[derive(Clone, Copy)]
struct Own {
    zone: Zone<'static>,
    worker: Uncounted,
    /// The worker in whose place it is, if that one was counted.
    respawn_of: Option<i32>,
}

static UNCOUNTED: MainThreadCell<Cell<Option<Own>>> = MainThreadCell::new(Cell::new(None));

/// What came of an attempt to register.
pub enum Attempt {
    /// There is no room, or no need.
    None,
    /// There may be room, but another process holds the lock, or an event is to be dispatched first, by
    /// workers that are counted.
    Busy,
    /// This worker is counted from now on; its start is recorded and is to be told.
    Registered(LockGuard<'static>),
}

/// The worker in whose place this one is, if that was counted: nobody knows of another.
pub fn respawn_of(zone: Zone) -> Option<i32> {
    let last = process::replaced()?;
    zone.roster().uncounted().all(|w| w.pid != last).then_some(last)
}

/// This worker serves without a place in the zone.
pub fn begin(zone: Zone) {
    let respawn_of = respawn_of(zone);
    let worker = Uncounted {
        index: process::worker_index(),
        pid: process::pid(),
        since_boot: clock::now().since_boot,
    };
    zone.roster().note_uncounted(worker);
    // SAFETY: a worker keeps its cycle until it exits; one that is single is counted.
    let zone = unsafe { zone.keep() };
    UNCOUNTED.set(Some(Own { zone, worker, respawn_of }));
}

/// Whether it does.
pub fn is_this() -> bool {
    own().is_some()
}

/// It has a place now, or ends.
pub fn end() {
    if let Some(Own { zone, worker, .. }) = own() {
        zone.roster().end_uncounted(worker);
    }
    UNCOUNTED.set(None);
}

/// A child that a callback forks has the parent's memory, but is not the worker.
fn own() -> Option<Own> {
    UNCOUNTED.get_or(None).filter(|own| own.worker.pid == process::pid())
}

/// How many workers live that are not counted in a zone.
pub fn count(zone: Zone) -> usize {
    let roster = zone.roster();
    roster.uncounted().filter(|w| !is_gone(w.pid, w.since_boot)).count()
}

/// Registers this worker if there is room now, without waiting for the lock. One whose generation is
/// over can't be counted any more: a generation ends once.
pub fn try_register(conf: &'static Conf, log: Log<'static>) -> Attempt {
    let Some(Own { zone, respawn_of, .. }) = own() else {
        return Attempt::None;
    };
    let roster = zone.roster();
    let can = || roster.has_room() && roster.generation(conf.generation.get()).is_some();
    if !can() {
        return Attempt::None;
    }
    let Some(mut guard) = LockGuard::try_take(zone, conf, log) else {
        return Attempt::Busy;
    };
    if roster.pending().is_some() {
        return Attempt::Busy;
    }
    // Under the lock nobody else changes anything: look again.
    if !can() {
        return Attempt::None;
    }
    register(&mut guard, zone, conf, respawn_of, log);
    if member().is_none() {
        return Attempt::None;
    }
    end();
    log!(log, Notice, "there is room now, process {} is counted", process::pid());
    Attempt::Registered(guard)
}
