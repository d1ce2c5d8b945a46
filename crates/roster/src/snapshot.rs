//! The roster at one moment, for readers without the lock.
//!
//! The words are read one by one while others may change them. A change is carried out between two
//! steps of the epoch and lies in the journal meanwhile, so there are two cases. The epoch is even
//! and the same before and after reading: nothing moved. It is odd and the same: some of the change
//! in the journal may have been carried out, and putting all of it on top gives the roster after the
//! change. Both need no other process to continue: a reader is done even if the process that changes something is
//! stopped or dies in the middle.

use std::sync::atomic::Ordering::{Acquire, Relaxed};

use crate::delivery::Pending;
use crate::event::{Event, Kind, Reason};
use crate::journal::Change;
use crate::layout::Reloads;
use crate::stats::CallbackStats;
use crate::sync::fence;
use crate::table::Roster;
use crate::views::{GenerationView, WorkerView};

/// The roster at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Differs from that of another snapshot if the roster does, but for heartbeats, connections and
    /// the delivery of events.
    pub epoch: u64,
    /// Names the history, see [`Roster::create`].
    pub history: u64,
    /// The generation committed last, 0 before the first.
    pub generation: u64,
    /// The number of the newest event.
    pub seq: u64,
    /// The newest event whose callbacks have finished.
    pub delivered: u64,
    /// The generations that have not ended, newest first.
    pub generations: Vec<GenerationView>,
    /// The workers that have not ended, newest generation first, then by index.
    pub workers: Vec<WorkerView>,
    /// The newest events, oldest first, each with how long its callbacks took in microseconds, none
    /// until they have finished.
    pub events: Vec<(Event, Option<u64>)>,
    /// The attempts to reload.
    pub reloads: Reloads,
    /// Why the last of them failed, if it did: what nginx logged.
    pub reload_error: Option<String>,
    /// Why loads failed, by the numbers of their events among the newest.
    pub errors: Vec<(u64, String)>,
    /// The master whose loss is recorded; none if there is none since the last load.
    pub lost_master: Option<i32>,
    /// The process that holds the lock.
    pub holder: Option<i32>,
    /// The event whose callback runs and since when, milliseconds of the monotonic clock.
    pub callback: Option<(Pending, u64)>,
    /// Events so far, in the order of `Kind::ALL`.
    pub kinds: [u64; Kind::ALL.len()],
    /// Workers lost so far, each at its `Reason::index`.
    pub losses: [u64; Reason::INDICES],
    /// Workers started so far with an index that had one before in their generation.
    pub respawns: u64,
    /// What callbacks did so far, in the order of `Kind::ALL`.
    pub callbacks: [CallbackStats; Kind::ALL.len()],
}

