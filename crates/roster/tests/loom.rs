//! What is read without the lock while its holder writes, in the orders that the memory model allows
//! with at most two preemptions, as many as fit into 4 seconds. Empty unless built with `--cfg loom`, see
//! `make loom`. A reader that is added belongs here: `while_recording` runs it beside the changes of
//! a holder.
#![cfg(loom)]

use std::collections::BTreeSet;
use std::io::Write;
use std::panic::Location;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use loom::sync::Arc;
use loom::thread;
use roster::{
    Event, EventRecord, GenerationRecord, Head, Kind, Now, Roster, Transition, WorkerRecord,
};

/// A roster in loom's memory, which is larger than that of a zone.
struct Memory {
    head: Head,
    generations: [GenerationRecord; 1],
    workers: [WorkerRecord; 1],
    events: [EventRecord; 2],
}

impl Memory {
    fn roster(&self) -> Roster<'_> {
        Roster {
            head: &self.head,
            generations: &self.generations,
            workers: &self.workers,
            events: &self.events,
            messages: &[],
        }
    }
}

const START: Transition = Transition::MasterStart { pid: 10, workers: 1, began: 1, reload: false };
const WORKER: Transition = Transition::WorkerStart {
    generation: 1,
    pid: 11,
    index: 3,
    process_slot: 4,
    heartbeat_timeout: 5,
    respawn_of: Some(9),
};

/// A moment; each event has its own.
fn now(n: u64) -> Now {
    Now { wall: n as i64, monotonic: n, since_boot: n }
}

/// What a holder of the lock does: one transition, told at once.
fn record(roster: Roster<'_>, transition: Transition) {
    let n = roster.seq() + 1;
    roster.record(transition, now(n), &mut |_| ()).expect("there is room");
    roster.delivered(n, n);
}

/// How long to go through orders.
const LIMIT: Duration = Duration::from_secs(4);

