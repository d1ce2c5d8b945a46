//! The transitions: what can happen to a roster, and what each leaves behind.

use std::fmt;
use std::sync::atomic::Ordering::{Relaxed, Release};

use crate::event::{Event, Kind, Reason};
use crate::journal::{Change, WorkerChange};
use crate::layout::NONE;
use crate::sync::AtomicU64;
use crate::table::Roster;
use crate::views::{GenerationView, WorkerView};

/// The time of a transition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Wall clock, milliseconds since 1970.
    pub wall: i64,
    /// Monotonic clock, milliseconds.
    pub monotonic: u64,
    /// Clock that also counts sleep, milliseconds since boot.
    pub since_boot: u64,
}

/// Something that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transition {
    /// A generation is committed; all older ones retire. Its number is the next.
    MasterStart {
        /// The process that commits it.
        pid: i32,
        /// How many workers it is to have, `worker_processes`.
        workers: u32,
        /// When its configuration began to be read, milliseconds of the monotonic clock.
        began: u64,
        /// Whether there was one before it in this master.
        reload: bool,
    },
    /// All workers of a generation have started.
    MasterReady {
        /// Its number.
        generation: u64,
        /// The process that says so.
        pid: i32,
    },
    /// A reload did not commit.
    ReloadFailed {
        /// The master.
        pid: i32,
        /// When it began, milliseconds of the monotonic clock.
        began: u64,
    },
    /// The master died and workers live on.
    MasterLost {
        /// The master that died.
        pid: i32,
    },
    /// A worker was told to quit gracefully and has stopped accepting.
    WorkerDraining {
        /// Its slot.
        slot: u32,
        /// The connections it has still open.
        connections: u32,
        /// Whether it does so since the node stops.
        stopping: bool,
    },
    /// A worker drains for longer than it should.
    WorkerStuck {
        /// Its slot.
        slot: u32,
        /// The connections it has still open.
        connections: u32,
    },
    /// A generation is over.
    MasterExit {
        /// Its number.
        generation: u64,
        /// The process that says so.
        pid: i32,
    },
    /// A worker begins.
    WorkerStart {
        /// The generation it belongs to.
        generation: u64,
        /// Its process.
        pid: i32,
        /// Its index.
        index: u32,
        /// Its slot in the master's table of processes.
        process_slot: u32,
        /// How old its heartbeat may get, milliseconds.
        heartbeat_timeout: u32,
        /// The process in whose place nginx started it, none if in nobody's. If that died before it
        /// registered, the event names the one before it.
        respawn_of: Option<i32>,
    },
    /// A worker ends in an orderly way.
    WorkerExit {
        /// Its slot, from [`Recorded::slot`].
        slot: u32,
        /// Whether it does so since the node stops.
        stopping: bool,
    },
    /// A worker died without a word.
    WorkerLost {
        /// Its slot.
        slot: u32,
        /// Why.
        reason: Reason,
    },
    /// A worker missed its heartbeat: it is no longer counted.
    WorkerHung {
        /// Its slot.
        slot: u32,
    },
    /// A hung worker beat again: it is counted again.
    WorkerRecovered {
        /// Its slot.
        slot: u32,
    },
}

/// Why a transition can't be recorded. Nothing has changed then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// No slot for another generation.
    Generations,
    /// No slot for another worker.
    Workers,
    /// The transition is about a generation or worker that the roster doesn't have.
    Unknown,
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Full::Generations => "no room for another generation",
            Full::Workers => "no room for another worker",
            Full::Unknown => "no such generation or worker",
        })
    }
}

/// The moments of [`Roster::record`] at which a process may die, for tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing has changed yet.
    Planned,
    /// The change is written down: it will happen.
    Journaled,
    /// Some of it is carried out.
    Applying,
    /// All of it is.
    Recorded,
}

/// A transition that was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// The event to tell.
    pub event: Event,
    /// The slot of the worker it is about.
    pub slot: Option<u32>,
    /// The slot of the generation it is about.
    pub generation_slot: u32,
}

