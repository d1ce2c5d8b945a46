//! What runs in the event loop of a serving worker: its heartbeat, the look at the others', and
//! what is left to do of events told from there. Nothing here ever waits.

use core::ffi::c_void;

use std::cell::{Cell, RefCell};

use ngx::ffi::{
    ngx_add_timer, ngx_connection_t, ngx_current_msec, ngx_cycle, ngx_del_timer, ngx_event_t,
    ngx_event_timer_rbtree, ngx_msec_t,
};
use roster::{Reason, Transition, WorkerView};

use crate::callback::Running;
use crate::clock;
use crate::conf::Conf;
use crate::hold::{Hold, Patience};
use crate::lifecycle::{member, Member};
use crate::log::Log;
use crate::process::{self, PerProcess};

/// How soon to come back to a lock that is busy or a program that runs, milliseconds.
const SOON: ngx_msec_t = 10;
/// How often to look whether programs nobody waits for have ended, milliseconds.
const REAP: ngx_msec_t = 100;
/// The longest time between a suspicion and the judgement, milliseconds.
const CONFIRM: u64 = 1000;

/// What the event loop has begun and not finished.
struct Shift {
    hold: Hold<'static>,
    transitions: Vec<Transition>,
}

/// The rhythm of this worker.
#[derive(Clone, Copy, Default)]
struct Rhythm {
    interval: u64,
    failed: u64,
    /// The last heartbeat.
    beat: u64,
    /// When to look again at workers that seemed hung; 0 if none did.
    confirm_at: u64,
}

static SHIFT: PerProcess<RefCell<Option<Shift>>> = PerProcess(RefCell::new(None));
static PROGRAMS: PerProcess<RefCell<Vec<Running>>> = PerProcess(RefCell::new(Vec::new()));
static RHYTHM: PerProcess<Cell<Rhythm>> =
    PerProcess(Cell::new(Rhythm { interval: 0, failed: 0, beat: 0, confirm_at: 0 }));

/// A timer of the event loop. nginx reads `data` as a connection when it logs at debug level.
struct Timer {
    event: ngx_event_t,
    connection: ngx_connection_t,
}

// SAFETY: an event and a connection are plain data, and all zeros is how nginx itself makes them.
static mut HEARTBEAT: Timer = unsafe { core::mem::zeroed() };
// SAFETY: as above.
static mut RETRY: Timer = unsafe { core::mem::zeroed() };

/// Points a timer at its handler.
///
/// # Safety
/// `timer` is one of the statics above, and this thread the only one to use it.
unsafe fn prepare(timer: *mut Timer, handler: unsafe extern "C" fn(*mut ngx_event_t), log: Log) {
    // SAFETY: the caller vouches for the timer.
    unsafe {
        (*timer).connection.fd = -1;
        (*timer).event.data = (&raw mut (*timer).connection).cast::<c_void>();
        (*timer).event.handler = Some(handler);
        (*timer).event.log = log.as_ptr();
        // A worker that shuts down gracefully does not wait for it: ngx_event_no_timers_left().
        (*timer).event.set_cancelable(1);
    }
}

fn arm(timer: *mut Timer, after: ngx_msec_t) {
    // SAFETY: the timer was prepared, and the event loop is this thread's.
    unsafe {
        // nginx keeps an earlier setting that is near enough; here the new one counts.
        disarm(timer);
        ngx_add_timer(&raw mut (*timer).event, after);
    }
}

/// Takes a timer out of the event loop.
///
/// # Safety
/// `timer` is one of the statics above.
unsafe fn disarm(timer: *mut Timer) {
    // SAFETY: the caller vouches for the timer; timer_set says whether it is in the tree.
    unsafe {
        if (*timer).event.timer_set() != 0 {
            ngx_del_timer(&raw mut (*timer).event);
        }
    }
}

/// Starts the heartbeat of this worker, or goes on with another configuration.
pub fn start(conf: &Conf, log: Log) {
    // SAFETY: a plain global. ngx_event_process_init makes the tree; it ran before this module's
    // init_process, which comes after those of the event modules.
    if unsafe { ngx_event_timer_rbtree.root.is_null() } {
        log!(log, Alert, "worker_manager: no event loop yet, this worker has no heartbeat");
        return;
    }
    RHYTHM.set(Rhythm {
        interval: conf.interval() as u64,
        failed: conf.failed() as u64,
        beat: clock::monotonic(),
        confirm_at: 0,
    });
    // SAFETY: nginx is single-threaded, and the static is used here only.
    unsafe { prepare(&raw mut HEARTBEAT, on_heartbeat, log) };
    arm(&raw mut HEARTBEAT, conf.interval());
    if reap() {
        retry_after(REAP);
    }
}

/// Ends the heartbeat. What the event loop had begun is handed over, to be finished.
pub fn stop() -> Option<Hold<'static>> {
    // SAFETY: these statics are ours, zeroed or prepared.
    unsafe {
        disarm(&raw mut HEARTBEAT);
        disarm(&raw mut RETRY);
    }
    let Shift { mut hold, mut transitions } = SHIFT.take()?;
    hold.run(&mut transitions, Patience::Wait);
    Some(hold)
}

/// Takes care of a program that nobody waits for, until it can be reaped. A master has no event
/// loop for that: there it is the next event that reaps.
pub fn adopt(running: Running) {
    reap();
    PROGRAMS.borrow_mut().push(running);
    retry_after(REAP);
}

