//! The heartbeat of a serving worker, and the rounds between two of them, in its event loop. Nothing here ever
//! waits.

use std::cell::Cell;

use linux::cgroup::OomKills;
use ngx::ffi::ngx_msec_t;

use super::scan::{scan, serving, tend_soon, wake, Scan};
use super::schedule::{arm_retry, disarm_retry, retry_after, Schedule, AT_ONCE};
use super::{busy, drain, holders, order, peers, resume};
use crate::actions::detached;
use crate::config::Conf;
use crate::delivery::uncounted::{self, Attempt};
use crate::delivery::{oom, LockGuard, Member};
use crate::nginx::clock;
use crate::nginx::log::Log;
use crate::nginx::main_thread::{self, MainThreadCell};
use crate::nginx::process;
use crate::nginx::timer::{self, Timer};

/// How soon to try again to register, if there is room but the lock is busy, milliseconds.
const SEEK: ngx_msec_t = 100;
/// How often to look whether programs nobody waits for have ended, milliseconds.
const REAP: ngx_msec_t = 100;
/// How long after its start a worker begins to watch others, milliseconds: once the start, which
/// should not take longer for that, is over, and before nginx tells the workers before it to quit,
/// 100 ms after it has started these (`ngx_master_process_cycle`).
const SETTLE: u64 = 50;
/// The same if no older generation is alive. All workers have successors then, and a start with many
/// workers may last.
const SETTLE_ALONE: u64 = 2000;
/// How often to look at the kernel's count of processes killed for memory, milliseconds.
const OOM: u64 = 60_000;

/// When this worker last looked at the kernel's count of processes killed for memory, and what it
/// was then.
static OOM_KILLS: MainThreadCell<Cell<(u64, Option<OomKills>)>> =
    MainThreadCell::new(Cell::new((0, None)));

static HEARTBEAT: MainThreadCell<Timer> = MainThreadCell::new(Timer::new());

fn arm_heartbeat(log: Log) {
    let interval = Schedule::get().interval as ngx_msec_t;
    HEARTBEAT.arm(interval, on_heartbeat, log);
}

/// Lets the event loop turn once. nginx looks whether a worker is to end after it has waited for an event
/// (`ngx_worker_process_cycle`): a signal that came before, as one did while this worker waited for the
/// lock, would only be noticed at the next event, whenever that is.
pub fn turn_soon(log: Log) {
    arm_retry(AT_ONCE, on_retry, log);
}

/// Starts the heartbeat of this worker, or goes on with another configuration. `alone` says that no
/// other generation is alive.
pub fn start(conf: &Conf, alone: bool, log: Log) {
    // ngx_event_process_init ran before this module's init_process, which comes after those of the event
    // modules.
    if !timer::has_event_loop() {
        log!(log, Alert, "no event loop yet, this worker has no heartbeat");
        return;
    }
    let now = clock::monotonic();
    let settle = if alone { SETTLE_ALONE } else { SETTLE };
    let schedule = Schedule {
        interval: conf.interval() as u64,
        failed: conf.failed() as u64,
        beat: now,
        tend_at: if process::is_worker() { now.saturating_add(settle) } else { 0 },
        on_retry: Some(on_retry),
        ..Schedule::NONE
    };
    schedule.set();
    arm_heartbeat(log);
    if process::is_worker() {
        drain::expect(log);
        arm_retry(0, on_first_round, log);
    }
    if reap() {
        retry_after(REAP);
    }
}

/// Ends the heartbeat. What the event loop had begun is handed over, finished.
pub fn stop() -> Option<LockGuard<'static>> {
    end();
    resume::take_over()
}

/// Ends the heartbeat.
pub fn end() {
    Schedule::NONE.set();
    busy::reset();
    HEARTBEAT.disarm();
    disarm_retry();
}

/// Comes back to programs that nobody waits for.
pub fn reap_later() {
    retry_after(REAP);
}

/// Forgets those that have ended, see `detached::reap`; true if some have not. Those that have failed count
/// in this worker's zone.
fn reap() -> bool {
    detached::reap(|| serving().map(|member| member.zone))
}

