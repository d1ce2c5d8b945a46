//! What a serving worker finds to do: what others left undone, workers that died or are hung, and what there is
//! to record of itself. It looks without the lock, and again with it.

use ngx::ffi::ngx_msec_t;
use roster::{Roster, Transition, WorkerView};

use super::schedule::{retry_after, Schedule, AT_ONCE};
use super::witness::ThisProcess;
use super::{busy, drain, holders, order, peers, resume};
use crate::config::Conf;
use crate::delivery::{member, LockGuard, Member};
use crate::nginx::clock;
use crate::nginx::log::Log;
use crate::nginx::process;

/// The longest time between a suspicion and the judgement, milliseconds.
const CONFIRM: u64 = 1000;

/// This worker, unless a reload of a single process (`master_process off`) has taken the module away,
/// and the zone with it, in which case no function of the module was called.
/// Nor if others have taken its place in the roster from it: what is there is another's.
pub fn serving() -> Option<Member> {
    // SAFETY: nothing of the configuration is kept.
    let has_module = || unsafe { Conf::in_force() }.is_some();
    has_module().then(member).flatten().filter(|member| member.view().is_some())
}

/// Something has happened that this worker should tell, if nobody is quicker.
pub fn wake() {
    if let Some(member) = serving() {
        scan(member, clock::monotonic(), Scan::AtItself);
    }
}

fn on_holder_death() {
    if busy::note_death() {
        wake();
    }
}

/// How closely to look.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Scan {
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
    let schedule = Schedule::get();
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
                // machine some that live have not had their turn yet, and one that died just now has a
                // successor that knows the cause.
                Scan::First => findings.suspects |= is_news(),
                Scan::Second => findings.work |= is_news(),
            }
        }
    }
    findings
}

/// Looks again which peers are to be watched, in a moment.
pub fn tend_soon(now: u64) {
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

/// Looks what there is to do, and does it if the lock is free.
pub fn scan(member: Member, now: u64, closely: Scan) {
    let findings = find(&member, now, closely);
    if findings.suspects && closely == Scan::First {
        let schedule = Schedule::get();
        if schedule.confirm_at == 0 {
            let wait = (schedule.failed / 2).clamp(1, CONFIRM);
            Schedule::update(|schedule| schedule.confirm_at = now.saturating_add(wait));
            retry_after(wait as ngx_msec_t);
        }
    }
    if !findings.work || resume::is_under_way() {
        return;
    }
    // SAFETY: as in `seek_place`.
    let (Some(conf), log) = (unsafe { Conf::in_force() }, Log::current()) else {
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
    resume::work(guard, transitions);
}

/// What this worker has to tell of itself, beside its recovery.
fn of_itself(me: &WorkerView, stopping: bool, now: u64, conf: &Conf, log: Log) -> Vec<Transition> {
    let slot = me.slot;
    let mut transitions = Vec::new();
    if me.hung {
        log!(log, Notice, "this worker was hung and goes on");
    }
    let draining = drain::is_due(now).then(|| drain::untold_draining(me, stopping)).flatten();
    if let Some(draining) = draining {
        transitions.push(draining);
        Schedule::update(|schedule| {
            // The peers that were watched may have another place in the ring now.
            schedule.tend_at = now;
            schedule.stuck_at =
                conf.draining_warn.map_or(0, |warn| now.saturating_add(warn as u64));
        });
    }
    let schedule = Schedule::get();
    if schedule.stuck_at != 0 && now >= schedule.stuck_at {
        // The worker drains from when that was recorded, which was a moment after it noticed the order.
        let stuck_at =
            me.draining_since.unwrap_or(0).saturating_add(conf.draining_warn.unwrap_or(0) as u64);
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