/// Comes back after a time, or earlier if that is already arranged.
fn retry_after(after: ngx_msec_t) {
    let retry = &raw mut RETRY;
    if RHYTHM.get().interval == 0 {
        // This process has no event loop.
        return;
    }
    // SAFETY: the static is ours. The keys are times of nginx's clock, which may wrap.
    unsafe {
        if (*retry).event.handler.is_none() {
            prepare(retry, on_retry, Log::current());
        }
        let key = ngx_current_msec.wrapping_add(after);
        let earlier = (*retry).event.timer.key.wrapping_sub(key) as isize <= 0;
        if (*retry).event.timer_set() == 0 || !earlier {
            arm(retry, after);
        }
    }
}

/// Reaps the programs that have ended; true if some have not.
pub fn reap() -> bool {
    let mut programs = PROGRAMS.borrow_mut();
    programs.retain_mut(|program| !program.poll());
    !programs.is_empty()
}

unsafe extern "C" fn on_heartbeat(_event: *mut ngx_event_t) {
    let Some(member) = member() else {
        return;
    };
    let mut rhythm = RHYTHM.get();
    let now = clock::monotonic();
    // Who was itself late, because the machine slept or it was stopped, can't judge others: they
    // had no more time than it had.
    let late = now.saturating_sub(rhythm.beat) > rhythm.interval + rhythm.failed / 2;
    member.zone.roster().beat(member.slot, now);
    rhythm.beat = now;
    RHYTHM.set(rhythm);
    look(member, now, if late { Look::AtItself } else { Look::First });
    arm(&raw mut HEARTBEAT, rhythm.interval as ngx_msec_t);
}

unsafe extern "C" fn on_retry(_event: *mut ngx_event_t) {
    if reap() {
        retry_after(REAP);
    }
    let Some(member) = member() else {
        return;
    };
    if let Some(shift) = SHIFT.take() {
        work(shift);
        return;
    }
    let now = clock::monotonic();
    let mut rhythm = RHYTHM.get();
    let confirm_at = rhythm.confirm_at;
    if confirm_at == 0 || now < confirm_at {
        look(member, now, Look::First);
    } else {
        rhythm.confirm_at = 0;
        RHYTHM.set(rhythm);
        // Late again: no judgement this time either.
        if now - confirm_at <= rhythm.failed / 2 {
            look(member, now, Look::Second);
        }
    }
    let confirm_at = RHYTHM.get().confirm_at;
    if confirm_at != 0 {
        retry_after(confirm_at.saturating_sub(now) as ngx_msec_t);
    }
}

/// How closely to look.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
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

fn find(member: &Member, now: u64, closely: Look) -> Findings {
    let roster = member.zone.roster();
    let mut findings = Findings {
        // Somebody died before it had told everything; if it is just busy telling, the lock is
        // taken and this comes to nothing.
        work: roster.pending().is_some() || roster.over().is_some(),
        suspects: false,
    };
    for w in roster.workers() {
        if w.slot == member.slot {
            findings.work |= w.hung;
        } else if w.is_overdue(now) {
            match closely {
                Look::AtItself => {}
                Look::First => findings.suspects |= !w.hung || is_gone(&w),
                Look::Second => findings.work |= judge(&w).is_some(),
            }
        }
    }
    findings
}

fn is_gone(w: &WorkerView) -> bool {
    process::is_gone(w.pid, w.since_boot)
}

/// What is to be said, at the second look, of another worker whose heartbeat is overdue. At the
/// first it would be too early: right after a sleep of the machine some that live have not had
/// their turn yet, and who died just now has a successor that knows the cause.
fn judge(w: &WorkerView) -> Option<Transition> {
    if is_gone(w) {
        Some(Transition::WorkerLost { slot: w.slot, reason: Reason::Unknown })
    } else {
        (!w.hung).then_some(Transition::WorkerHung { slot: w.slot })
    }
}

fn look(member: Member, now: u64, closely: Look) {
    let findings = find(&member, now, closely);
    if findings.suspects && closely == Look::First {
        let mut rhythm = RHYTHM.get();
        if rhythm.confirm_at == 0 {
            let wait = (rhythm.failed / 2).clamp(1, CONFIRM);
            rhythm.confirm_at = now + wait;
            RHYTHM.set(rhythm);
            retry_after(wait as ngx_msec_t);
        }
    }
    if !findings.work || SHIFT.borrow().is_some() {
        return;
    }
    // SAFETY: nginx's global cycle is live; a worker keeps it until it exits.
    let (conf, log) = unsafe { (Conf::of(ngx_cycle.cast()), Log::current()) };
    let Some(conf) = conf else {
        return;
    };
    let Some(hold) = Hold::try_take(member.zone, conf, log) else {
        if closely == Look::Second {
            // What was seen twice need not be confirmed again.
            let mut rhythm = RHYTHM.get();
            rhythm.confirm_at = now;
            RHYTHM.set(rhythm);
        }
        retry_after(SOON);
        return;
    };
    // Under the lock nobody else changes anything: look again.
    let mut transitions = Vec::new();
    for w in hold.roster().workers() {
        if w.slot == member.slot {
            if w.hung {
                log!(log, Notice, "worker_manager: this worker was hung and goes on");
                transitions.push(Transition::WorkerRecovered { slot: w.slot });
            }
        } else if closely == Look::Second && w.is_overdue(now) {
            let judgement = judge(&w);
            if let Some(Transition::WorkerHung { .. }) = judgement {
                log!(
                    log,
                    Warn,
                    "worker_manager: worker {} missed its heartbeat, the last was {} ms ago",
                    w.pid,
                    now.saturating_sub(w.beat)
                );
            }
            transitions.extend(judgement);
        }
    }
    work(Shift { hold, transitions });
}

/// Goes on with what was begun, and comes back later if that is not all.
fn work(mut shift: Shift) {
    if !shift.hold.run(&mut shift.transitions, Patience::ComeBack) {
        SHIFT.replace(Some(shift));
        retry_after(SOON);
    }
}
