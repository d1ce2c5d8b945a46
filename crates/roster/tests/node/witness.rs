//! A process of the model as a witness of what happens to others. What nginx's table of processes and
//! the kernel would tell it follows from who lives.

use roster::{Reason, Roster, Transition, Witness, WorkerView};

use super::{Life, Master, Node, Purpose, State, Who};

/// How every process of the model dies.
pub const KILLED: Reason = Reason::Signal { number: 9, core: false };

/// A process that holds the lock, or is about to take it.
pub struct Eyes<'a> {
    pub node: &'a Node,
    pub state: &'a State,
    pub who: Who,
    pub purpose: Purpose,
    /// The newest generation; 0 before the first.
    pub newest: usize,
}

impl Eyes<'_> {
    /// The worker whose process had a pid, if none has taken its place.
    fn find(&self, pid: i32) -> Option<(usize, Life)> {
        let Who::Worker { generation, index } = self.state.who(pid)? else { return None };
        let who = Who::Worker { generation, index };
        let worker = self.state.worker(who)?;
        (self.state.pid(who) == pid).then_some((generation, worker.life))
    }
}

impl Witness for Eyes<'_> {
    fn pid(&self) -> i32 {
        self.state.pid(self.who)
    }

    fn process_slot(&self) -> u32 {
        self.node.process_slot(self.who)
    }

    fn predecessor(&self) -> Option<(i32, Reason)> {
        let worker = self.state.worker(self.who)?;
        (worker.predecessors > 0).then(|| (self.pid() - 1, KILLED))
    }

    fn is_gone(&self, pid: i32, _: u64) -> bool {
        !self.state.lives(pid)
    }

    /// The master reaps at once, and starts a worker of its newest generation again at once: who is dead
    /// and has no successor has died right now, in a reload or a stop.
    fn unreaped(&self, pid: i32, _: u64) -> Option<Reason> {
        let (generation, life) = self.find(pid)?;
        let is_fresh = self.state.master == Master::Up && generation + 1 == self.newest;
        (life == Life::Dead && is_fresh).then_some(KILLED)
    }

    fn reaped(&self, process_slot: u32, pid: i32) -> Option<Reason> {
        let (_, life) = self.find(pid)?;
        let who = self.state.who(pid)?;
        let is_there = self.node.process_slot(who) == process_slot;
        (life == Life::Dead && is_there).then_some(KILLED)
    }

    fn is_orphan(&self) -> bool {
        self.state.master == Master::Dead
    }

    fn is_draining(&self) -> bool {
        self.node.drains && self.state.quits(self.who, self.newest)
    }

    /// The master's order reaches everybody; who lost the master ends by itself, one by one.
    fn is_stopping(&self, _: Roster<'_>, _: &WorkerView) -> bool {
        self.state.master == Master::Stopping
    }

    fn has_other_binary(&self) -> bool {
        false
    }

    fn take_draining(&self, me: &WorkerView, stopping: bool) -> Option<Transition> {
        let told = self.state.worker(self.who).is_some_and(|worker| worker.drains);
        let untold = self.is_draining() && !told;
        untold.then_some(Transition::WorkerDraining { slot: me.slot, connections: 1, stopping })
    }

    fn is_overdue(&self, other: &WorkerView) -> bool {
        self.purpose == Purpose::Judge(other.slot)
    }
}
