//! What happens then: to the memory by the roster's own code, and to the rest of the node.

use roster::{kill, Admission, Did, Mode, Reason, Roster, Transaction, Transition};

use super::host::Process;
use super::{
    Action, Hold, In, Life, Lock, Master, Node, Purpose, State, Step, Who, CALLBACKS, MASTER_PID,
    MEMORY,
};
use crate::common::{check_snapshot, law, Broken, Law};

impl Node {
    /// The state after an action.
    pub fn next(&self, last: &State, action: Action) -> State {
        let mut state = last.clone();
        MEMORY.with_borrow(|memory| {
            memory.restore(&last.words);
            let roster = memory.roster();
            self.act(&mut state, roster, action).unwrap_or_else(|broken| {
                state.broken = Some(broken);
            });
            if let Err(broken) = state.check(roster) {
                state.broken.get_or_insert(broken);
            }
            if self.relinks && state.lock == Lock::Free {
                roster.recover();
            }
            if matches!(state.lock, Lock::Dirty(_)) && self.reads {
                if let Err(broken) = check_snapshot(memory) {
                    state.broken.get_or_insert(broken);
                }
            }
            roster.forget_the_past();
            state.forget_the_past(roster);
            state.words = memory.save();
        });
        state
    }

    fn act(&self, state: &mut State, roster: Roster<'_>, action: Action) -> Result<(), Broken> {
        match action {
            Action::Take(who, purpose) => {
                self.take(state, roster, who, purpose)?;
                while state.lock != Lock::Free {
                    self.go_on(state, roster)?;
                }
            }
            Action::DieMending(who, _, stores) => {
                kill::after(stores, || roster.recover());
                state.lock = Lock::Dirty(In::Mending);
                state.die(who);
            }
            Action::Die(who, purpose, step, stores) => {
                self.take(state, roster, who, purpose)?;
                for _ in 0..step {
                    self.go_on(state, roster)?;
                }
                let Lock::Held(mut hold) = state.lock.clone() else { return Ok(()) };
                let telling = roster.pending().is_some();
                kill::after(stores, || state.step(roster, &mut hold, &mut || ()));
                if let Some(pending) = roster.pending().filter(|pending| pending.begun > 0) {
                    state.interrupted = pending.event.seq;
                }
                state.lock = Lock::Dirty(if telling { In::Telling } else { In::Transition });
                state.die(who);
            }
            Action::Kill(who) => state.die(who),
            Action::Respawn { generation, index } => {
                let worker = &mut state.workers[generation][index];
                worker.predecessors += 1;
                worker.life = Life::Forked;
            }
            Action::Expire => state.late = true,
            Action::Quit => state.master = Master::Stopping,
        }
        Ok(())
    }

    /// Takes the lock, mends what its last holder left, and begins a transaction or resumes one. The
    /// lock is free again if others have continued with that.
    pub(super) fn take(
        &self,
        state: &mut State,
        roster: Roster<'_>,
        who: Who,
        purpose: Purpose,
    ) -> Result<(), Broken> {
        if matches!(state.lock, Lock::Dirty(_)) {
            let corrected = roster.recover().corrected;
            law(corrected == 0, Law::Table, || format!("{corrected} counts were wrong"))?;
        }
        let pid = state.pid(who);
        let suspended = state.worker_mut(who).and_then(|worker| worker.suspended.take());
        let hold = match suspended {
            Some(mut hold) if hold.transaction.resume(roster, pid) => {
                hold.runs = false;
                Some(Hold { purpose, ..*hold })
            }
            Some(_) if purpose == Purpose::Resume => None,
            _ => {
                let purpose = if purpose == Purpose::Finish { Purpose::Exit } else { purpose };
                let admission = roster.admit(u64::from(state.late), |r| !state.lives(r.pid));
                let admitted = admission != Admission::Reserved;
                law(admitted, Law::Order, || format!("{who:?} is not admitted"))?;
                Some(self.hold(state, roster, who, purpose))
            }
        };
        state.late &= roster.reservation().is_some();
        state.lock = hold.map_or(Lock::Free, Lock::Held);
        state.check(roster)
    }

