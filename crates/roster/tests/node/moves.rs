//! What happens then: to the memory by the roster's own code, and to the rest of the node.

use roster::{
    kill, Admission, Cause, Did, Mode, News, Peer, Plan, Recorded, Roster, Transaction, Transition,
    Witness, WorkerView,
};

use super::host::Process;
use super::witness::{Eyes, KILLED};
use super::{
    Action, Holder, In, Life, Lock, Master, Node, Purpose, State, Step, Who, CALLBACKS, MASTER_PID,
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
                self.finish(state, roster)?;
            }
            Action::LoseMaster(who) => {
                self.take(state, roster, who, Purpose::Exit)?;
                state.die(Who::Master);
                self.finish(state, roster)?;
                state.lock = Lock::Held(self.hold(state, roster, who, Purpose::Orphan));
                self.finish(state, roster)?;
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
                let Lock::Held(mut holder) = state.lock.clone() else { return Ok(()) };
                let telling = roster.pending().is_some();
                kill::after(stores, || state.step(roster, &mut holder, &mut || ()));
                if let Some(pending) = roster.pending().filter(|pending| pending.begun > 0) {
                    state.interrupted = pending.event.seq;
                }
                state.lock = Lock::Dirty(if telling { In::Telling } else { In::Transition });
                state.die(who);
            }
            Action::Kill(who) => state.die(who),
            Action::Leave(who) => {
                let worker = state.worker_mut(who).expect("a worker");
                worker.life = Life::Gone;
            }
            Action::Respawn { generation, index } => {
                let worker = &mut state.workers[generation][index];
                worker.predecessors += 1;
                worker.life = Life::Forked;
                worker.drains = false;
            }
            Action::Knock => {
                let admission = roster.admit(0, |r| !state.lives(r.pid));
                let reserved = admission == Admission::Reserved;
                law(reserved, Law::Order, || {
                    format!("{admission:?} before one that is to resume")
                })?;
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
        let holder = match suspended {
            Some(mut holder) if holder.transaction.resume(roster, pid) => {
                holder.runs = false;
                Some(Holder { purpose, ..*holder })
            }
            lost if lost.is_some() && purpose == Purpose::Resume => {
                state.give_back(who, lost.as_deref());
                None
            }
            lost => {
                state.give_back(who, lost.as_deref());
                let purpose = if purpose == Purpose::Finish { Purpose::Exit } else { purpose };
                let admission = roster.admit(u64::from(state.late), |r| !state.lives(r.pid));
                let admitted = admission != Admission::Reserved;
                law(admitted, Law::Order, || format!("{who:?} is not admitted"))?;
                Some(self.hold(state, roster, who, purpose))
            }
        };
        state.late &= roster.reservation().is_some();
        state.lock = holder.map_or(Lock::Free, Lock::Held);
        state.check(roster)
    }

    fn finish(&self, state: &mut State, roster: Roster<'_>) -> Result<(), Broken> {
        while state.lock != Lock::Free {
            self.go_on(state, roster)?;
        }
        Ok(())
    }

    fn go_on(&self, state: &mut State, roster: Roster<'_>) -> Result<(), Broken> {
        let Lock::Held(mut holder) = state.lock.clone() else { return Ok(()) };
        if let Some(Transition::WorkerDraining { slot, .. }) =
            holder.transaction.transitions().next()
        {
            let first = roster.worker(*slot).is_none_or(|w| w.draining_since.is_none());
            law(first, Law::OneEnd, || format!("worker {slot} drains twice"))?;
        }
        let (step, began) = state.step(roster, &mut holder, &mut || ());
        self.stepped(state, roster, holder, step, began)?;
        state.check(roster)
    }

    /// What is to be done under the lock: what the roster says that this process records, given what
    /// it knows.
    fn hold(&self, state: &mut State, roster: Roster<'_>, who: Who, purpose: Purpose) -> Holder {
        let newest = roster.current_generation() as usize;
        let eyes = Eyes { node: self, state, who, purpose, newest };
        let me = state.worker(who).and_then(|w| match w.life {
            Life::Registered(slot) => roster.worker(slot).filter(|w| w.pid == state.pid(who)),
            _ => None,
        });
        let mut plan = Plan::default();
        match purpose {
            Purpose::Commit => {
                let reload = state.master == Master::Up;
                plan.transitions = if reload { roster.lost_to_master(&eyes) } else { vec![] };
                plan.transitions.push(Transition::MasterStart {
                    pid: MASTER_PID,
                    workers: self.workers as u32,
                    began: 1,
                    reload,
                });
            }
            Purpose::Fail => plan.transitions = roster.failed_load(1, &eyes),
            Purpose::Start => {
                plan.transitions = roster.lost_before(&eyes);
                plan.transitions.extend(self.start(state, who));
            }
            Purpose::Look | Purpose::Judge(_) => {
                plan.transitions = me.map_or(vec![], |me| self.look(roster, &me, &eyes));
            }
            Purpose::Exit => plan = roster.worker_end(me.as_ref(), &eyes),
            Purpose::Orphan => plan = roster.orphan_end(None, &eyes),
            Purpose::Stop => plan = roster.master_end(&eyes),
            Purpose::Resume | Purpose::Finish => {}
        }
        self.note(state, who, purpose, &plan);
        let generation = match who {
            Who::Master => roster.current_generation().max(1),
            Who::Worker { generation, .. } => generation as u64 + 1,
        };
        let mut transaction = Transaction::default();
        transaction.add(std::mem::take(&mut plan.transitions));
        let plan = (plan != Plan::default()).then_some(plan);
        Holder { who, purpose, generation, plan, transaction, runs: false }
    }

    /// The registration of a worker.
    fn start(&self, state: &State, who: Who) -> Option<Transition> {
        let Who::Worker { generation, index } = who else { return None };
        let pid = state.pid(who);
        Some(Transition::WorkerStart {
            generation: generation as u64 + 1,
            pid,
            index: index as u32,
            process_slot: self.process_slot(who),
            heartbeat_timeout: 10,
            respawn_of: (state.workers[generation][index].predecessors > 0).then_some(pid - 1),
        })
    }

    /// What a worker records from its event loop.
    fn look(&self, roster: Roster<'_>, me: &WorkerView, eyes: &Eyes<'_>) -> Vec<Transition> {
        let dead: Vec<u32> = eyes.state.dead(roster).collect();
        let watched = roster.workers().filter(|w| self.pidfds && dead.contains(&w.slot));
        let mut peers: Vec<Peer> =
            watched.map(|w| Peer::Worker { slot: w.slot, registration: w.registration }).collect();
        if eyes.state.master == Master::Dead {
            peers.push(Peer::Master(MASTER_PID));
        }
        let news = peers.into_iter().filter_map(|peer| {
            match roster.news_of_peer(peer, 0, || Cause::Known(KILLED), eyes) {
                News::Record(transition) => Some(transition),
                News::Wait | News::Settled => None,
            }
        });
        let draining = eyes.take_draining(me, eyes.is_stopping(roster, me));
        let of_itself: Vec<Transition> = draining.into_iter().collect();
        roster.seen_by_worker(me.registration, news.collect(), &of_itself, eyes)
    }

    /// What a plan leaves of what the node may still do.
    fn note(&self, state: &mut State, who: Who, purpose: Purpose, plan: &Plan) {
        let is_hang = |told: &Transition| matches!(told, Transition::WorkerHung { .. });
        state.hangs -= u8::from(plan.transitions.iter().any(is_hang));
        state.failures -= u8::from(purpose == Purpose::Fail);
        if let Some(worker) = state.worker_mut(who) {
            worker.drains |= plan.transitions.iter().any(is_draining);
        }
    }

    /// What the rest of the node makes of a step.
    pub(super) fn stepped(
        &self,
        state: &mut State,
        roster: Roster<'_>,
        holder: Holder,
        step: Step,
        began: Began,
    ) -> Result<(), Broken> {
        let who = holder.who;
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
                if let (Transition::WorkerLost { .. }, Ok(Recorded { event, .. })) =
                    (next, recorded)
                {
                    let lives = state.lives(event.pid);
                    law(!lives, Law::OneEnd, || format!("{event:?} of one that lives"))?;
                }
            }
            Step::Suspended => {
                state.suspensions -= 1;
                if let Some(worker) = state.worker_mut(who) {
                    worker.suspended = Some(Box::new(holder));
                }
                state.lock = Lock::Free;
                return Ok(());
            }
            Step::Did(Did::Finish) => return self.finished(state, roster, &holder),
        }
        state.lock = Lock::Held(holder);
        Ok(())
    }

    /// A transaction is over.
    fn finished(
        &self,
        state: &mut State,
        roster: Roster<'_>,
        holder: &Holder,
    ) -> Result<(), Broken> {
        let who = holder.who;
        match holder.purpose {
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
            Purpose::Exit | Purpose::Orphan => {
                let worker = state.worker_mut(who).expect("only a worker exits");
                worker.life = Life::Gone;
                state.killed = false;
            }
            Purpose::Stop => {
                state.master = Master::Gone;
                state.killed = false;
            }
            Purpose::Fail
            | Purpose::Start
            | Purpose::Look
            | Purpose::Resume
            | Purpose::Judge(_) => {}
        }
        state.lock = Lock::Free;
        Ok(())
    }
}

