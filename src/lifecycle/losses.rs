//! The workers that died without a word, as far as this process knows: those before it in its place,
//! those that nginx buried, those that nobody else is left to bury. Called by who holds the lock.
//!
//! What nginx's table says it says of a pid and a slot, and both are given to others. So it is believed
//! of the worker that was the last in the slot, and only if that is gone.

use linux::process::is_gone;
use roster::{Reason, Roster, Transition, WorkerView};

use crate::delivery::{member, Hold};
use crate::nginx::process;

/// Whoever was in this worker's slot of the master's table before it is dead. More than one if a
/// successor died before it had told of its own predecessor, whose end only that one knew.
pub fn of_predecessors(hold: &Hold<'_>) -> Vec<Transition> {
    // Who starts in nobody's place does not look through all workers for it.
    let Some((last, reason)) = process::predecessor() else {
        return Vec::new();
    };
    // This worker is not registered yet: who is in the roster with its pid was somebody else.
    let is_gone = |w: &WorkerView| w.pid == process::pid() || is_gone(w.pid, w.since_boot);
    let lost = |w: WorkerView| {
        let is_last = w.pid == last && is_last_in_slot(hold.roster(), &w);
        let reason = if is_last { reason } else { Reason::Unknown };
        Transition::WorkerLost { slot: w.slot, reason }
    };
    let workers = hold.roster().workers().filter(|w| w.process_slot == process::slot());
    workers.filter(is_gone).map(lost).collect()
}

/// Workers that died and whose death this master can explain, or that leave no successor who
/// could. The rest is left to those successors.
pub fn known_to_master(hold: &Hold<'_>) -> Vec<Transition> {
    let lost = |w: WorkerView| {
        let reason = process::unreaped(w.pid, w.since_boot).or_else(|| {
            is_gone(w.pid, w.since_boot).then(|| buried(hold.roster(), &w)).flatten()
        })?;
        Some(Transition::WorkerLost { slot: w.slot, reason })
    };
    hold.roster().workers().filter_map(lost).collect()
}

/// The last worker of an orphaned node finds those that died before it.
pub fn seen_by_orphan(hold: &Hold<'_>) -> Vec<Transition> {
    let me = member().map(|me| me.registration);
    let others = hold.roster().workers().filter(|w| Some(w.registration) != me);
    others
        .filter(|w| w.pid == process::pid() || is_gone(w.pid, w.since_boot))
        .map(|w| Transition::WorkerLost { slot: w.slot, reason: Reason::Unknown })
        .collect()
}

/// At the end of the master all that is still in the roster is dead.
pub fn at_the_end(hold: &Hold<'_>) -> Vec<Transition> {
    let reason = |w: &WorkerView| {
        process::unreaped(w.pid, w.since_boot)
            .or_else(|| buried(hold.roster(), w))
            .unwrap_or(Reason::Unknown)
    };
    let lost = |w: WorkerView| Transition::WorkerLost { slot: w.slot, reason: reason(&w) };
    hold.roster().workers().map(lost).collect()
}

/// How a worker ended that is dead, if this master's table still says so.
fn buried(roster: Roster<'_>, w: &WorkerView) -> Option<Reason> {
    if !is_last_in_slot(roster, w) {
        return None;
    }
    process::buried(w.process_slot, w.pid)
}

/// Whether nobody has registered in the same slot of the master's table after this worker.
fn is_last_in_slot(roster: Roster<'_>, w: &WorkerView) -> bool {
    let mut same = roster.workers().filter(|other| other.process_slot == w.process_slot);
    same.all(|other| other.registration <= w.registration)
}
