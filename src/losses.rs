//! The workers that died without a word, as far as this process knows: those before it in its place,
//! those that nginx buried, those that nobody else is left to bury. Called by who holds the lock.

use roster::{Reason, Transition, WorkerView};

use crate::hold::Hold;
use crate::process;

/// Whoever was in this worker's slot of the master's table before it is dead. More than one if a
/// successor died before it had told of its own predecessor, whose end only that one knew.
pub fn of_predecessors(hold: &Hold<'_>) -> Vec<Transition> {
    // Who starts in nobody's place does not look through all workers for it.
    let Some((last, reason)) = process::predecessor() else {
        return Vec::new();
    };
    let lost = |w: WorkerView| {
        let reason = if w.pid == last {
            reason
        } else if w.process_slot == process::slot() && process::is_gone(w.pid, w.since_boot) {
            Reason::Unknown
        } else {
            return None;
        };
        Some(Transition::WorkerLost { slot: w.slot, reason })
    };
    hold.roster().workers().filter_map(lost).collect()
}

/// Workers that died and whose death this master can explain, or that leave no successor who
/// could. The rest is left to those successors.
pub fn known_to_master(hold: &Hold<'_>) -> Vec<Transition> {
    let lost = |w: WorkerView| {
        let reason = process::unreaped(w.pid).or_else(|| {
            let gone = process::is_gone(w.pid, w.since_boot);
            gone.then(|| process::buried(w.process_slot, w.pid)).flatten()
        })?;
        Some(Transition::WorkerLost { slot: w.slot, reason })
    };
    hold.roster().workers().filter_map(lost).collect()
}

/// The last worker of an orphaned node finds those that died before it.
pub fn seen_by_orphan(hold: &Hold<'_>) -> Vec<Transition> {
    let others = hold.roster().workers().filter(|w| w.pid != process::pid());
    others
        .filter(|w| process::is_gone(w.pid, w.since_boot))
        .map(|w| Transition::WorkerLost { slot: w.slot, reason: Reason::Unknown })
        .collect()
}

/// At the end of the master all that is still in the roster is dead.
pub fn at_the_end(hold: &Hold<'_>) -> Vec<Transition> {
    let workers: Vec<_> = hold.roster().workers().collect();
    let newest_in_slot = |w: &WorkerView| {
        workers
            .iter()
            .all(|other| other.process_slot != w.process_slot || other.since_boot <= w.since_boot)
    };
    let reason = |w: &WorkerView| {
        let buried = newest_in_slot(w).then(|| process::buried(w.process_slot, w.pid)).flatten();
        process::unreaped(w.pid).or(buried).unwrap_or(Reason::Unknown)
    };
    let lost = |w: &WorkerView| Transition::WorkerLost { slot: w.slot, reason: reason(w) };
    workers.iter().map(lost).collect()
}
