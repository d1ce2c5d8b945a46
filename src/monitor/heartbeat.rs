//! What runs in the event loop of a serving worker: its heartbeat, the look at the others', and
//! what is left to do of events told from there. Nothing here ever waits.

use std::cell::Cell;

use linux::cgroup::OomKills;
use ngx::ffi::{ngx_cycle, ngx_event_t, ngx_event_timer_rbtree, ngx_msec_t};
use roster::{Roster, Transition, WorkerView};

use super::schedule::{arm_retry, disarm_retry, retry_after, Schedule, AT_ONCE, SCHEDULE};
use super::witness::ThisProcess;
use super::{busy, drain, holders, order, peers, resume};
use crate::actions::detached;
use crate::config::Conf;
use crate::delivery::uncounted::{self, Attempt};
use crate::delivery::{member, oom, LockGuard, Member};
use crate::nginx::clock;
use crate::nginx::log::Log;
use crate::nginx::process::{self, PerProcess};
use crate::nginx::timer::{self, Timer};

/// How soon to try again to register, if there is room but the lock is busy, milliseconds.
const SEEK: ngx_msec_t = 100;
/// How often to look whether programs nobody waits for have ended, milliseconds.
const REAP: ngx_msec_t = 100;
/// The longest time between a suspicion and the judgement, milliseconds.
const CONFIRM: u64 = 1000;
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
static OOM_KILLS: PerProcess<Cell<(u64, Option<OomKills>)>> = PerProcess(Cell::new((0, None)));

static mut HEARTBEAT: Timer = Timer::new();

fn arm_heartbeat(log: Log) {
    let interval = SCHEDULE.get().interval as ngx_msec_t;
    // SAFETY: a static, and the event loop is this thread's.
    unsafe { Timer::arm(&raw mut HEARTBEAT, interval, on_heartbeat, log) };
}

/// Lets the event loop turn once. nginx looks whether a worker is to end after it has waited for an event
/// (`ngx_worker_process_cycle`): a signal that came before, as one did while this worker waited for the
/// lock, would only be noticed at the next event, whenever that is.
pub fn turn_soon(log: Log) {
    // SAFETY: as in `start`; a static, and the event loop is this thread's.
    unsafe {
        if !ngx_event_timer_rbtree.root.is_null() {
            arm_retry(AT_ONCE, on_retry, log);
        }
    }
}

