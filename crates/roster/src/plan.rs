//! What each transition leaves behind: the change that is then written down and carried out.

use std::sync::atomic::Ordering::{Relaxed, Release};

use crate::event::{Event, Kind, Reason};
use crate::journal::{Change, WorkerChange};
use crate::layout::NONE;
use crate::sync::AtomicU64;
use crate::table::Roster;
use crate::transition::{Full, Now, Transition};
use crate::views::{GenerationView, WorkerView};

impl Roster<'_> {
    /// What a transition is to change.
    pub(crate) fn plan(&self, transition: Transition, now: Now) -> Result<Change, Full> {
        Planner { roster: *self, kind: transition.kind(), now }.plan(transition)
    }
}

/// Plans the change of one transition, which records an event of this kind.
struct Planner<'a> {
    roster: Roster<'a>,
    kind: Kind,
    now: Now,
}

impl Planner<'_> {
    fn plan(&self, transition: Transition) -> Result<Change, Full> {
        match transition {
            Transition::MasterStart { pid, workers, began, reload } => {
                self.master_start(pid, workers, began, reload)
            }
            Transition::MasterReady { generation, pid } => self.master_ready(generation, pid),
            Transition::ReloadFailed { pid, began } => self.reload_failed(pid, began),
            Transition::MasterLost { pid } => self.master_lost(pid),
            Transition::MasterExit { generation, pid } => self.master_exit(generation, pid),
            Transition::WorkerStart {
                generation,
                pid,
                index,
                process_slot,
                heartbeat_timeout,
                respawn_of,
            } => {
                let w = WorkerView {
                    slot: self.roster.free_slot(),
                    generation,
                    pid,
                    index,
                    process_slot,
                    hung: false,
                    since_boot: self.now.since_boot,
                    beat: self.now.monotonic.max(1),
                    heartbeat_timeout,
                    next: NONE,
                    draining_since: None,
                    stuck: false,
                    respawns: 0,
                    connections: None,
                    registration: 0,
                };
                self.worker_start(w, respawn_of)
            }
            Transition::WorkerDraining { slot, connections, stopping } => {
                self.worker_draining(slot, connections, stopping)
            }
            Transition::WorkerStuck { slot, connections } => self.worker_stuck(slot, connections),
            Transition::WorkerExit { slot, stopping } => {
                let mut change = self.worker_end(slot, None)?;
                change.event.stopping |= stopping;
                Ok(change)
            }
            Transition::WorkerLost { slot, reason } => self.worker_end(slot, Some(reason)),
            Transition::WorkerHung { slot } => self.worker_hung(slot),
            Transition::WorkerRecovered { slot } => self.worker_recovered(slot),
        }
    }

    fn master_start(
        &self,
        pid: i32,
        workers: u32,
        began: u64,
        reload: bool,
    ) -> Result<Change, Full> {
        let roster = self.roster;
        let slot = roster.generations.iter().position(|g| g.number.load(Relaxed) == 0);
        let slot = slot.ok_or(Full::Generations)? as u32;
        // Only a bound for readers, so it may go up even if nothing comes of this.
        roster.head.generation_limit.fetch_max(slot.saturating_add(1), Release);
        let number = roster.current_generation().saturating_add(1);
        let mut event = self.event_of(number, pid);
        event.duration = Some(self.since(began));
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
            started: self.now.wall,
        };
        let mut change = self.change(event, g, None);
        change.current = number;
        change.lost_master = None;
        change.retires_older = true;
        if reload {
            // There was one before it, if only in another zone or without a place in this.
            change.event.n_prev.get_or_insert(0);
            let reloads = &mut change.reloads;
            reloads.succeeded = reloads.succeeded.saturating_add(1);
            reloads.succeeded_at = Some(self.now.wall);
            reloads.last_failed = false;
            reloads.duration = self.now.monotonic.saturating_sub(began);
        }
        Ok(change)
    }

    fn master_ready(&self, generation: u64, pid: i32) -> Result<Change, Full> {
        let g = self.roster.generation(generation).ok_or(Full::Unknown)?;
        let ready_after = self.since(g.began);
        let event = Event { duration: Some(ready_after), ..self.event_of(generation, pid) };
        Ok(self.change(event, GenerationView { ready: true, ready_after, ..g }, None))
    }

    fn reload_failed(&self, pid: i32, began: u64) -> Result<Change, Full> {
        let current = self.roster.current_generation();
        let g = self.roster.generation(current).ok_or(Full::Unknown)?;
        let duration = Some(self.since(began));
        let event = Event { duration, ..self.event_of(g.number, pid) };
        let mut change = self.change(event, g, None);
        let reloads = &mut change.reloads;
        reloads.failed = reloads.failed.saturating_add(1);
        reloads.failed_at = Some(self.now.wall);
        reloads.last_failed = true;
        reloads.duration = self.now.monotonic.saturating_sub(began);
        Ok(change)
    }

    fn master_lost(&self, pid: i32) -> Result<Change, Full> {
        let newest = self.roster.generations().max_by_key(|g| g.number).ok_or(Full::Unknown)?;
        let change = self.change(self.event_of(newest.number, pid), newest, None);
        Ok(Change { lost_master: Some(pid), ..change })
    }

    fn master_exit(&self, generation: u64, pid: i32) -> Result<Change, Full> {
        let g = self.roster.generation(generation).ok_or(Full::Unknown)?;
        let mut change = self.change(self.event_of(generation, pid), g, None);
        change.generation.ends = true;
        Ok(change)
    }

    fn worker_start(&self, w: WorkerView, respawn_of: Option<i32>) -> Result<Change, Full> {
        let roster = self.roster;
        let g = roster.generation(w.generation).ok_or(Full::Generations)?;
        let record = roster.workers.get(w.slot as usize).ok_or(Full::Workers)?;
        let respawns = roster.respawns_of_index(w.index, w.generation);
        let w = WorkerView { respawns: respawns.unwrap_or(0), ..w };
        let running = g.running.saturating_add(1);
        let g = GenerationView { running, present: g.present.saturating_add(1), ..g };
        let event = Event {
            worker: Some(w.index),
            n_mine: g.running,
            stopping: false,
            respawn_of: respawn_of.and_then(|last| roster.place_of(&w, last)),
            ..self.event_of(w.generation, w.pid)
        };
        let start = WorkerChange { beats: true, ..w.into() };
        let mut change = self.change(event, g, Some(start));
        let more = u64::from(respawns.is_some());
        change.respawn_count = change.respawn_count.saturating_add(more);
        change.index_respawns = u64::from(w.respawns) | w.generation << 32;
        change.index_pid = w.pid as u32;
        if w.slot < change.worker_limit {
            change.free_worker = record.next.load(Relaxed);
        } else {
            change.worker_limit = w.slot.saturating_add(1);
        }
        Ok(change)
    }

    fn worker_draining(&self, slot: u32, connections: u32, stopping: bool) -> Result<Change, Full> {
        let (w, g) = self.worker_and_generation(slot)?;
        let mut event = self.worker_event(&w, None);
        event.connections = Some(connections);
        event.duration = None;
        event.stopping |= stopping;
        let w = WorkerView { draining_since: Some(self.now.monotonic.max(1)), ..w };
        Ok(self.change(event, g, Some(w.into())))
    }

    fn worker_stuck(&self, slot: u32, connections: u32) -> Result<Change, Full> {
        let (w, g) = self.worker_and_generation(slot)?;
        let event = Event { connections: Some(connections), ..self.worker_event(&w, None) };
        Ok(self.change(event, g, Some(WorkerView { stuck: true, ..w }.into())))
    }

    fn worker_hung(&self, slot: u32) -> Result<Change, Full> {
        let (w, g) = self.worker_and_generation(slot)?;
        let event = self.worker_event(&w, None);
        let g = GenerationView { running: g.running.saturating_sub(1), ..g };
        Ok(self.change(event, g, Some(WorkerView { hung: true, ..w }.into())))
    }

    fn worker_recovered(&self, slot: u32) -> Result<Change, Full> {
        let (w, g) = self.worker_and_generation(slot)?;
        let g = GenerationView { running: g.running.saturating_add(1), ..g };
        let event = Event { n_mine: g.running, ..self.worker_event(&w, None) };
        let w = WorkerView { hung: false, beat: self.now.monotonic.max(1), ..w };
        Ok(self.change(event, g, Some(WorkerChange { beats: true, ..w.into() })))
    }

    /// A worker's end, with a reason if it was lost.
    fn worker_end(&self, slot: u32, reason: Option<Reason>) -> Result<Change, Full> {
        let (w, g) = self.worker_and_generation(slot)?;
        let event = self.worker_event(&w, reason);
        let running = g.running.saturating_sub(u32::from(!w.hung));
        let g = GenerationView { running, present: g.present.saturating_sub(1), ..g };
        let next = self.roster.head.free_worker.load(Relaxed);
        let w = WorkerView { hung: false, next, ..w };
        let mut change = self.change(event, g, Some(WorkerChange { ends: true, ..w.into() }));
        change.free_worker = slot;
        Ok(change)
    }

    fn worker_and_generation(&self, slot: u32) -> Result<(WorkerView, GenerationView), Full> {
        let w = self.roster.worker(slot).ok_or(Full::Unknown)?;
        let g = self.roster.generation(w.generation).ok_or(Full::Unknown)?;
        Ok((w, g))
    }

    /// A change that keeps all but the records of its generation and its worker, and the counts.
    fn change(&self, event: Event, g: GenerationView, worker: Option<WorkerChange>) -> Change {
        let roster = self.roster;
        let count = |count: &AtomicU64| count.load(Relaxed);
        let of_index = worker.and_then(|w| roster.workers.get(w.to.index as usize));
        let one_more = |counted: &AtomicU64| count(counted).saturating_add(1);
        let losses = event.reason.and_then(|r| roster.head.losses.get(r.index()));
        Change {
            kind_count: roster.head.kinds.get(event.kind as usize).map_or(0, one_more),
            loss_count: losses.map_or(0, one_more),
            respawn_count: count(&roster.head.respawns),
            index_respawns: of_index.map_or(0, |record| count(&record.index_respawns)),
            index_pid: of_index.map_or(0, |record| record.index_pid.load(Relaxed)),
            // What a change leaves is what it makes of its generation.
            event: Event { n_left: g.running, ..event },
            generation: g.into(),
            worker,
            current: roster.current_generation(),
            free_worker: roster.head.free_worker.load(Relaxed),
            worker_limit: roster.head.worker_limit.load(Relaxed),
            reloads: roster.reloads(),
            lost_master: roster.lost_master(),
            retires_older: false,
        }
    }

    fn event_of(&self, generation: u64, pid: i32) -> Event {
        let roster = self.roster;
        let counts = roster.counts(generation);
        Event {
            seq: roster.seq().saturating_add(1),
            time: self.now.wall,
            kind: self.kind,
            generation,
            pid,
            worker: None,
            n_prev: counts.n_prev,
            n_mine: counts.n_mine,
            n_next: counts.n_next,
            n_older: counts.n_older,
            n_left: counts.n_mine,
            stopping: roster.is_stopping(),
            respawn_of: None,
            history: roster.history_id(),
            reason: None,
            connections: None,
            duration: None,
        }
    }

    fn worker_event(&self, w: &WorkerView, reason: Option<Reason>) -> Event {
        let event = self.event_of(w.generation, w.pid);
        let duration = w.draining_since.map(|moment| self.since(moment));
        Event { worker: Some(w.index), reason, duration, ..event }
    }

    /// Milliseconds since a moment of the monotonic clock.
    fn since(&self, moment: u64) -> u32 {
        // One less than the word that means none.
        self.now.monotonic.saturating_sub(moment).min(u64::from(u32::MAX - 1)) as u32
    }
}

impl Roster<'_> {
    /// How many workers of a generation had an index before; none if none had.
    fn respawns_of_index(&self, index: u32, generation: u64) -> Option<u32> {
        let word = self.workers.get(index as usize)?.index_respawns.load(Relaxed);
        // A zero word is of no generation.
        (word >> 32 == generation & 0xffff_ffff && word != 0)
            .then(|| (word as u32).saturating_add(1))
    }

    /// The last worker whose event was recorded in the place of `w`. nginx started `w` in that of the process
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
}