    fn go_on(&self, state: &mut State, roster: Roster<'_>) -> Result<(), Broken> {
        let Lock::Held(mut hold) = state.lock.clone() else { return Ok(()) };
        let (step, began) = state.step(roster, &mut hold, &mut || ());
        self.stepped(state, roster, hold, step, began)?;
        state.check(roster)
    }

    /// What is to be done under the lock.
    fn hold(&self, state: &mut State, roster: Roster<'_>, who: Who, purpose: Purpose) -> Hold {
        let reason = Reason::Signal { number: 9, core: false };
        let lost = |slot| Transition::WorkerLost { slot, reason };
        let of_the_dead = || state.dead(roster).map(lost).collect();
        let worker = state.worker(who);
        let me = worker.and_then(|w| match w.life {
            Life::Registered(slot) => roster.worker(slot).filter(|w| w.pid == state.pid(who)),
            _ => None,
        });
        let recovered = me.filter(|me| me.hung);
        let recovered = recovered.map(|me| Transition::WorkerRecovered { slot: me.slot });
        let mut retire = false;
        // The master's order reaches everybody; who lost the master ends by itself, one by one.
        let stopping = state.master == Master::Stopping;
        let mut todo: Vec<Transition> = Vec::new();
        match (purpose, who) {
            (Purpose::Commit, _) => {
                todo = of_the_dead();
                todo.push(Transition::MasterStart {
                    pid: MASTER_PID,
                    workers: self.workers as u32,
                    began: 1,
                    reload: state.master == Master::Up,
                });
            }
            (Purpose::Start, Who::Worker { generation, index }) => {
                let before = state.pid(who) - 1;
                let predecessor = roster.workers().find(|w| w.pid == before);
                todo.extend(predecessor.map(|w| lost(w.slot)));
                todo.push(Transition::WorkerStart {
                    generation: generation as u64 + 1,
                    pid: state.pid(who),
                    index: index as u32,
                    process_slot: 0,
                    patience: 10,
                    respawn_of: (state.workers[generation][index].predecessors > 0)
                        .then_some(before),
                });
            }
            (Purpose::Look | Purpose::Judge(_), _) => {
                todo = of_the_dead();
                if state.master == Master::Dead && roster.lost_master() == 0 {
                    todo.push(Transition::MasterLost { pid: MASTER_PID });
                }
                todo.extend(recovered);
                if let Purpose::Judge(slot) = purpose {
                    state.hangs -= 1;
                    todo.push(Transition::WorkerHung { slot });
                }
            }
            (Purpose::Exit, _) => {
                if state.master == Master::Dead && me.is_some() {
                    todo = of_the_dead();
                    retire = true;
                }
                todo.extend(recovered);
                todo.extend(me.map(|me| Transition::WorkerExit { slot: me.slot, stopping }));
            }
            (Purpose::Stop, _) => {
                todo = roster.workers().map(|w| lost(w.slot)).collect();
                retire = true;
            }
            (Purpose::Start, Who::Master) | (Purpose::Resume | Purpose::Finish, _) => {}
        }
        let generation = match who {
            Who::Master => roster.current_generation().max(1),
            Who::Worker { generation, .. } => generation as u64 + 1,
        };
        let mut transaction = Transaction::default();
        transaction.add(todo);
        Hold { who, purpose, generation, retire, transaction, runs: false }
    }

