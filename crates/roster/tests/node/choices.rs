//! What can happen next.

use roster::{kill, Roster};

use super::{Action, Dying, Life, Lock, Master, Node, Purpose, State, Who, Worker, MEMORY};

impl Node {
    /// Everything that can happen next.
    pub fn actions(&self, state: &State, to: &mut Vec<Action>) {
        if state.broken.is_some() {
            return;
        }
        let first = to.len();
        state.with(|roster| self.takes(state, roster, to));
        if state.deaths > 0 {
            for i in first..to.len() {
                if let Action::Take(who, purpose) = to[i] {
                    self.deaths(state, who, purpose, to);
                    if purpose == Purpose::Exit && state.is_master_alive() {
                        to.push(Action::LoseMaster(who));
                    }
                }
            }
        }
        if state.master == Master::Up {
            to.push(Action::Quit);
        }
        let reserved = state.with(|roster| roster.reservation());
        if reserved.is_some_and(|r| state.lives(r.pid)) && !state.late {
            to.push(Action::Expire);
            to.push(Action::Knock);
        }
        for (who, worker) in state.living() {
            if state.deaths > 0 && !state.is_like_one_before(who, worker) {
                to.push(Action::Kill(who));
            }
        }
        if state.deaths > 0 && state.is_master_alive() {
            to.push(Action::Kill(Who::Master));
        }
    }

    /// Where who takes the lock may be killed.
    fn deaths(&self, state: &State, who: Who, purpose: Purpose, to: &mut Vec<Action>) {
        let mut state = state.clone();
        if matches!(state.lock, Lock::Dirty(_)) {
            let (_, stores) = state.with(|roster| kill::after(u64::MAX, || roster.recover()));
            let every = if self.dying == Dying::AtStores { 1 } else { stores.max(1) };
            let stores = (0..=stores).step_by(every as usize);
            to.extend(stores.map(|store| Action::DieMending(who, purpose, store)));
        }
        MEMORY.with_borrow(|memory| {
            memory.restore(&state.words);
            let roster = memory.roster();
            if self.take(&mut state, roster, who, purpose).is_err() {
                return;
            }
            for step in 0.. {
                let Lock::Held(mut holder) = state.lock.clone() else { break };
                let mut steps = vec![0];
                let ((did, began), stores) = kill::after(u64::MAX, || {
                    state.step(roster, &mut holder, &mut || steps.push(kill::made()))
                });
                let points = match self.dying {
                    Dying::AtStores => (0..=stores).collect(),
                    Dying::AtSteps => {
                        steps.push(stores);
                        steps.dedup();
                        steps
                    }
                };
                to.extend(points.into_iter().map(|at| Action::Die(who, purpose, step, at)));
                if self.stepped(&mut state, roster, holder, did, began).is_err() {
                    break;
                }
            }
        });
    }

    /// Who may take the lock, and for what.
    fn takes(&self, state: &State, roster: Roster<'_>, to: &mut Vec<Action>) {
        let current = roster.current_generation() as usize;
        let is_open = state.is_open(roster);
        for (who, worker) in state.living() {
            let quits = state.quits(who, current);
            if worker.suspended.is_some() {
                to.push(Action::Take(who, Purpose::Resume));
                let pid = state.pid(who);
                let is_mine = roster.reservation().is_some_and(|r| r.pid == pid);
                if quits && (is_open || is_mine) {
                    to.push(Action::Take(who, Purpose::Finish));
                }
            } else if is_open {
                self.takes_of_worker(state, roster, who, worker, quits, to);
            }
        }
        if is_open {
            self.takes_of_master(state, current, to);
        }
    }

    fn takes_of_worker(
        &self,
        state: &State,
        roster: Roster<'_>,
        who: Who,
        worker: &Worker,
        quits: bool,
        to: &mut Vec<Action>,
    ) {
        match worker.life {
            Life::Forked if !state.is_like_one_before(who, worker) => {
                to.push(Action::Take(who, Purpose::Start));
            }
            Life::Registered(slot) => {
                let dead: Vec<u32> = state.dead(roster).collect();
                let untold = roster.is_unfinished()
                    || state.master == Master::Dead && roster.lost_master().is_none()
                    || self.drains && quits && !worker.drains;
                let hung = roster.worker(slot).is_some_and(|w| w.hung);
                if untold || hung || (self.pidfds && !dead.is_empty()) {
                    to.push(Action::Take(who, Purpose::Look));
                }
                let others = roster.workers().filter(|w| w.slot != slot);
                let misses = others.filter(|w| match dead.contains(&w.slot) {
                    true => !self.pidfds || self.hangs > 0,
                    false => state.hangs > 0 && !w.hung,
                });
                to.extend(misses.map(|w| Action::Take(who, Purpose::Judge(w.slot))));
                if quits {
                    to.push(Action::Take(who, Purpose::Exit));
                }
            }
            Life::Uncounted if quits => to.push(match state.master {
                // It may be the last, and records the losses of the others then.
                Master::Dead => Action::Take(who, Purpose::Exit),
                _ => Action::Leave(who),
            }),
            _ => {}
        }
    }

    fn takes_of_master(&self, state: &State, current: usize, to: &mut Vec<Action>) {
        match state.master {
            Master::Down => to.push(Action::Take(Who::Master, Purpose::Commit)),
            Master::Up => {
                if state.failures > 0 {
                    to.push(Action::Take(Who::Master, Purpose::Fail));
                }
                if current < self.generations {
                    to.push(Action::Take(Who::Master, Purpose::Commit));
                }
                for (index, worker) in state.workers[current - 1].iter().enumerate() {
                    if worker.life == Life::Dead {
                        to.push(Action::Respawn { generation: current - 1, index });
                    }
                }
            }
            Master::Stopping if state.living().next().is_none() => {
                to.push(Action::Take(Who::Master, Purpose::Stop));
            }
            _ => {}
        }
    }
}