/// Runs a reader beside a holder that records `during`, after `before`. Returns what the reader says
/// that it saw, over all orders: one that always finds nothing is content, too, and tests nothing.
#[track_caller]
fn while_recording(
    before: &'static [Transition],
    during: &'static [Transition],
    read: impl Fn(Roster<'_>) -> Vec<u64> + Send + Sync + Copy + 'static,
) -> Vec<u64> {
    let orders = std::sync::Arc::new(AtomicUsize::new(0));
    let seen = std::sync::Arc::new(Mutex::new(BTreeSet::new()));
    let (counted, told, began) = (orders.clone(), seen.clone(), Instant::now());
    let mut model = loom::model::Builder::new();
    // Orders with more changes between the two than that are left out: there are too many.
    model.preemption_bound = Some(2);
    model.max_branches = 10_000;
    model.max_duration = Some(LIMIT);
    model.check(move || {
        counted.fetch_add(1, Relaxed);
        let memory = Arc::new(Memory {
            head: Head::default(),
            generations: Default::default(),
            workers: Default::default(),
            events: Default::default(),
        });
        memory.roster().create(0, 77);
        for transition in before {
            record(memory.roster(), *transition);
        }
        let reader = {
            let memory = memory.clone();
            let told = told.clone();
            thread::spawn(move || told.lock().expect("no panic").extend(read(memory.roster())))
        };
        for transition in during {
            record(memory.roster(), *transition);
        }
        reader.join().expect("the reader is content");
    });
    if began.elapsed() >= LIMIT {
        // Not by eprintln!, which says nothing if the test passes.
        let orders = orders.load(Relaxed);
        let stopped = format!("stopped after {orders} orders in {LIMIT:?}, there may be more");
        let _ = writeln!(std::io::stderr(), "\n{}: {stopped}", Location::caller());
    }
    let seen = seen.lock().expect("no panic");
    seen.iter().copied().collect()
}

/// Whether an event is one of those the holder records, in all its parts.
fn is_whole(event: &Event) -> bool {
    let about = match event.kind {
        Kind::MasterStart => (10, None, 0),
        Kind::WorkerStart | Kind::WorkerHung | Kind::WorkerExit => (11, Some(3), 1),
        _ => return false,
    };
    (event.pid, event.worker, event.n_mine) == about
        && event.time == event.seq as i64
        && event.history == 77
        && event.generation == 1
}

const HUNG: Transition = Transition::WorkerHung { slot: 0 };

#[test]
fn the_history_has_whole_events() {
    // The third event takes the place of the first.
    let seen = while_recording(&[START, WORKER], &[HUNG], |roster| {
        let history = roster.history();
        let check = |(event, took): (Event, Option<u64>)| {
            assert!(is_whole(&event), "{event:?}");
            assert!(took.is_none_or(|took| took == event.seq), "{event:?} took {took:?}");
            event.seq
        };
        history.map(check).collect()
    });
    assert_eq!(seen, [1, 2, 3]);
}

#[test]
fn what_is_pending_is_whole() {
    let seen = while_recording(&[START, WORKER], &[HUNG], |roster| {
        let check = |pending: roster::Pending| {
            assert!(is_whole(&pending.event), "{pending:?}");
            assert_eq!(pending.begun, 0);
            pending.event.seq
        };
        roster.pending().map(check).into_iter().collect()
    });
    assert_eq!(seen, [3]);
}

#[test]
fn a_worker_is_seen_whole() {
    let seen = while_recording(&[START], &[WORKER], |roster| {
        let check = |w: roster::WorkerView| {
            let seen = (w.generation, w.pid, w.index, w.process_slot, w.heartbeat_timeout, w.hung);
            assert_eq!(seen, (1, 11, 3, 4, 5, false));
            assert_eq!((w.since_boot, w.beat, w.draining_since), (2, 2, None));
            w.generation
        };
        roster.workers().map(check).collect()
    });
    assert_eq!(seen, [1]);
}

#[test]
fn a_generation_is_seen_whole() {
    let seen = while_recording(&[], &[START], |roster| {
        let current = roster.current_generation();
        for g in roster.generations() {
            assert_eq!((g.number, g.retired, g.began, g.expected), (1, false, 1, 1));
            assert_eq!((g.running, g.present), (0, 0));
        }
        let found = roster.generation(1).map(|g| g.number);
        assert!(current == 0 || found.is_some(), "committed, so it is there");
        found.into_iter().collect()
    });
    assert_eq!(seen, [1]);
}

#[test]
fn a_count_is_one_that_was() {
    let seen = while_recording(&[START, WORKER], &[HUNG], |roster| {
        let first = roster.running(0);
        let second = roster.running(0);
        assert!(first <= 1 && second <= first, "{first}, then {second}");
        vec![u64::from(first), u64::from(second)]
    });
    assert_eq!(seen, [0, 1]);
}

#[test]
fn a_heartbeat_is_not_undone() {
    // The worker beats while another one thinks that it is hung.
    let seen = while_recording(&[START, WORKER], &[HUNG], |roster| {
        roster.beat(0, 2, 1000);
        let w = roster.worker(0).expect("it is there");
        assert_eq!(w.beat, 1000, "{w:?}");
        vec![w.beat]
    });
    assert_eq!(seen, [1000]);
}

#[test]
fn a_snapshot_is_before_or_after() {
    let seen = while_recording(&[START, WORKER], &[HUNG], |roster| {
        let Some(seen) = roster.snapshot(0) else { return Vec::new() };
        let hung = seen.seq == 3;
        assert_eq!(seen.generations[0].running, u32::from(!hung), "{seen:?}");
        assert_eq!(seen.workers[0].hung, hung, "{seen:?}");
        assert_eq!((seen.workers[0].pid, seen.workers[0].beat), (11, 2), "{seen:?}");
        vec![seen.seq]
    });
    assert_eq!(seen, [2, 3]);
}