impl Roster<'_> {
    /// Whether anything but heartbeats has moved since an epoch: one read.
    pub fn epoch(&self) -> u64 {
        self.head.epoch.load(Acquire)
    }

    /// The newest event whose callbacks have finished: one read.
    pub fn last_delivered(&self) -> u64 {
        self.head.delivered.load(Acquire)
    }

    /// The roster at one moment, with up to so many of the newest events. None if something moved at
    /// each of some hundred attempts, which a moment later is over.
    ///
    /// ```
    /// # use roster::*;
    /// # let head = Head::default();
    /// # let generations: [GenerationRecord; 4] = Default::default();
    /// # let workers: [WorkerRecord; 4] = Default::default();
    /// # let events: [EventRecord; 16] = Default::default();
    /// # let roster =
    /// #     Roster { head: &head, generations: &generations, workers: &workers, events: &events, messages: &[] };
    /// # roster.create(0, 77);
    /// # let now = Now { wall: 1_700_000_000_000, monotonic: 5, since_boot: 6 };
    /// let load = Transition::MasterStart { pid: 100, workers: 2, began: 1, reload: false };
    /// // A reader that comes while a change is carried out sees all of it or nothing.
    /// let mut seen = Vec::new();
    /// let mut look = |step| {
    ///     let snapshot = roster.snapshot(1).expect("nobody else moves anything");
    ///     seen.push((step, snapshot.seq, snapshot.generations.len()));
    /// };
    /// roster.record(load, now, &mut look).expect("there is room");
    /// assert_eq!(seen.first(), Some(&(Step::Planned, 0, 0)));
    /// assert!(seen[1..].iter().all(|(_, seq, generations)| (*seq, *generations) == (1, 1)));
    /// ```
    pub fn snapshot(&self, events: usize) -> Option<Snapshot> {
        const ATTEMPTS: usize = 200;
        (0..ATTEMPTS).find_map(|_| self.try_snapshot(events))
    }

    fn try_snapshot(&self, events: usize) -> Option<Snapshot> {
        let epoch = self.epoch();
        let change = if epoch & 1 == 1 { Some(self.journaled()?) } else { None };
        let mut snapshot = self.look(epoch, events);
        if let Some(change) = &change {
            snapshot.put(change);
        }
        let error = |(event, _): &(Event, _)| Some((event.seq, self.error_of(event)?));
        snapshot.errors = snapshot.events.iter().filter_map(error).collect();
        // Whatever was read above that is newer than the epoch was stored after the epoch moved on:
        // having seen the former, this load sees the latter.
        fence(Acquire);
        if self.head.epoch.load(Relaxed) != epoch {
            return None;
        }
        snapshot.generations.sort_unstable_by_key(|g| std::cmp::Reverse(g.number));
        snapshot
            .workers
            .sort_unstable_by_key(|w| (std::cmp::Reverse(w.generation), w.index, w.pid));
        let surplus = snapshot.events.len().saturating_sub(events);
        snapshot.events.drain(..surplus);
        Some(snapshot)
    }

    fn look(&self, epoch: u64, events: usize) -> Snapshot {
        let seq = self.seq();
        let oldest = seq.saturating_sub(events.min(self.events.len()) as u64).saturating_add(1);
        let since = self.callback_since();
        let running = since.and_then(|since| Some((self.pending()?, since)));
        Snapshot {
            epoch,
            history: self.history_id(),
            generation: self.current_generation(),
            seq,
            delivered: self.last_delivered(),
            generations: self.generations().collect(),
            workers: self.workers().collect(),
            events: (oldest..=seq)
                .filter_map(|seq| Some((self.event(seq)?, self.took(seq))))
                .collect(),
            reloads: self.reloads(),
            reload_error: self.reload_error().filter(|_| self.reloads().last_failed),
            errors: Vec::new(),
            lost_master: self.lost_master(),
            holder: self.holder(),
            callback: running.filter(|(pending, _)| pending.begun > 0),
            kinds: Kind::ALL.map(|kind| {
                self.head.kinds.get(kind as usize).map_or(0, |count| count.load(Relaxed))
            }),
            losses: self.head.losses.each_ref().map(|count| count.load(Relaxed)),
            respawns: self.head.respawns.load(Relaxed),
            callbacks: Kind::ALL.map(|kind| self.callbacks(kind)),
        }
    }

    fn took(&self, seq: u64) -> Option<u64> {
        let took = self.event_record(seq)?.took.load(Acquire);
        (took != u64::MAX).then_some(took)
    }
}

impl Snapshot {
    /// Why a load failed, by the number of its event.
    pub fn error_of(&self, seq: u64) -> Option<&str> {
        self.errors.iter().find(|(of, _)| *of == seq).map(|(_, error)| error.as_str())
    }

