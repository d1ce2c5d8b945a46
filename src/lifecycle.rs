//! The story: what happens when a node starts, reloads, gains and loses workers, and stops.

use std::cell::Cell;
use std::ffi::{CStr, CString};
use std::thread;
use std::time::Duration;

use ngx::ffi::{ngx_core_conf_t, ngx_core_module, ngx_cycle, ngx_cycle_t, ngx_str_t};
use roster::{Counts, Event, Full, Kind, Mode, Plan, Transition, WorkerView};

use crate::callback::{self, Handler};
use crate::clock;
use crate::conf::Conf;
use crate::former;
use crate::hold::{Hold, Occasion};
use crate::log::Log;
use crate::losses::ThisProcess;
use crate::lua::exits;
use crate::oom;
use crate::order;
use crate::process::{self, Load, PerProcess};
use crate::uncounted;
use crate::watch;
use crate::zone::{self, Zone};

/// A worker's place in the roster.
#[derive(Clone, Copy)]
pub struct Member {
    /// The zone it is registered in.
    pub zone: Zone,
    /// Its generation.
    pub generation: u64,
    /// Its slot.
    pub slot: u32,
    /// The number of its `worker_start`: a slot is given to others.
    pub registration: u64,
    /// The slot of its generation.
    pub generation_slot: u32,
    /// Its process. A child that a callback forks has the parent's memory, but is not the worker.
    pid: i32,
}

static MEMBER: PerProcess<Cell<Option<Member>>> = PerProcess(Cell::new(None));

/// The start of the worker that this process is, as it was recorded.
static START: PerProcess<Cell<Option<Event>>> = PerProcess(Cell::new(None));

/// The process that has begun as a worker last: this one, or one that it was forked from.
static STARTED: PerProcess<Cell<i32>> = PerProcess(Cell::new(0));

impl Member {
    /// Its record, unless the slot is no longer its own.
    pub fn view(&self) -> Option<WorkerView> {
        self.zone.roster().registered(self.slot, self.registration)
    }
}

/// This process's place in the roster, if it is a registered worker.
pub fn member() -> Option<Member> {
    MEMBER.get().filter(|member| member.pid == process::pid())
}

/// This worker's heartbeat, if it is one: one store.
pub fn beat() {
    if let Some(member) = MEMBER.get() {
        member.zone.roster().beat(member.slot, member.registration, clock::monotonic());
    }
}