impl Roster<'_> {
    /// Records a transition, whole or not at all. The caller holds the lock. `step` is told how far
    /// it is.
    pub fn record(
        &self,
        transition: Transition,
        now: Now,
        step: &mut dyn FnMut(Step),
    ) -> Result<Recorded, Full> {
        let change = self.plan(transition, now)?;
        step(Step::Planned);
        self.journal(&change);
        step(Step::Journaled);
        self.apply(&change, &mut || step(Step::Applying));
        step(Step::Recorded);
        Ok(Recorded {
            event: change.event,
            slot: change.worker.map(|w| w.to.slot),
            generation_slot: change.generation.to.slot,
        })
    }

    fn plan(&self, transition: Transition, now: Now) -> Result<Change, Full> {
        match transition {
            Transition::MasterStart { pid, workers, began, reload } => {
                let mut change = self.plan_master_start(pid, workers, began, now)?;
                if reload {
                    // There was one before it, if only in another zone or without a place in this.
                    change.event.n_prev.get_or_insert(0);
                    let reloads = &mut change.reloads;
                    reloads.succeeded = reloads.succeeded.saturating_add(1);
                    reloads.succeeded_at = now.wall;
                    reloads.last_failed = false;
                    reloads.duration = now.monotonic.saturating_sub(began);
                }
                Ok(change)
            }
            Transition::MasterReady { generation, pid } => {
                let g = self.generation(generation).ok_or(Full::Unknown)?;
                let mut event = self.event_of(Kind::MasterReady, generation, pid, now);
                let ready_after = since(g.began, now);
                event.duration = Some(ready_after);
                let g = GenerationView { ready: true, ready_after, ..g };
                Ok(self.change(event, g, None))
            }
            Transition::ReloadFailed { pid, began } => {
                let g = self.generation(self.current_generation()).ok_or(Full::Unknown)?;
                let mut event = self.event_of(Kind::ReloadFailed, g.number, pid, now);
                event.duration = Some(since(began, now));
                let mut change = self.change(event, g, None);
                change.reloads.failed = change.reloads.failed.saturating_add(1);
                change.reloads.failed_at = now.wall;
                change.reloads.last_failed = true;
                change.reloads.duration = now.monotonic.saturating_sub(began);
                Ok(change)
            }
            Transition::MasterLost { pid } => {
                let newest = self.generations().max_by_key(|g| g.number).ok_or(Full::Unknown)?;
                let event = self.event_of(Kind::MasterLost, newest.number, pid, now);
                let mut change = self.change(event, newest, None);
                change.lost_master = pid;
                Ok(change)
            }
            Transition::WorkerDraining { slot, connections, stopping } => {
                let (w, g) = self.worker_and_generation(slot)?;
                let mut event = self.worker_event(Kind::WorkerDraining, &w, None, now);
                event.connections = Some(connections);
                event.duration = None;
                event.stopping |= stopping;
                let w = WorkerView { draining_since: now.monotonic.max(1), ..w };
                Ok(self.change(event, g, Some(w.into())))
            }
            Transition::WorkerStuck { slot, connections } => {
                let (w, g) = self.worker_and_generation(slot)?;
                let mut event = self.worker_event(Kind::WorkerStuck, &w, None, now);
                event.connections = Some(connections);
                Ok(self.change(event, g, Some(WorkerView { stuck: true, ..w }.into())))
            }
            Transition::MasterExit { generation, pid } => {
                let g = self.generation(generation).ok_or(Full::Unknown)?;
                let event = self.event_of(Kind::MasterExit, generation, pid, now);
                let mut change = self.change(event, g, None);
                change.generation.ends = true;
                Ok(change)
            }
            Transition::WorkerStart {
                generation,
                pid,
                index,
                process_slot,
                heartbeat_timeout,
                respawn_of,
            } => {
                let w = WorkerView {
                    slot: self.free_slot(),
                    generation,
                    pid,
                    index,
                    process_slot,
                    hung: false,
                    since_boot: now.since_boot,
                    beat: now.monotonic.max(1),
                    heartbeat_timeout,
                    next: NONE,
                    draining_since: 0,
                    stuck: false,
                    respawns: 0,
                    connections: None,
                    registration: 0,
                };
                self.plan_worker_start(w, respawn_of, now)
            }
            Transition::WorkerExit { slot, stopping } => {
                let mut change = self.plan_end(slot, None, now)?;
                change.event.stopping |= stopping;
                Ok(change)
            }
            Transition::WorkerLost { slot, reason } => self.plan_end(slot, Some(reason), now),
            Transition::WorkerHung { slot } => {
                let (w, g) = self.worker_and_generation(slot)?;
                let event = self.worker_event(Kind::WorkerHung, &w, None, now);
                let g = GenerationView { running: g.running.saturating_sub(1), ..g };
                Ok(self.change(event, g, Some(WorkerView { hung: true, ..w }.into())))
            }
            Transition::WorkerRecovered { slot } => {
                let (w, g) = self.worker_and_generation(slot)?;
                let g = GenerationView { running: g.running.saturating_add(1), ..g };
                let mut event = self.worker_event(Kind::WorkerRecovered, &w, None, now);
                event.n_mine = g.running;
                let w = WorkerView { hung: false, beat: now.monotonic.max(1), ..w };
                let w = WorkerChange { beats: true, ..w.into() };
                Ok(self.change(event, g, Some(w)))
            }
        }
    }

    fn plan_master_start(
        &self,
        pid: i32,
        workers: u32,
        began: u64,
        now: Now,
    ) -> Result<Change, Full> {
        let slot = self.generations.iter().position(|g| g.number.load(Relaxed) == 0);
        let slot = slot.ok_or(Full::Generations)? as u32;
        // Only a bound for those who look, so it may go up even if nothing comes of this.
        self.head.generation_limit.fetch_max(slot + 1, Release);
        let number = self.current_generation().saturating_add(1);
        let mut event = self.event_of(Kind::MasterStart, number, pid, now);
        event.duration = Some(since(began, now));
        // Whatever was thought before.
        event.stopping = false;
        let g = GenerationView {
            slot,
            number,
            retired: false,
            running: 0,
            present: 0,
            began,
            expected: workers,
            ready: false,
            ready_after: 0,
            started: now.wall,
        };
        let mut change = self.change(event, g, None);
        change.current = number;
        change.lost_master = 0;
        change.retires_older = true;
        Ok(change)
    }

    fn plan_worker_start(
        &self,
        w: WorkerView,
        respawn_of: Option<i32>,
        now: Now,
    ) -> Result<Change, Full> {
        let g = self.generation(w.generation).ok_or(Full::Generations)?;
        let record = self.workers.get(w.slot as usize).ok_or(Full::Workers)?;
        let respawns = self.respawns_of_index(w.index, w.generation);
        let w = WorkerView { respawns: respawns.unwrap_or(0), ..w };
        let running = g.running.saturating_add(1);
        let g = GenerationView { running, present: g.present.saturating_add(1), ..g };
        let event = Event {
            worker: Some(w.index),
            n_mine: g.running,
            stopping: false,
            respawn_of: respawn_of.and_then(|last| self.place_of(&w, last)),
            ..self.event_of(Kind::WorkerStart, w.generation, w.pid, now)
        };
        let w_change = WorkerChange { beats: true, ..w.into() };
        let mut change = self.change(event, g, Some(w_change));
        let more = u64::from(respawns.is_some());
        change.respawn_count = change.respawn_count.saturating_add(more);
        change.index_respawns = u64::from(w.respawns) | w.generation << 32;
        change.index_pid = w.pid as u32;
        if w.slot < change.worker_limit {
            change.free_worker = record.next.load(Relaxed);
        } else {
            change.worker_limit = w.slot + 1;
        }
        Ok(change)
    }

    /// A worker's end, with a reason if it was lost.
    fn plan_end(&self, slot: u32, reason: Option<Reason>, now: Now) -> Result<Change, Full> {
        let (w, g) = self.worker_and_generation(slot)?;
        let kind = if reason.is_some() { Kind::WorkerLost } else { Kind::WorkerExit };
        let event = self.worker_event(kind, &w, reason, now);
        let running = g.running.saturating_sub(u32::from(!w.hung));
        let g = GenerationView { running, present: g.present.saturating_sub(1), ..g };
        let next = self.head.free_worker.load(Relaxed);
        let w = WorkerView { hung: false, next, ..w };
        let w = WorkerChange { ends: true, ..w.into() };
        let mut change = self.change(event, g, Some(w));
        change.free_worker = slot;
        Ok(change)
    }

    fn worker_and_generation(&self, slot: u32) -> Result<(WorkerView, GenerationView), Full> {
        let w = self.worker(slot).ok_or(Full::Unknown)?;
        let g = self.generation(w.generation).ok_or(Full::Unknown)?;
        Ok((w, g))
    }

    /// How many workers of a generation had an index before; none if none had.
    fn respawns_of_index(&self, index: u32, generation: u64) -> Option<u32> {
        let word = self.workers.get(index as usize)?.index_respawns.load(Relaxed);
        // A zero word is of no generation.
        (word >> 32 == generation & 0xffff_ffff && word != 0)
            .then(|| (word as u32).saturating_add(1))
    }

    /// The last worker that was told of in the place of `w`. nginx started `w` in that of the process
    /// `last`, which may have died before it registered.
    fn place_of(&self, w: &WorkerView, last: i32) -> Option<i32> {
        let registered = || {
            self.respawns_of_index(w.index, w.generation)?;
            let last = self.workers.get(w.index as usize)?.index_pid.load(Relaxed) as i32;
            self.workers().all(|w| w.pid != last).then_some(last)
        };
        // Workers of other generations may have begun with that index since, and nginx gives the place of
        // an old one that died in a reload to a new one.
        let ended = || {
            let is_end = |kind| matches!(kind, Kind::WorkerExit | Kind::WorkerLost);
            let mut history = self.history();
            history.any(|(event, _)| event.pid == last && is_end(event.kind)).then_some(last)
        };
        registered().or_else(ended)
    }

    fn change(&self, event: Event, g: GenerationView, worker: Option<WorkerChange>) -> Change {
        let count = |count: &AtomicU64| count.load(Relaxed);
        let of_index = worker.and_then(|w| self.workers.get(w.to.index as usize));
        Change {
            kind_count: count(&self.head.kinds[event.kind as usize]).saturating_add(1),
            loss_count: event
                .reason
                .map_or(0, |r| count(&self.head.losses[r.index()]).saturating_add(1)),
            respawn_count: count(&self.head.respawns),
            index_respawns: of_index.map_or(0, |record| count(&record.index_respawns)),
            index_pid: of_index.map_or(0, |record| record.index_pid.load(Relaxed)),
            // What a change leaves is what it makes of its generation.
            event: Event { n_left: g.running, ..event },
            generation: g.into(),
            worker,
            current: self.current_generation(),
            free_worker: self.head.free_worker.load(Relaxed),
            worker_limit: self.head.worker_limit.load(Relaxed),
            reloads: self.reloads(),
            lost_master: self.lost_master(),
            retires_older: false,
        }
    }

    fn event_of(&self, kind: Kind, generation: u64, pid: i32, now: Now) -> Event {
        let counts = self.counts(generation);
        Event {
            seq: self.seq().saturating_add(1),
            time: now.wall,
            kind,
            generation,
            pid,
            worker: None,
            n_prev: counts.n_prev,
            n_mine: counts.n_mine,
            n_next: counts.n_next,
            n_older: counts.n_older,
            n_left: counts.n_mine,
            stopping: self.is_stopping(),
            respawn_of: None,
            history: self.history_id(),
            reason: None,
            connections: None,
            duration: None,
        }
    }

    fn worker_event(&self, kind: Kind, w: &WorkerView, reason: Option<Reason>, now: Now) -> Event {
        let event = self.event_of(kind, w.generation, w.pid, now);
        let duration = (w.draining_since != 0).then(|| since(w.draining_since, now));
        Event { worker: Some(w.index), reason, duration, ..event }
    }
}

/// Milliseconds since a moment of the monotonic clock.
fn since(moment: u64, now: Now) -> u32 {
    // One less than the word that means none.
    now.monotonic.saturating_sub(moment).min(u64::from(u32::MAX - 1)) as u32
}
