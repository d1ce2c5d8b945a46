//! A configuration is loaded: at the start of a node, at a reload, or in vain.

use std::thread;
use std::time::Duration;

use ngx::ffi::ngx_cycle_t;
use roster::{Event, Kind, Mode, Transition};

use super::{environment, former};
use crate::actions;
use crate::config::Conf;
use crate::delivery::{member, oom, register, set_member, LockGuard, Occasion};
use crate::monitor::{self, ThisProcess};
use crate::nginx::clock;
use crate::nginx::cycle::Cycle;
use crate::nginx::load_log;
use crate::nginx::log::Log;
use crate::nginx::process::{self, Load};
use crate::nginx::zone::{self, Zone};

/// A configuration was loaded: `init_module`. All that can fail in a reload came before.
///
/// # Safety
/// `cycle` is what nginx calls `init_module` with.
pub unsafe fn loaded(cycle: Cycle<'static>) {
    // SAFETY: the caller vouches for the cycle.
    let (load, old) = unsafe { (process::load(cycle), cycle.old()) };
    let (log, new_conf) = (Log::of(cycle), Conf::of(cycle));
    let old_conf = old.filter(|_| load != Load::Cold).and_then(Conf::of);
    if let Some(conf) = Conf::of_module(cycle) {
        conf.loaded.set(true);
    }
    // Nothing of what was logged kept the load from succeeding.
    load_log::end();
    if load == Load::Test {
        return;
    }
    if load == Load::SingleReload {
        // What the event loop of this same process has begun holds the lock.
        drop(monitor::stop());
    }
    let old = old_conf.and_then(|conf| Some((conf, conf.zone()?)));
    let new = new_conf.and_then(|conf| Some((conf, conf.zone()?)));
    if let Some((conf, zone)) = new {
        if conf.callbacks.iter().any(|on| on.callback.is_program()) {
            actions::prepare();
        }
        environment::remember(cycle, conf);
        let workers = process::worker_processes(cycle, load);
        let before = old.filter(|(_, old_zone)| *old_zone == zone).map(|(conf, _)| conf);
        commit(zone, before, conf, load, workers, log);
    }
    if let Some((conf, zone)) = old.filter(|(_, zone)| new.is_none_or(|(_, new)| new != *zone)) {
        leave(zone, conf, load, new_conf, log);
        if load == Load::Reload {
            former::keep(conf, zone, log);
        }
    }
}

/// A new generation begins.
fn commit<'a>(
    zone: Zone<'a>,
    before: Option<&'a Conf>,
    conf: &'static Conf,
    load: Load,
    workers: u32,
    log: Log<'a>,
) {
    if load == Load::Reload {
        await_newborn(zone);
    }
    // Until it has, the configuration before it is in force.
    let Some(mut guard) = LockGuard::take(zone, before.unwrap_or(conf), log, Occasion::Begin)
    else {
        zone.roster().set_loading_since(None);
        return;
    };
    let losses = known_to_master(&guard, load);
    guard.commit(losses, Mode::Blocking);

    guard.use_conf(conf);
    // From the first moment: a worker may be killed for memory before any has settled.
    oom::begin(guard.roster());
    let generation = guard.roster().current_generation().saturating_add(1);
    conf.generation.set(generation);
    let start = Transition::MasterStart {
        pid: process::pid(),
        workers,
        began: conf.began,
        reload: load != Load::Cold,
    };
    if let Err(full) = guard.record(start) {
        conf.generation.set(0);
        guard.roster().retire_all();
        log!(
            log,
            Error,
            "{full}, this one is not told about: raise the size in the \"zone\" \
             directive"
        );
    } else {
        zone::remember_generation(generation);
    }
    guard.roster().set_loading_since(None);
    guard.commit([], Mode::Blocking);
    if load == Load::SingleReload {
        relieve(guard, zone, before, conf, log);
    }
}

/// The losses that this process records as the master that reloads, if it is one.
fn known_to_master(guard: &LockGuard<'_>, load: Load) -> Vec<Transition> {
    match load {
        Load::Reload => guard.roster().lost_to_master(&ThisProcess::PLAIN),
        _ => Vec::new(),
    }
}