fn on_heartbeat() {
    let Some(member) = serving() else {
        seek_place();
        return;
    };
    let mut schedule = Schedule::get();
    let now = clock::monotonic();
    // A worker that was late itself, because the machine slept or it was stopped, can't judge others: they
    // had no more time than it had.
    let least =
        schedule.interval.saturating_add(schedule.failed / 2).saturating_add(timer::delay());
    let late = now.saturating_sub(schedule.beat) > least;
    member.zone.roster().beat(member.slot, member.registration, now);
    schedule.beat = now;
    schedule.set();
    let log = Log::current();
    if main_thread::take_refused() {
        log!(log, Alert, "a function was called on another thread than nginx's, and did nothing");
    }
    peers::tend(&member, now, on_peer_death, log);
    show_connections(&member);
    let (looked, kills) = OOM_KILLS.get_or((0, None));
    let first = || member.zone.roster().workers().next();
    // One on the node is enough.
    if now.saturating_sub(looked) >= OOM
        && first().is_some_and(|first| first.registration == member.registration)
    {
        OOM_KILLS.set((now, oom::look(member.zone.roster(), kills)));
    }
    scan(member, now, if late { Scan::AtItself } else { Scan::First });
    arm_heartbeat(log);
}

/// The heartbeat of a worker that has no place in the zone: it sees whether there is room now.
fn seek_place() {
    if !uncounted::is_this() {
        return;
    }
    // SAFETY: what the event loop keeps of the cycle is given up in `stop`, which a reload of a single process
    // calls.
    let (Some(conf), log) = (unsafe { Conf::in_force() }, Log::current()) else {
        return;
    };
    let after = match uncounted::try_register(conf, log) {
        Attempt::None => Schedule::get().interval as ngx_msec_t,
        Attempt::Busy => SEEK,
        Attempt::Registered(guard) => {
            let now = clock::monotonic();
            Schedule::update(|schedule| schedule.beat = now);
            tend_soon(now);
            resume::work(guard, []);
            Schedule::get().interval as ngx_msec_t
        }
    };
    HEARTBEAT.arm(after, on_heartbeat, log);
}

/// Lets the status see the connections of this worker, if there is a status.
fn show_connections(member: &Member) {
    // SAFETY: nothing of the configuration is kept.
    let conf = unsafe { Conf::in_force() };
    if conf.is_some_and(|conf| conf.status.get().is_some()) {
        let (active, idle) = process::connections();
        let roster = member.zone.roster();
        roster.set_connections(member.slot, member.registration, active, idle);
    }
    holders::note(member, conf, clock::monotonic());
}

/// The first round of the event loop.
fn on_first_round() {
    order::watch();
    let settled = Schedule::get().tend_at.saturating_sub(clock::monotonic());
    retry_after(settled as ngx_msec_t);
    if drain::is_untold() {
        retry_after(0);
    }
    if reap() {
        retry_after(REAP);
    }
}

fn on_retry() {
    if reap() {
        retry_after(REAP);
    }
    let Some(member) = serving() else {
        return;
    };
    let now = clock::monotonic();
    let schedule = Schedule::get();
    if schedule.tend_at != 0 && now >= schedule.tend_at {
        Schedule::update(|schedule| schedule.tend_at = 0);
        peers::tend(&member, now, on_peer_death, Log::current());
        show_connections(&member);
        oom::begin(member.zone.roster());
    }
    if drain::is_untold() {
        // SAFETY: a worker keeps its cycle until it exits.
        let conf = unsafe { Conf::in_force() };
        holders::note_first(&member, conf, now);
    }
    resume::come_back();
    // What came up while another event was told has waited for that.
    if !resume::is_under_way() {
        if schedule.confirm_at == 0 || now < schedule.confirm_at {
            // Nobody is suspected here: only the heartbeat knows whether this worker was late itself.
            scan(member, now, Scan::AtItself);
        } else {
            Schedule::update(|schedule| schedule.confirm_at = 0);
            // Late again: no judgement this time either.
            let late = now.saturating_sub(schedule.confirm_at) > schedule.failed / 2;
            scan(member, now, if late { Scan::AtItself } else { Scan::Second });
        }
    }
    let schedule = Schedule::get();
    for at in [schedule.confirm_at, schedule.tend_at, schedule.stuck_at] {
        if at > now {
            retry_after(at.saturating_sub(now) as ngx_msec_t);
        } else if at != 0 {
            // What is left waits for the lock, or for a program.
            retry_after(busy::pause());
        }
    }
    let due_at = drain::due_at();
    if due_at > now {
        retry_after(due_at.saturating_sub(now) as ngx_msec_t);
    }
}

fn on_peer_death() {
    if peers::note_deaths() {
        wake();
    }
}