    /// What the rest of the node makes of a step.
    pub(super) fn stepped(
        &self,
        state: &mut State,
        roster: Roster<'_>,
        hold: Hold,
        step: Step,
        began: Began,
    ) -> Result<(), Broken> {
        let who = hold.who;
        if let Some((event, index)) = began {
            let now = (event.seq, index);
            law(now > state.heard, Law::Callbacks, || format!("{now:?} again"))?;
            let told = event.seq == state.ledger.seq;
            law(told, Law::Order, || format!("{event:?} after {}", state.ledger.seq))?;
            state.heard = now;
        }
        match step {
            Step::Retired | Step::Did(Did::Begin(..) | Did::Return | Did::Wait | Did::Yield) => {}
            Step::Did(Did::Skip) => return law(false, Law::Table, || "unreadable".to_string()),
            Step::Did(Did::Deliver(event)) => {
                let all = state.heard == (event.seq, CALLBACKS - 1);
                let fine = all || state.interrupted == event.seq;
                law(fine, Law::Callbacks, || format!("{event:?} was not dispatched in full"))?;
            }
            Step::Did(Did::Record(Transition::WorkerStart { .. }, recorded)) => {
                if let Some(worker) = state.worker_mut(who) {
                    let slot = recorded.ok().and_then(|recorded| recorded.slot);
                    worker.life = slot.map_or(Life::Uncounted, Life::Registered);
                }
            }
            Step::Did(Did::Record(next, recorded)) => {
                law(recorded.is_ok(), Law::Table, || format!("{next:?}: {recorded:?}"))?;
            }
            Step::Suspended => {
                state.suspensions -= 1;
                if let Some(worker) = state.worker_mut(who) {
                    worker.suspended = Some(Box::new(hold));
                }
                state.lock = Lock::Free;
                return Ok(());
            }
            Step::Did(Did::Finish) => return self.finished(state, roster, &hold),
        }
        state.lock = Lock::Held(hold);
        Ok(())
    }

    /// A transaction is over.
    fn finished(&self, state: &mut State, roster: Roster<'_>, hold: &Hold) -> Result<(), Broken> {
        let who = hold.who;
        match hold.purpose {
            // What was suspended is finished: now comes the end itself.
            Purpose::Finish => {
                let exit = self.hold(state, roster, who, Purpose::Exit);
                state.lock = Lock::Held(exit);
                return Ok(());
            }
            Purpose::Commit => {
                state.master = Master::Up;
                let current = roster.current_generation() as usize;
                for worker in &mut state.workers[current - 1] {
                    worker.life = Life::Forked;
                }
            }
            Purpose::Exit => {
                // Who is not in the roster can't record anything at its end.
                let worker = state.worker_mut(who).expect("only a worker exits");
                let counted = worker.life != Life::Uncounted;
                worker.life = Life::Gone;
                state.killed &= !counted;
            }
            Purpose::Stop => {
                state.master = Master::Gone;
                state.killed = false;
            }
            Purpose::Start | Purpose::Look | Purpose::Resume | Purpose::Judge(_) => {}
        }
        state.lock = Lock::Free;
        Ok(())
    }
}

/// The hook that a step began.
pub(super) type Began = Option<(roster::Event, u32)>;

impl State {
    /// One step of the holder: of the roster's own transaction.
    pub(super) fn step(
        &self,
        roster: Roster<'_>,
        hold: &mut Hold,
        at: &mut dyn FnMut(),
    ) -> (Step, Began) {
        if std::mem::take(&mut hold.retire) {
            roster.retire_all();
            return (Step::Retired, None);
        }
        let pid = self.pid(hold.who);
        let is_next = roster.pending().is_none();
        if is_next && hold.transaction.transitions().next().is_some_and(is_commit) {
            // From here on the hooks of the new configuration run.
            hold.generation = roster.current_generation() + 1;
        }
        let serves = matches!(hold.purpose, Purpose::Look | Purpose::Resume | Purpose::Judge(_));
        let suspends = serves && self.suspensions > 0;
        let mode = if suspends { Mode::NonBlocking } else { Mode::Blocking };
        let mut process = Process {
            pid,
            generation: hold.generation,
            runs: &mut hold.runs,
            began: None,
            complaint: None,
            at,
        };
        let did = hold.transaction.step(roster, &mut process, mode);
        let began = process.began;
        if let Did::Wait | Did::Yield = did {
            hold.transaction.suspend(roster, pid, 0, 1);
            return (Step::Suspended, began);
        }
        (Step::Did(did), began)
    }
}

fn is_commit(transition: &Transition) -> bool {
    matches!(transition, Transition::MasterStart { .. })
}