/// A configuration was loaded: `init_module`. All that can fail in a reload came before.
///
/// # Safety
/// `cycle` is what nginx called `init_module` with.
pub unsafe fn loaded(cycle: *const ngx_cycle_t) {
    // SAFETY: the cycle is live, and so is the one before it until nginx has called every
    // init_module.
    let (load, log, old_conf, new_conf) = unsafe {
        let load = process::load(cycle);
        let old = if load == Load::Cold { core::ptr::null() } else { (*cycle).old_cycle };
        (load, Log::of(cycle), Conf::of(old), Conf::of(cycle))
    };
    // SAFETY: as above.
    if let Some(conf) = unsafe { Conf::of_module(cycle) } {
        conf.loaded.set(true);
    }
    if load == Load::Test {
        return;
    }
    if load == Load::SingleReload {
        // What the event loop of this same process has begun holds the lock.
        drop(watch::stop());
    }
    let old = old_conf.and_then(|conf| Some((conf, zone::of_conf(conf)?)));
    let new = new_conf.and_then(|conf| Some((conf, zone::of_conf(conf)?)));
    if let Some((conf, zone)) = new {
        if conf.callbacks.iter().any(|on| on.callback.is_program()) {
            callback::prepare();
        }
        // SAFETY: as above.
        let workers = unsafe {
            remember_environment(cycle, conf);
            process::worker_processes(cycle, load)
        };
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
    zone: Zone,
    before: Option<&'a Conf>,
    conf: &'a Conf,
    load: Load,
    workers: u32,
    log: Log,
) {
    if load == Load::Reload {
        await_newborn(zone);
    }
    // Until it has, the configuration before it is in force.
    let Some(mut hold) = Hold::take(zone, before.unwrap_or(conf), log, Occasion::Begin) else {
        zone.roster().set_loading_since(0);
        return;
    };
    let losses = known_to_master(&hold, load);
    hold.run(losses, Mode::Blocking);

    hold.use_conf(conf);
    // From the first moment: a worker may be killed for memory before any has settled.
    oom::begin(hold.roster());
    let generation = hold.roster().current_generation() + 1;
    conf.generation.set(generation);
    let start = Transition::MasterStart {
        pid: process::pid(),
        workers,
        began: conf.began,
        reload: load != Load::Cold,
    };
    if let Err(full) = hold.record(start) {
        conf.generation.set(0);
        hold.roster().retire_all();
        log!(
            log,
            Error,
            "worker_manager: {full}, this one is not told about: raise the size in the \"zone\" \
             directive"
        );
    } else {
        zone::remember_generation(generation);
    }
    hold.roster().set_loading_since(0);
    hold.run([], Mode::Blocking);
    if load == Load::SingleReload {
        relieve(hold, zone, before, conf, log);
    }
}

/// The losses that this process records as the master that reloads, if it is one.
fn known_to_master(hold: &Hold<'_>, load: Load) -> Vec<Transition> {
    match load {
        Load::Reload => hold.roster().lost_to_master(&ThisProcess::PLAIN),
        _ => Vec::new(),
    }
}

/// Workers that nginx has just forked, at a reload before this one or in place of the dead, begin
/// before their generation retires. Otherwise, with no other worker, it would be over before they
/// come to begin, and they would serve uncounted. They take some milliseconds; no longer than
/// `NEWBORN` after the fork, since one that is stopped must not hold up the reload.
fn await_newborn(zone: Zone) {
    let roster = zone.roster();
    let until = clock::monotonic() + NEWBORN;
    while clock::monotonic() < until {
        let now = clock::now();
        // Others had the pid before it was forked.
        let has_begun = |(pid, forked): (i32, u64)| {
            let age = now.since_boot.saturating_sub(forked) as i64;
            let start = |event: &Event| {
                event.kind == Kind::WorkerStart && event.pid == pid && event.time >= now.wall - age
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
fn relieve<'a>(mut hold: Hold<'a>, zone: Zone, before: Option<&'a Conf>, conf: &'a Conf, log: Log) {
    let old = member();
    MEMBER.set(None);
    register(&mut hold, zone, conf, None, log);
    hold.run([], Mode::Blocking);
    if let (Some(old), Some(before)) = (old, before) {
        // A worker's end is told by the configuration it was started with.
        hold.use_conf(before);
        let exit = vec![Transition::WorkerExit { slot: old.slot, stopping: false }];
        hold.run(exit, Mode::Blocking);
    }
    drop(hold);
    watch::start(conf, true, log);
}

/// A configuration begins to be read.
pub fn load_begins() {
    if let Some((_, zone)) = in_force() {
        zone.roster().set_loading_since(clock::now().wall);
    }
}

/// The configuration that a load is to replace, and its zone.
fn in_force() -> Option<(&'static Conf, Zone)> {
    if !process::is_loading() {
        return None;
    }
    // SAFETY: until a load succeeds, nginx's global cycle is the one before it, which is live.
    let conf = unsafe { Conf::of(ngx_cycle.cast()) }?;
    Some((conf, zone::of_conf(conf)?))
}

/// A configuration that began to be read at `began` came to nothing: its cycle's pool is destroyed
/// before `init_module`. The one before it goes on.
pub fn load_failed(began: u64) {
    let Some((conf, zone)) = in_force() else {
        return;
    };
    zone.roster().set_loading_since(0);
    if conf.generation.get() == 0 {
        return;
    }
    let log = Log::current();
    // With `master_process off` what the event loop has begun holds the lock.
    let Some(mut hold) =
        watch::take_over().or_else(|| Hold::take(zone, conf, log, Occasion::Begin))
    else {
        return;
    };
    let transitions = hold.roster().failed_load(began, &ThisProcess::PLAIN);
    hold.run(transitions, Mode::Blocking);
}

/// The node leaves a zone: the new configuration has another, or none.
fn leave(zone: Zone, conf: &Conf, load: Load, new: Option<&Conf>, log: Log) {
    match new {
        Some(new) => log!(
            log,
            Notice,
            "worker_manager: the zone has changed, a new history starts with generation {}",
            new.generation.get()
        ),
        None => log!(log, Notice, "worker_manager: no longer configured"),
    }
    let Some(mut hold) = Hold::take(zone, conf, log, Occasion::Begin) else {
        return;
    };
    let mut transitions = known_to_master(&hold, load);
    hold.roster().retire_all();
    hold.roster().set_loading_since(0);
    if load == Load::SingleReload {
        // This process is the only one that ever registered there; by now it may have done so in
        // another zone.
        transitions.extend(
            hold.roster()
                .workers()
                .filter(|w| w.pid == process::pid())
                .map(|w| Transition::WorkerExit { slot: w.slot, stopping: false }),
        );
        if new.is_none() {
            MEMBER.set(None);
        }
    }
    hold.run(transitions, Mode::Blocking);
}

/// A worker begins: `init_process`, or before it Lua code that calls `on_init_worker_by_lua`; the
/// second of them finds it registered.
///
/// # Safety
/// `cycle` is what nginx called `init_process` with.
pub unsafe fn worker_started(cycle: *const ngx_cycle_t) {
    if STARTED.replace(process::pid()) == process::pid() {
        return;
    }
    // SAFETY: the cycle is live.
    let (log, conf) = unsafe { (Log::of(cycle), Conf::of(cycle)) };
    if let Some((conf, zone)) = conf.and_then(|conf| Some((conf, zone::of_conf(conf)?))) {
        start(zone, conf, log);
        if process::is_terminated() || process::is_told_to_quit() {
            watch::turn_soon(log);
        }
    }
}

fn start(zone: Zone, conf: &'static Conf, log: Log) {
    if conf.generation.get() == 0 {
        uncounted::begin(zone);
        return;
    }
    let Some(mut hold) = Hold::take(zone, conf, log, Occasion::Begin) else {
        return;
    };
    let losses = hold.roster().lost_before(&ThisProcess::PLAIN);
    hold.run(losses, Mode::Blocking);
    let respawn_of = uncounted::respawn_of(zone);
    register(&mut hold, zone, conf, respawn_of, log);
    hold.run([], Mode::Blocking);
    let alone = hold.roster().generations().count() < 2;
    drop(hold);
    if member().is_none() {
        uncounted::begin(zone);
    }
    watch::start(conf, alone, log);
}

/// Tells the start of this worker, which is registered, to a handler in a VM that was not told it then:
/// under the lock as everything, and counting who was told in this VM before.
pub fn tell_start_to(handler: &Handler, conf: &Conf) {
    let log = Log::current();
    let Some((event, member)) = START.get().zip(member()) else {
        return;
    };
    let Some(mut hold) = Hold::take(member.zone, conf, log, Occasion::Begin) else {
        return;
    };
    // Nothing is told before what came before it.
    hold.run([], Mode::Blocking);
    let (roster, since) = (hold.roster(), clock::microseconds());
    let Counts { n_prev, n_next, n_older, .. } = roster.counts(member.generation);
    roster.mark(member.slot, exits::started(handler.vm));
    let n_mine = exits::count(roster, member.generation, exits::started(handler.vm), true);
    roster.callback_begins(event.kind, since / 1000);
    handler.run(&Event { n_prev, n_mine, n_next, n_older, ..event }, conf, roster, log);
    roster.callback_over(event.kind, clock::microseconds().saturating_sub(since));
}

/// Makes this process a member of the roster, unless there is no room.
pub fn register(hold: &mut Hold<'_>, zone: Zone, conf: &Conf, respawn_of: Option<i32>, log: Log) {
    let pid = process::pid();
    let generation = conf.generation.get();
    let patience = (conf.interval() + conf.failed()) as u64 + watch::timer_delay();
    let recorded = hold.record(Transition::WorkerStart {
        generation,
        pid,
        index: process::worker_index(),
        process_slot: process::slot(),
        patience: u32::try_from(patience).unwrap_or(u32::MAX),
        respawn_of,
    });
    match recorded {
        Ok(recorded) => {
            let slot = recorded.slot.unwrap_or_default();
            let generation_slot = recorded.generation_slot;
            let registration = recorded.event.seq;
            let member = Member { zone, generation, slot, registration, generation_slot, pid };
            MEMBER.set(Some(member));
            START.set(Some(recorded.event));
        }
        Err(Full::Workers) => log!(
            log,
            Error,
            "worker_manager: no room for another worker, process {pid} serves but is not counted: \
             raise the size in the \"zone\" directive"
        ),
        Err(_) => log!(
            log,
            Error,
            "worker_manager: process {pid} is not counted: its generation is over already"
        ),
    }
}

/// A worker ends in an orderly way: `exit_process`.
///
/// # Safety
/// `cycle` is what nginx called `exit_process` with.
pub unsafe fn worker_exited(cycle: *const ngx_cycle_t) {
    uncounted::end();
    let member = member();
    // Who is not counted, since the zone was full, has still to bury the others if it is the last.
    if member.is_none() && !process::is_orphan() {
        return;
    }
    // SAFETY: the cycle is live.
    let (log, conf) = unsafe { (Log::of(cycle), Conf::of(cycle)) };
    let Some((conf, zone)) = conf.and_then(|conf| Some((conf, zone::of_conf(conf)?))) else {
        return;
    };
    order::await_master();
    // What the event loop has begun is finished first.
    let zone = member.map_or(zone, |member| member.zone);
    let hold = watch::stop().or_else(|| Hold::take(zone, conf, log, Occasion::End));
    let Some(mut hold) = hold else {
        return;
    };
    let me = member.and_then(|member| member.view());
    let plan = hold.roster().worker_end(me.as_ref(), &ThisProcess::PLAIN);
    let was_orphan = plan.retires;
    carry_out(&mut hold, plan);
    order::end();
    // The slot is another's from here on: no more heartbeats.
    MEMBER.set(None);
    if !was_orphan && process::is_bereft() {
        // The master has died meanwhile.
        let plan = hold.roster().orphan_end(None, &ThisProcess::PLAIN);
        carry_out(&mut hold, plan);
    }
}

/// Does under the lock what the roster says that this process, which ends, has to do.
fn carry_out(hold: &mut Hold<'_>, plan: Plan) {
    plan.begin(hold.roster());
    hold.run(plan.transitions, Mode::Blocking);
}

/// The node stops: `exit_master`. Every worker has ended by now.
///
/// # Safety
/// `cycle` is what nginx called `exit_master` with.
pub unsafe fn node_exited(cycle: *const ngx_cycle_t) {
    // SAFETY: the cycle is live.
    let (log, conf) = unsafe { (Log::of(cycle), Conf::of(cycle)) };
    let Some((conf, zone)) = conf.and_then(|conf| Some((conf, zone::of_conf(conf)?))) else {
        return;
    };
    let Some(mut hold) = Hold::take(zone, conf, log, Occasion::End) else {
        return;
    };
    let plan = hold.roster().master_end(&ThisProcess::PLAIN);
    carry_out(&mut hold, plan);
}

/// Notes what nginx's `env` directives pass on, for programs.
///
/// # Safety
/// `cycle` is live and its configuration complete.
unsafe fn remember_environment(cycle: *const ngx_cycle_t, conf: &Conf) {
    let mut environment: Vec<CString> = Vec::new();
    // SAFETY: conf_ctx has the core module's configuration; `env` is an array of ngx_str_t.
    let names = unsafe {
        let index = ngx_core_module.index;
        let core = (*(*cycle).conf_ctx.add(index)).cast::<ngx_core_conf_t>();
        (*core).env.as_slice::<ngx_str_t>()
    };
    for name in names {
        // nginx keeps `NAME=value` in the data and counts only the name in the length.
        // SAFETY: the data of a configuration token ends with a zero byte.
        let text = unsafe { CStr::from_ptr(name.data.cast()) };
        if text.count_bytes() > name.len {
            environment.push(text.to_owned());
        } else {
            environment.extend(inherited(text));
        }
    }
    let has = |environment: &[CString], name: &[u8]| {
        environment.iter().any(|variable| variable.as_bytes().starts_with(name))
    };
    if !has(&environment, b"TZ=") {
        environment.extend(inherited(c"TZ"));
    }
    if !has(&environment, b"PATH=") {
        environment.push(inherited(c"PATH").unwrap_or_else(|| DEFAULT_PATH.to_owned()));
    }
    conf.environment.replace(environment);
}

/// What a program gets if nginx itself has no PATH.
const DEFAULT_PATH: &CStr = c"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

fn inherited(name: &CStr) -> Option<CString> {
    // SAFETY: the name is a C string; the value is copied at once.
    let value = unsafe {
        let value = libc::getenv(name.as_ptr());
        if value.is_null() {
            return None;
        }
        CStr::from_ptr(value)
    };
    let variable = [name.to_bytes(), b"=", value.to_bytes()].concat();
    CString::new(variable).ok()
}