/// Starts the heartbeat of this worker, or goes on with another configuration. `alone` says that no
/// other generation is alive.
pub fn start(conf: &Conf, alone: bool, log: Log) {
    // SAFETY: a plain global. ngx_event_process_init makes the tree; it ran before this module's
    // init_process, which comes after those of the event modules.
    if unsafe { ngx_event_timer_rbtree.root.is_null() } {
        log!(log, Alert, "worker_manager: no event loop yet, this worker has no heartbeat");
        return;
    }
    let now = clock::monotonic();
    let settle = if alone { SETTLE_ALONE } else { SETTLE };
    SCHEDULE.set(Schedule {
        interval: conf.interval() as u64,
        failed: conf.failed() as u64,
        beat: now,
        tend_at: if process::is_worker() { now + settle } else { 0 },
        on_retry: Some(on_retry),
        ..Schedule::NONE
    });
    arm_heartbeat(log);
    if process::is_worker() {
        drain::expect(log);
        // SAFETY: a static, and the event loop is this thread's.
        unsafe { arm_retry(0, on_first_round, log) };
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
    SCHEDULE.set(Schedule::NONE);
    busy::reset();
    // SAFETY: statics, and the event loop is this thread's.
    unsafe {
        Timer::disarm(&raw mut HEARTBEAT);
        disarm_retry();
    }
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

/// This worker, unless a reload of a single process (`master_process off`) has taken the module away,
/// and the zone with it, in which case no function of the module was called.
/// Nor if others have taken its place in the roster from it: what is there is another's.
fn serving() -> Option<Member> {
    Conf::in_force().and(member()).filter(|member| member.view().is_some())
}

unsafe extern "C" fn on_heartbeat(_event: *mut ngx_event_t) {
    let Some(member) = serving() else {
        seek_place();
        return;
    };
    let mut schedule = SCHEDULE.get();
    let now = clock::monotonic();
    // Who was itself late, because the machine slept or it was stopped, can't judge others: they
    // had no more time than it had.
    let least = schedule.interval + schedule.failed / 2 + timer::delay();
    let late = now.saturating_sub(schedule.beat) > least;
    member.zone.roster().beat(member.slot, member.registration, now);
    schedule.beat = now;
    SCHEDULE.set(schedule);
    let log = Log::current();
    peers::tend(&member, now, on_peer_death, log);
    show_connections(&member);
    let (looked, kills) = OOM_KILLS.get();
    let first = || member.zone.roster().workers().next();
    // One on the node is enough.
    if now - looked >= OOM && first().is_some_and(|first| first.registration == member.registration)
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
    let (Some(conf), log) = (Conf::in_force(), Log::current()) else {
        return;
    };
    let after = match uncounted::try_register(conf, log) {
        Attempt::None => SCHEDULE.get().interval as ngx_msec_t,
        Attempt::Busy => SEEK,
        Attempt::Registered(guard) => {
            let now = clock::monotonic();
            Schedule::update(|schedule| schedule.beat = now);
            tend_soon(now);
            resume::work(guard, []);
            SCHEDULE.get().interval as ngx_msec_t
        }
    };
    // SAFETY: a static, and the event loop is this thread's.
    unsafe { Timer::arm(&raw mut HEARTBEAT, after, on_heartbeat, log) };
}

/// Lets the status see the connections of this worker, if there is a status.
fn show_connections(member: &Member) {
    // SAFETY: nginx's global cycle is live; a worker keeps it until it exits.
    let conf = unsafe { Conf::of(ngx_cycle.cast()) };
    if conf.is_some_and(|conf| conf.status.get().is_some()) {
        let (active, idle) = process::connections();
        let roster = member.zone.roster();
        roster.set_connections(member.slot, member.registration, active, idle);
    }
    holders::note(member, conf, clock::monotonic());
}

/// The first round of the event loop.
unsafe extern "C" fn on_first_round(_event: *mut ngx_event_t) {
    order::watch();
    let settled = SCHEDULE.get().tend_at.saturating_sub(clock::monotonic());
    retry_after(settled as ngx_msec_t);
    if drain::is_untold() {
        retry_after(0);
    }
    if reap() {
        retry_after(REAP);
    }
}

unsafe extern "C" fn on_retry(_event: *mut ngx_event_t) {
    if reap() {
        retry_after(REAP);
    }
    let Some(member) = serving() else {
        return;
    };
    let now = clock::monotonic();
    let schedule = SCHEDULE.get();
    if schedule.tend_at != 0 && now >= schedule.tend_at {
        Schedule::update(|schedule| schedule.tend_at = 0);
        peers::tend(&member, now, on_peer_death, Log::current());
        show_connections(&member);
        oom::begin(member.zone.roster());
    }
    if drain::is_untold() {
        // SAFETY: nginx's global cycle is live; a worker keeps it until it exits.
        holders::note_first(&member, unsafe { Conf::of(ngx_cycle.cast()) }, now);
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
            let late = now - schedule.confirm_at > schedule.failed / 2;
            scan(member, now, if late { Scan::AtItself } else { Scan::Second });
        }
    }
    let schedule = SCHEDULE.get();
    for at in [schedule.confirm_at, schedule.tend_at, schedule.stuck_at] {
        if at > now {
            retry_after((at - now) as ngx_msec_t);
        } else if at != 0 {
            // What is left waits for the lock, or for a program.
            retry_after(busy::pause());
        }
    }
    let due_at = drain::due_at();
    if due_at > now {
        retry_after((due_at - now) as ngx_msec_t);
    }
}

/// Something has happened that this worker should tell, if nobody is quicker.
fn wake() {
    if let Some(member) = serving() {
        scan(member, clock::monotonic(), Scan::AtItself);
    }
}

unsafe extern "C" fn on_peer_death(_event: *mut ngx_event_t) {
    if peers::note_deaths() {
        wake();
    }
}

unsafe extern "C" fn on_holder_death(_event: *mut ngx_event_t) {
    if busy::note_death() {
        wake();
    }
}

/// How closely to look.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scan {
    /// Judge nobody else.
    AtItself,
    /// Suspect those whose heartbeat is overdue.
    First,
    /// Judge those that were suspected.
    Second,
}

/// What there is to do, read without the lock.
#[derive(Default)]
struct Findings {
    work: bool,
    suspects: bool,
}

fn find(member: &Member, now: u64, closely: Scan) -> Findings {
    let roster = member.zone.roster();
    let news = news_of_peers(roster, now);
    let schedule = SCHEDULE.get();
    let mut findings = Findings {
        // Somebody died before it had told everything; if it is just busy telling, the lock is
        // taken and this comes to nothing.
        work: roster.is_unfinished()
            || !news.is_empty()
            || drain::is_due(now)
            || (schedule.stuck_at != 0 && now >= schedule.stuck_at),
        suspects: false,
    };
    for w in roster.workers() {
        if w.registration == member.registration {
            findings.work |= w.hung;
        } else if w.is_overdue(now) {
            let is_news = || w.judge(&ThisProcess::PLAIN).is_some();
            match closely {
                Scan::AtItself => {}
                // At the first look it would be too early to record it: right after a sleep of the
                // machine some that live have not had their turn yet, and who died just now has a
                // successor that knows the cause.
                Scan::First => findings.suspects |= is_news(),
                Scan::Second => findings.work |= is_news(),
            }
        }
    }
    findings
}