/// The hook that a step began.
pub(super) type Began = Option<(roster::Event, u32)>;

impl State {
    /// What a worker was to record of itself, and others have continued before, is still to be recorded.
    fn give_back(&mut self, who: Who, lost: Option<&Holder>) {
        let is_lost = lost.is_some_and(|holder| holder.transaction.transitions().any(is_draining));
        if let Some(worker) = self.worker_mut(who) {
            worker.drains &= !is_lost;
        }
    }

    /// One step of the holder: of the roster's own transaction.
    pub(super) fn step(
        &self,
        roster: Roster<'_>,
        holder: &mut Holder,
        at: &mut dyn FnMut(),
    ) -> (Step, Began) {
        if let Some(plan) = holder.plan.take() {
            plan.begin(roster);
            return (Step::Retired, None);
        }
        let pid = self.pid(holder.who);
        let is_next = roster.pending().is_none();
        if is_next && holder.transaction.transitions().next().is_some_and(is_commit) {
            // From here on the hooks of the new configuration run.
            holder.generation = roster.current_generation() + 1;
        }
        let serves = matches!(holder.purpose, Purpose::Look | Purpose::Resume | Purpose::Judge(_));
        let suspends = serves && self.suspensions > 0;
        let mode = if suspends { Mode::NonBlocking } else { Mode::Blocking };
        let mut process = Process {
            pid,
            generation: holder.generation,
            runs: &mut holder.runs,
            began: None,
            complaint: None,
            at,
        };
        let did = holder.transaction.step(roster, &mut process, mode);
        let began = process.began;
        if let Did::Wait | Did::Yield = did {
            holder.transaction.suspend(roster, pid, 0, 1);
            return (Step::Suspended, began);
        }
        (Step::Did(did), began)
    }
}

fn is_commit(transition: &Transition) -> bool {
    matches!(transition, Transition::MasterStart { .. })
}

fn is_draining(transition: &Transition) -> bool {
    matches!(transition, Transition::WorkerDraining { .. })
}