    /// Puts a change on top of what may have some of it already.
    fn put(&mut self, change: &Change) {
        let event = change.event;
        if change.retires_older {
            for g in self.generations.iter_mut().filter(|g| g.number < event.generation) {
                g.retired = true;
            }
        }
        self.generations.retain(|g| g.slot != change.generation.to.slot);
        self.generations.extend(change.generation.view());
        if let Some(w) = change.worker {
            let before = self.workers.iter().position(|other| other.slot == w.to.slot);
            let before = before.map(|at| self.workers.swap_remove(at));
            self.workers.extend(w.view(before, &event));
        }
        self.events.retain(|(other, _)| other.seq != event.seq);
        self.events.push((event, None));
        self.seq = event.seq;
        self.generation = change.current;
        self.reloads = change.reloads;
        self.lost_master = change.lost_master;
        for (kind, count) in Kind::ALL.iter().zip(&mut self.kinds) {
            if *kind == event.kind {
                *count = change.kind_count;
            }
        }
        if let Some(count) = event.reason.and_then(|r| self.losses.get_mut(r.index())) {
            *count = change.loss_count;
        }
        self.respawns = change.respawn_count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{EventRecord, GenerationRecord, Head, WorkerRecord};
    use crate::transition::{Now, Step, Transition};

    const NOW: Now = Now { wall: 1_000, monotonic: 2_000, since_boot: 3_000 };

    fn fresh<T: Default>(n: usize) -> Vec<T> {
        std::iter::repeat_with(T::default).take(n).collect()
    }

    /// A roster of which every step of every transition is looked at.
    fn at_every_step(look: &mut dyn FnMut(Roster<'_>, Step)) {
        let head = Head::default();
        let (generations, workers) = (fresh::<GenerationRecord>(4), fresh::<WorkerRecord>(8));
        let events = fresh::<EventRecord>(4);
        let roster = Roster {
            head: &head,
            generations: &generations,
            workers: &workers,
            events: &events,
            messages: &[],
        };
        roster.create(0, 77);
        let mut record = |transition| {
            let step = &mut |step| look(roster, step);
            let recorded = roster.record(transition, NOW, step).expect("there is room");
            roster.delivered(recorded.event.seq, 7);
            recorded.slot.unwrap_or_default()
        };
        let load = |reload| Transition::MasterStart { pid: 1, workers: 2, began: 1, reload };
        let start = |generation, pid, index| Transition::WorkerStart {
            generation,
            pid,
            index,
            process_slot: index,
            heartbeat_timeout: 10,
            respawn_of: None,
        };
        record(load(false));
        let a = record(start(1, 10, 0));
        let b = record(start(1, 11, 1));
        record(Transition::MasterReady { generation: 1, pid: 11 });
        record(Transition::WorkerLost {
            slot: b,
            reason: Reason::Signal { number: 9, core: false },
        });
        let b = record(start(1, 12, 1));
        record(load(true));
        record(start(2, 13, 0));
        record(Transition::WorkerDraining { slot: a, connections: 3, stopping: false });
        record(Transition::WorkerHung { slot: a });
        record(Transition::WorkerLost { slot: a, reason: Reason::Unknown });
        record(Transition::WorkerExit { slot: b, stopping: false });
        record(Transition::MasterExit { generation: 1, pid: 12 });
        record(Transition::ReloadFailed { pid: 1, began: 2 });
    }

    #[test]
    fn it_is_before_or_after_a_change_and_nothing_between() {
        let mut last: Option<Snapshot> = None;
        let mut after: Option<Snapshot> = None;
        at_every_step(&mut |roster, step| {
            let mut seen = roster.snapshot(4).expect("nobody else moves anything");
            let epoch = std::mem::take(&mut seen.epoch);
            match step {
                Step::Planned => {
                    assert_eq!(epoch & 1, 0);
                    last = Some(seen);
                }
                Step::Journaled => {
                    assert_eq!(epoch & 1, 1);
                    assert_eq!(seen.seq, last.as_ref().map_or(0, |last| last.seq) + 1);
                    after = Some(seen);
                }
                Step::Applying => assert_eq!(Some(&seen), after.as_ref()),
                Step::Recorded => {
                    assert_eq!(epoch & 1, 0);
                    assert_eq!(Some(&seen), after.as_ref());
                }
            }
        });
    }

    #[test]
    fn it_counts() {
        let mut seen = None;
        at_every_step(&mut |roster, _| seen = roster.snapshot(2));
        let seen = seen.expect("the last one");
        let count = |kind| seen.kinds[Kind::ALL.iter().position(|k| *k == kind).unwrap()];
        assert_eq!(count(Kind::WorkerStart), 4);
        assert_eq!(count(Kind::WorkerLost), 2);
        assert_eq!(count(Kind::ReloadFailed), 1);
        assert_eq!((seen.losses[0], seen.losses[3 + 9], seen.respawns), (1, 1, 1));
        let workers: Vec<_> = seen.workers.iter().map(|w| (w.generation, w.pid)).collect();
        assert_eq!(workers, [(2, 13)]);
        assert_eq!(seen.generations.iter().map(|g| g.number).collect::<Vec<_>>(), [2]);
        assert_eq!(
            seen.events.iter().map(|(e, _)| e.kind).collect::<Vec<_>>(),
            [Kind::MasterExit, Kind::ReloadFailed]
        );
    }

    #[test]
    fn respawns_are_counted_by_index_and_generation() {
        let mut respawns = Vec::new();
        at_every_step(&mut |roster, step| {
            if step == Step::Recorded {
                let seen = roster.snapshot(1).expect("nobody else moves anything");
                if seen.events[0].0.kind == Kind::WorkerStart {
                    let pid = seen.events[0].0.pid;
                    let w = seen.workers.iter().find(|w| w.pid == pid).expect("it is there");
                    respawns.push((pid, w.respawns));
                }
            }
        });
        assert_eq!(respawns, [(10, 0), (11, 0), (12, 1), (13, 0)]);
    }
}
