//! What happens then: to the memory by the roster's own code, and to the rest of the node.

use roster::{kill, Reason, Roster, Transition};

use super::{
    Action, Did, Hold, In, Life, Lock, Master, Mistake, Node, Purpose, State, Who, CALLBACKS,
    MASTER_PID, MEMORY,
};
use crate::common::{check_snapshot, law, Broken, Law, NOW};

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
                kill::after(stores, || self.step(roster, &mut hold, &mut || ()));
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
            Action::Suspect(who, slot) => {
                if let Some(worker) = state.worker_mut(who) {
                    worker.suspect = Some(slot);
                }
            }
            Action::Quit => state.master = Master::Stopping,
        }
        Ok(())
    }

    /// Takes the lock, and mends what its last holder left.
    pub(super) fn take(
        &self,
        state: &mut State,
        roster: Roster<'_>,
        who: Who,
        purpose: Purpose,
    ) -> Result<(), Broken> {
        if matches!(state.lock, Lock::Dirty(_)) && self.mistake != Some(Mistake::NoRecovery) {
            if self.mistake == Some(Mistake::NoJournal) {
                roster.forget_journal();
            }
            let corrected = roster.recover().corrected;
            law(corrected == 0, Law::Table, || format!("{corrected} counts were wrong"))?;
        }
        let hold = self.hold(state, roster, who, purpose);
        state.lock = Lock::Held(hold);
        state.check(roster)
    }

    fn go_on(&self, state: &mut State, roster: Roster<'_>) -> Result<(), Broken> {
        let Lock::Held(mut hold) = state.lock.clone() else { return Ok(()) };
        let did = self.step(roster, &mut hold, &mut || ());
        self.stepped(state, roster, hold, did)?;
        state.check(roster)
    }

    /// What is to be done under the lock, as `lifecycle.rs` and `watch.rs` see it.
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
                let seen = worker.and_then(|worker| worker.suspect);
                todo = match self.mistake {
                    Some(Mistake::LooksOnce) => seen.map(lost).into_iter().collect(),
                    _ => of_the_dead(),
                };
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
            (Purpose::Start, Who::Master) => {}
        }
        if let Some(worker) = state.worker_mut(who) {
            worker.suspect = None;
        }
        let generation = match who {
            Who::Master => roster.current_generation().max(1),
            Who::Worker { generation, .. } => generation as u64 + 1,
        };
        Hold { who, purpose, generation, retire, todo, recorded: 0 }
    }

    /// One step of the holder, as `hold.rs` goes.
    pub(super) fn step(&self, roster: Roster<'_>, hold: &mut Hold, at: &mut dyn FnMut()) -> Did {
        if std::mem::take(&mut hold.retire) {
            roster.retire_all();
            return Did::Retired;
        }
        if roster.skip_unreadable() {
            return Did::Unreadable;
        }
        if let Some(pending) = roster.pending() {
            let event = pending.event;
            let taken_over = hold.recorded != event.seq;
            let begun = match pending.begun {
                0 => 0,
                _ if self.mistake == Some(Mistake::ForgetsCallbacks) && taken_over => {
                    hold.recorded = event.seq;
                    0
                }
                begun if pending.generation == hold.generation => begun,
                _ => CALLBACKS,
            };
            if begun < CALLBACKS {
                roster.begin_callback(event.seq, hold.generation, begun);
                return Did::Began(event, begun);
            }
            roster.delivered(event.seq, 0);
            return Did::Delivered(event);
        }
        let next = if !hold.todo.is_empty() {
            hold.todo.remove(0)
        } else if let Some(generation) = roster.ready() {
            Transition::MasterReady { generation, pid: MASTER_PID }
        } else if let Some(generation) = roster.over() {
            Transition::MasterExit { generation, pid: MASTER_PID }
        } else {
            return Did::Released;
        };
        if let Transition::MasterStart { .. } = next {
            hold.generation = roster.current_generation() + 1;
        }
        let recorded = roster.record(next, NOW, &mut |_| at());
        hold.recorded = recorded.map_or(0, |recorded| recorded.event.seq);
        Did::Recorded(next, recorded)
    }

    /// What the rest of the node makes of it.
    pub(super) fn stepped(
        &self,
        state: &mut State,
        roster: Roster<'_>,
        hold: Hold,
        did: Did,
    ) -> Result<(), Broken> {
        let who = hold.who;
        match did {
            Did::Retired => {}
            Did::Unreadable => return law(false, Law::Table, || "unreadable event".to_string()),
            Did::Began(event, index) => {
                let now = (event.seq, index);
                law(now > state.heard, Law::Callbacks, || format!("{now:?} again"))?;
                let told = event.seq == state.ledger.seq;
                law(told, Law::Order, || format!("{event:?} after {}", state.ledger.seq))?;
                state.heard = now;
            }
            Did::Delivered(event) => {
                let all = state.heard == (event.seq, CALLBACKS - 1);
                let fine = all || state.interrupted == event.seq;
                law(fine, Law::Callbacks, || format!("{event:?} was not told in full"))?;
            }
            Did::Recorded(Transition::WorkerStart { .. }, recorded) => {
                if let Some(worker) = state.worker_mut(who) {
                    let slot = recorded.ok().and_then(|recorded| recorded.slot);
                    worker.life = slot.map_or(Life::Uncounted, Life::Registered);
                }
            }
            Did::Recorded(next, recorded) => {
                law(recorded.is_ok(), Law::Table, || format!("{next:?}: {recorded:?}"))?;
            }
            Did::Released => {
                match hold.purpose {
                    Purpose::Commit => {
                        state.master = Master::Up;
                        let current = roster.current_generation() as usize;
                        for worker in &mut state.workers[current - 1] {
                            worker.life = Life::Forked;
                        }
                    }
                    Purpose::Exit => {
                        // Who is not in the roster can't tell anything at its end.
                        let worker = state.worker_mut(who);
                        let worker = worker.expect("only a worker exits");
                        let counted = worker.life != Life::Uncounted;
                        worker.life = Life::Gone;
                        state.killed &= !counted;
                    }
                    Purpose::Stop => {
                        state.master = Master::Gone;
                        state.killed = false;
                    }
                    _ => {}
                }
                state.lock = Lock::Free;
                return Ok(());
            }
        }
        state.lock = Lock::Held(hold);
        Ok(())
    }
}
