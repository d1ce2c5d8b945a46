//! Which process records which loss, and when: the losses that a process knows of when it starts, reloads, ends or
//! serves, and what it records with them.
//!
//! Each death is seen by several processes: a successor finds it in its copy of the master's table of
//! processes, the master in that table itself, a peer by a pidfd or by a heartbeat that is overdue. Each
//! of them asks here, under the lock, what it is to record, so that each loss is recorded once and with
//! the best reason there is.
//!
//! What the table says it says of a pid and a slot, and both are given to others. So it is believed of
//! the worker that registered last in the slot, and only if that is gone.

use crate::event::Reason;
use crate::table::Roster;
use crate::transition::Transition;
use crate::views::WorkerView;

/// What a process knows of itself and of others from the kernel and from nginx.
pub trait Witness {
    /// This process.
    fn pid(&self) -> i32;
    /// The slot of this worker in the master's table of processes.
    fn process_slot(&self) -> u32;
    /// The process that had this worker's slot in the table before it, and how it ended.
    fn predecessor(&self) -> Option<(i32, Reason)>;
    /// Whether the process that had this pid at a moment, milliseconds since boot, is gone.
    fn is_gone(&self, pid: i32, since_boot: u64) -> bool;
    /// How the child of this master that had this pid at a moment ended, if it is not reaped yet.
    fn unreaped(&self, pid: i32, since_boot: u64) -> Option<Reason>;
    /// How the child of this master that had this pid and slot ended, if it is reaped and its entry in
    /// the table is not used again.
    fn reaped(&self, process_slot: u32, pid: i32) -> Option<Reason>;
    /// Whether the master of this worker is gone.
    fn is_orphan(&self) -> bool;
    /// Whether this worker drains.
    fn is_draining(&self) -> bool;
    /// Whether this worker, which is in the roster, ends since the node stops.
    fn is_stopping(&self, roster: Roster<'_>, me: &WorkerView) -> bool;
    /// Whether another binary of an upgrade goes on when this one ends.
    fn has_other_binary(&self) -> bool;
    /// That this worker drains, if that is not recorded. From here on it counts as recorded.
    fn take_draining(&self, me: &WorkerView, stopping: bool) -> Option<Transition>;
    /// Whether the heartbeat of another worker is overdue and this worker judges it.
    fn is_overdue(&self, other: &WorkerView) -> bool;
}

/// What a process does with the lock.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Plan {
    /// Whether all generations retire first.
    pub retires: bool,
    /// Whether the node stops with this process.
    pub stops: bool,
    /// What it then records, in this order.
    pub transitions: Vec<Transition>,
}

impl Plan {
    /// Does what comes before the transitions.
    pub fn begin(&self, roster: Roster<'_>) {
        if self.retires {
            roster.retire_all();
        }
        if self.stops {
            roster.set_stopping();
        }
    }
}

/// One that a worker watches by a pidfd.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Peer {
    /// The master, with its pid.
    Master(i32),
    /// A worker, with its place in the roster.
    Worker {
        /// Its slot.
        slot: u32,
        /// The number of its `worker_start`.
        registration: u64,
    },
}

/// How a peer that has died ended, as far as the kernel reports it to a process that is not its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// So.
    Known(Reason),
    /// Its parent has not reaped it; the kernel reports it then.
    NotReaped,
    /// This kernel does not report it.
    Untold,
}

/// What is to be done about a peer that has died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// This is to be recorded.
    Record(Transition),
    /// The cause may become known in a moment.
    Wait,
    /// It is recorded already.
    Settled,
}

/// How long to wait for the cause of a death to become known, milliseconds: nginx reaps its children
/// at once, and a successor that knows the cause starts at once, unless the machine is busy.
const GRACE: u64 = 200;

