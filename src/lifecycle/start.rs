//! A worker begins.

use std::cell::Cell;

use roster::{Counts, Event, Mode};

use super::marks;
use crate::actions::Handler;
use crate::config::Conf;
use crate::delivery::{member, register, registration, uncounted, LockGuard, Occasion};
use crate::monitor::{self, ThisProcess};
use crate::nginx::clock;
use crate::nginx::cycle::Cycle;
use crate::nginx::log::Log;
use crate::nginx::main_thread::MainThreadCell;
use crate::nginx::process;
use crate::nginx::zone::Zone;

/// The process that has begun as a worker last: this one, or one that it was forked from.
static STARTED: MainThreadCell<Cell<i32>> = MainThreadCell::new(Cell::new(0));

/// A worker begins: `init_process`, or before it Lua code that calls `on_init_worker_by_lua`; the
/// second of them finds it registered.
pub fn worker_started(cycle: Cycle<'static>) {
    if STARTED.replace_or(process::pid(), 0) == process::pid() {
        return;
    }
    let (log, conf) = (Log::of(cycle), Conf::of(cycle));
    if let Some((conf, zone)) = conf.and_then(|conf| Some((conf, conf.zone()?))) {
        start(zone, conf, log);
        if process::is_terminated() || process::is_told_to_quit() {
            monitor::turn_soon(log);
        }
    }
}

fn start(zone: Zone, conf: &'static Conf, log: Log) {
    if conf.generation.get() == 0 {
        uncounted::begin(zone);
        return;
    }
    let Some(mut guard) = LockGuard::take(zone, conf, log, Occasion::Begin) else {
        return;
    };
    let losses = guard.roster().lost_before(&ThisProcess::PLAIN);
    guard.commit(losses, Mode::Blocking);
    let respawn_of = uncounted::respawn_of(zone);
    register(&mut guard, zone, conf, respawn_of, log);
    guard.commit([], Mode::Blocking);
    let alone = guard.roster().generations().count() < 2;
    drop(guard);
    if member().is_none() {
        uncounted::begin(zone);
    }
    monitor::start(conf, alone, log);
}

/// Tells the start of this worker, which is registered, to a handler in a VM that was not told it then:
/// under the lock as everything, and counting the workers that were told in this VM before.
pub fn tell_start_to(handler: &Handler, conf: &Conf) {
    let log = Log::current();
    let Some((event, member)) = registration::start().zip(member()) else {
        return;
    };
    let Some(mut guard) = LockGuard::take(member.zone, conf, log, Occasion::Begin) else {
        return;
    };
    // Nothing is told before what came before it.
    guard.commit([], Mode::Blocking);
    let (roster, since) = (guard.roster(), clock::microseconds());
    let Counts { n_prev, n_next, n_older, .. } = roster.counts(member.generation);
    roster.mark(member.slot, marks::started(handler.vm));
    let n_mine = marks::count(roster, member.generation, marks::started(handler.vm), true);
    roster.callback_begins(event.kind, since / 1000);
    let event = Event { n_prev, n_mine, n_next, n_older, ..event };
    handler.run(&event, conf.cycle_ptr(), &conf.lua.vms, roster, log);
    roster.callback_over(event.kind, clock::microseconds().saturating_sub(since));
}