/// Sees again who is to be watched, in a moment.
fn tend_soon(now: u64) {
    Schedule::update(|schedule| schedule.tend_at = now);
    retry_after(AT_ONCE);
}

/// What there is to tell of those that are watched, and when to come back to them.
fn news_of_peers(roster: Roster<'_>, now: u64) -> Vec<Transition> {
    let peers::News { transitions, wait, tend } = peers::news(roster, now);
    if wait {
        // Also between a look and the lock a cause may vanish, with the reaping of the dead, before
        // it is to be had from the pidfd.
        retry_after(AT_ONCE);
    }
    if tend {
        tend_soon(now);
    }
    transitions
}

fn scan(member: Member, now: u64, closely: Scan) {
    let findings = find(&member, now, closely);
    if findings.suspects && closely == Scan::First {
        let schedule = SCHEDULE.get();
        if schedule.confirm_at == 0 {
            let wait = (schedule.failed / 2).clamp(1, CONFIRM);
            Schedule::update(|schedule| schedule.confirm_at = now + wait);
            retry_after(wait as ngx_msec_t);
        }
    }
    if !findings.work || resume::is_under_way() {
        return;
    }
    // SAFETY: nginx's global cycle is live; a worker keeps it until it exits.
    let (conf, log) = unsafe { (Conf::of(ngx_cycle.cast()), Log::current()) };
    let Some(conf) = conf else {
        return;
    };
    let Some(guard) = LockGuard::try_take(member.zone, conf, log) else {
        if closely == Scan::Second {
            // What was seen twice need not be confirmed again.
            Schedule::update(|schedule| schedule.confirm_at = now);
        }
        busy::come_back(member.zone, conf, on_holder_death, log);
        return;
    };
    busy::reset();
    // Under the lock nobody else changes anything: look again.
    let news = news_of_peers(guard.roster(), now);
    if !news.is_empty() {
        tend_soon(now);
    }
    let me = guard.roster().registered(member.slot, member.registration);
    let stopping = me.is_some_and(|me| order::is_stopping(guard.roster(), &me));
    let of_itself = me.map(|me| of_itself(&me, stopping, now, conf, log)).unwrap_or_default();
    let witness = ThisProcess { judges_at: (closely == Scan::Second).then_some(now) };
    let roster = guard.roster();
    let transitions = roster.seen_by_worker(member.registration, news, &of_itself, &witness);
    for transition in &transitions {
        let Transition::WorkerHung { slot } = transition else { continue };
        let Some(w) = guard.roster().worker(*slot) else { continue };
        log!(
            log,
            Warn,
            "worker_manager: worker {} missed its heartbeat, the last was {} ms ago",
            w.pid,
            now.saturating_sub(w.beat)
        );
    }
    resume::work(guard, transitions);
}

/// What this worker has to tell of itself, beside its recovery.
fn of_itself(me: &WorkerView, stopping: bool, now: u64, conf: &Conf, log: Log) -> Vec<Transition> {
    let slot = me.slot;
    let mut transitions = Vec::new();
    if me.hung {
        log!(log, Notice, "worker_manager: this worker was hung and goes on");
    }
    let draining = drain::is_due(now).then(|| drain::untold_draining(me, stopping)).flatten();
    if let Some(draining) = draining {
        transitions.push(draining);
        Schedule::update(|schedule| {
            // Those who were watched may have another place in the ring now.
            schedule.tend_at = now;
            schedule.stuck_at = conf.draining_warn.map_or(0, |warn| now + warn as u64);
        });
    }
    let schedule = SCHEDULE.get();
    if schedule.stuck_at != 0 && now >= schedule.stuck_at {
        // The worker drains from when that was recorded, which was a moment after it noticed the order.
        let stuck_at = me.draining_since + conf.draining_warn.unwrap_or(0) as u64;
        let is_due = now >= stuck_at;
        Schedule::update(|schedule| schedule.stuck_at = if is_due { 0 } else { stuck_at });
        if is_due {
            if let Some(member) = serving() {
                holders::tell(&member, conf, now, log);
            }
            let connections = process::all_connections();
            transitions.push(Transition::WorkerStuck { slot, connections });
        }
    }
    transitions
}