/// Workers that nginx has just forked, at a reload before this one or in place of the dead, begin
/// before their generation retires. Otherwise, with no other worker, it would be over before they
/// come to begin, and they would serve uncounted. They take some milliseconds; no longer than
/// `NEWBORN` after the fork, since one that is stopped must not hold up the reload.
fn await_newborn(zone: Zone) {
    let roster = zone.roster();
    let until = clock::monotonic().saturating_add(NEWBORN);
    while clock::monotonic() < until {
        let now = clock::now();
        // Others had the pid before it was forked.
        let has_begun = |(pid, forked): (i32, u64)| {
            let age = now.since_boot.saturating_sub(forked) as i64;
            let start = |event: &Event| {
                event.kind == Kind::WorkerStart
                    && event.pid == pid
                    && event.time >= now.wall.saturating_sub(age)
            };
            roster.workers().any(|w| w.pid == pid && w.since_boot >= forked)
                || roster.uncounted().any(|w| w.pid == pid && w.since_boot >= forked)
                || roster.history().any(|(event, _)| start(&event))
        };
        let young = now.since_boot.saturating_sub(NEWBORN);
        if process::workers_forked_since(young).into_iter().all(has_begun) {
            return;
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// How long a reload waits for a worker to begin after it was forked, milliseconds.
const NEWBORN: u64 = 1000;

/// With `master_process off` a reload makes the one process the worker of the new generation.
fn relieve<'a>(
    mut guard: LockGuard<'a>,
    zone: Zone<'_>,
    before: Option<&'a Conf>,
    conf: &'static Conf,
    log: Log,
) {
    let old = member();
    set_member(None);
    register(&mut guard, zone, conf, None, log);
    guard.commit([], Mode::Blocking);
    if let (Some(old), Some(before)) = (old, before) {
        // A worker's end is told by the configuration it was started with.
        guard.use_conf(before);
        let exit = vec![Transition::WorkerExit { slot: old.slot, stopping: false }];
        guard.commit(exit, Mode::Blocking);
    }
    drop(guard);
    monitor::start(conf, true, log);
}

/// A configuration begins to be read.
///
/// # Safety
/// `cycle` is the one that is being made of it, with its pool.
pub unsafe fn load_begins(cycle: *mut ngx_cycle_t) {
    if let Some((_, zone)) = in_force() {
        // SAFETY: `old` is not kept; the caller vouches for the other one.
        unsafe {
            if let Some(old) = Cycle::current() {
                load_log::begin(cycle, old);
            }
        }
        zone.roster().set_loading_since(Some(clock::now().wall));
    }
}

/// The configuration that a load is to replace, and its zone.
fn in_force<'a>() -> Option<(&'a Conf, Zone<'a>)> {
    if !process::is_loading() {
        return None;
    }
    // SAFETY: until a load succeeds, nginx's global cycle is the one before it.
    let conf = unsafe { Conf::in_force() }?;
    Some((conf, conf.zone()?))
}

/// A configuration that began to be read at `began` came to nothing: its cycle's pool is destroyed
/// before `init_module`. The one before it goes on.
pub fn load_failed(began: u64) {
    let error = load_log::end();
    let Some((conf, zone)) = in_force() else {
        return;
    };
    zone.roster().set_loading_since(None);
    if conf.generation.get() == 0 {
        return;
    }
    let log = Log::current();
    // With `master_process off` what the event loop has begun holds the lock.
    let Some(mut guard) =
        monitor::take_over().or_else(|| LockGuard::take(zone, conf, log, Occasion::Begin))
    else {
        return;
    };
    guard.roster().note_load_error(error.as_ref());
    let transitions = guard.roster().failed_load(began, &ThisProcess::PLAIN);
    guard.commit(transitions, Mode::Blocking);
}

/// The node leaves a zone: the new configuration has another, or none.
fn leave(zone: Zone, conf: &Conf, load: Load, new: Option<&Conf>, log: Log) {
    match new {
        Some(new) => log!(
            log,
            Notice,
            "the zone has changed, a new history starts with generation {}",
            new.generation.get()
        ),
        None => log!(log, Notice, "no longer configured"),
    }
    let Some(mut guard) = LockGuard::take(zone, conf, log, Occasion::Begin) else {
        return;
    };
    let mut transitions = known_to_master(&guard, load);
    guard.roster().retire_all();
    guard.roster().set_loading_since(None);
    if load == Load::SingleReload {
        // This process is the only one that ever registered there; by now it may have done so in
        // another zone.
        transitions.extend(
            guard
                .roster()
                .workers()
                .filter(|w| w.pid == process::pid())
                .map(|w| Transition::WorkerExit { slot: w.slot, stopping: false }),
        );
        if new.is_none() {
            set_member(None);
        }
    }
    guard.commit(transitions, Mode::Blocking);
}