impl Roster<'_> {
    /// A worker begins: the worker that was in its slot of the master's table before it is dead. More than one if
    /// a successor died before it had recorded the loss of its own predecessor, whose end only that one
    /// knew.
    pub fn lost_before(&self, witness: &impl Witness) -> Vec<Transition> {
        // A worker that has no predecessor does not look through all workers for it.
        let Some((last, reason)) = witness.predecessor() else {
            return Vec::new();
        };
        let lost = |w: WorkerView| {
            let is_last = w.pid == last && self.is_last_in_slot(&w);
            lost(&w, if is_last { reason } else { Reason::Unknown })
        };
        let workers = self.workers().filter(|w| w.process_slot == witness.process_slot());
        workers.filter(|w| is_gone(w, witness)).map(lost).collect()
    }

    /// A master reloads: workers that died and whose death this master can explain, or that leave no
    /// successor that could. The rest is left to those successors.
    pub fn lost_to_master(&self, witness: &impl Witness) -> Vec<Transition> {
        let reason = |w: &WorkerView| {
            witness.unreaped(w.pid, w.since_boot).or_else(|| {
                witness.is_gone(w.pid, w.since_boot).then(|| self.reaped(w, witness)).flatten()
            })
        };
        self.workers().filter_map(|w| Some(lost(&w, reason(&w)?))).collect()
    }

    /// A reload did not commit. It `began` at a moment of the monotonic clock, milliseconds.
    pub fn failed_load(&self, began: u64, witness: &impl Witness) -> Vec<Transition> {
        let mut transitions = self.lost_to_master(witness);
        transitions.push(Transition::ReloadFailed { pid: witness.pid(), began });
        transitions
    }

    /// The master ends: all workers that are still in the roster are dead.
    pub fn master_end(&self, witness: &impl Witness) -> Plan {
        let reason = |w: &WorkerView| {
            let reason = witness.unreaped(w.pid, w.since_boot);
            reason.or_else(|| self.reaped(w, witness)).unwrap_or(Reason::Unknown)
        };
        let transitions = self.workers().map(|w| lost(&w, reason(&w))).collect();
        Plan { retires: true, stops: !witness.has_other_binary(), transitions }
    }

    /// A worker ends in an orderly way. `me` is its record, none if it is not in the roster.
    pub fn worker_end(&self, me: Option<&WorkerView>, witness: &impl Witness) -> Plan {
        let is_orphan = witness.is_orphan();
        let mut plan = if is_orphan { self.orphan_end(me, witness) } else { Plan::default() };
        let Some(me) = me else {
            return plan;
        };
        let stopping = if is_orphan { plan.stops } else { witness.is_stopping(*self, me) };
        // A worker that drains and has nothing to do ends before it could record the former.
        if let Some(draining) = witness.take_draining(me, stopping) {
            plan.transitions.insert(0, draining);
        }
        plan.transitions.extend(recovered(me));
        plan.transitions.push(Transition::WorkerExit { slot: me.slot, stopping });
        plan
    }

    /// A worker ends whose master is gone, an orphan: no other generation will start, and no other process records
    /// the losses of workers that died before it. The node stops with the last of them.
    pub fn orphan_end(&self, me: Option<&WorkerView>, witness: &impl Witness) -> Plan {
        let me = me.map(|me| me.registration);
        let others = || self.workers().filter(|w| Some(w.registration) != me);
        let dead = others().filter(|w| is_gone(w, witness));
        let transitions: Vec<_> = dead.map(|w| lost(&w, Reason::Unknown)).collect();
        let is_last = others().count() == transitions.len();
        Plan { retires: true, stops: is_last && !witness.has_other_binary(), transitions }
    }

    /// A serving worker has learned that a peer died, `waited` milliseconds ago. A process that records it asks under
    /// the lock; without the lock the answer is only a guess.
    pub fn news_of_peer(
        &self,
        peer: Peer,
        waited: u64,
        cause: impl FnOnce() -> Cause,
        witness: &impl Witness,
    ) -> News {
        let (slot, registration) = match peer {
            Peer::Master(pid) if self.lost_master() == Some(pid) => return News::Settled,
            Peer::Master(pid) => return News::Record(Transition::MasterLost { pid }),
            Peer::Worker { slot, registration } => (slot, registration),
        };
        let Some(dead) = self.registered(slot, registration) else {
            return News::Settled;
        };
        // A worker that drains has no successor, nor has any worker if there is no master. A worker of this one's
        // own generation that does not say so is about to drain as well, if this one does.
        let is_current = dead.generation == self.current_generation();
        let drains = dead.draining_since.is_some() || (witness.is_draining() && !is_current);
        let has_successor = !drains && !witness.is_orphan();
        let reason = match cause() {
            Cause::Known(reason) => Some(reason),
            Cause::Untold if !has_successor => Some(Reason::Unknown),
            // A master that reloads may take seconds to reap.
            Cause::Untold | Cause::NotReaped => (waited >= GRACE).then_some(Reason::Unknown),
        };
        reason.map_or(News::Wait, |reason| News::Record(lost(&dead, reason)))
    }

    /// What a serving worker records under the lock: what it knows of its peers, what there is to record
    /// of itself beside its recovery, and of those whose heartbeat is overdue.
    pub fn seen_by_worker(
        &self,
        registration: u64,
        peers: Vec<Transition>,
        of_itself: &[Transition],
        witness: &impl Witness,
    ) -> Vec<Transition> {
        let mut transitions = peers;
        for w in self.workers() {
            let is_told = |told: &Transition| matches!(told, Transition::WorkerLost { slot, .. } if *slot == w.slot);
            if w.registration == registration {
                transitions.extend(recovered(&w));
                transitions.extend_from_slice(of_itself);
            } else if witness.is_overdue(&w) && !transitions.iter().any(is_told) {
                transitions.extend(w.judge(witness));
            }
        }
        transitions
    }

    /// Whether an event is to be dispatched, or a generation is ready or has finished and that is not recorded:
    /// a process died before it had recorded it, or is about to record it.
    pub fn is_unfinished(&self) -> bool {
        self.pending().is_some() || self.finished().is_some() || self.ready().is_some()
    }

    /// How a worker ended that is dead, if the table of this master still says so.
    fn reaped(&self, w: &WorkerView, witness: &impl Witness) -> Option<Reason> {
        self.is_last_in_slot(w).then(|| witness.reaped(w.process_slot, w.pid)).flatten()
    }

    /// Whether no worker has registered in the same slot of the master's table after this worker.
    fn is_last_in_slot(&self, w: &WorkerView) -> bool {
        let mut same = self.workers().filter(|other| other.process_slot == w.process_slot);
        same.all(|other| other.registration <= w.registration)
    }
}

impl WorkerView {
    /// What is to be recorded of a worker whose heartbeat is overdue.
    pub fn judge(&self, witness: &impl Witness) -> Option<Transition> {
        if witness.is_gone(self.pid, self.since_boot) {
            return Some(lost(self, Reason::Unknown));
        }
        (!self.hung).then_some(Transition::WorkerHung { slot: self.slot })
    }
}

/// Whether a worker of the roster is gone, which is not this process.
fn is_gone(w: &WorkerView, witness: &impl Witness) -> bool {
    // This process is not registered yet, or is left out: the worker of the same pid was another process.
    w.pid == witness.pid() || witness.is_gone(w.pid, w.since_boot)
}

fn lost(w: &WorkerView, reason: Reason) -> Transition {
    Transition::WorkerLost { slot: w.slot, reason }
}

fn recovered(me: &WorkerView) -> Option<Transition> {
    me.hung.then_some(Transition::WorkerRecovered { slot: me.slot })
}

#[cfg(all(test, not(loom)))]
mod tests;
