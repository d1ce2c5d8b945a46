//! The laws of the contract on random histories, with the holder of the lock dying at any step.
#![cfg(not(loom))]

mod common;

use std::panic::{self, AssertUnwindSafe};

use common::{Ledger, Memory, NOW};
use proptest::prelude::*;
use roster::{Full, Geometry, Reason, Roster, Transition};

/// What a test does next; numbers choose among what is there.
#[derive(Clone, Debug)]
enum Action {
    MasterStart,
    WorkerStart(usize),
    WorkerExit(usize),
    WorkerLost(usize),
    WorkerHung(usize),
    WorkerRecovered(usize),
    WorkerDraining(usize),
    WorkerStuck(usize),
    ReloadFailed,
    MasterLost,
    Stop,
    /// The same, and all the events from here on say so.
    NodeStops,
}

fn action() -> impl Strategy<Value = Action> {
    let n = 0..1000usize;
    prop_oneof![
        1 => Just(Action::MasterStart),
        6 => n.clone().prop_map(Action::WorkerStart),
        3 => n.clone().prop_map(Action::WorkerExit),
        2 => n.clone().prop_map(Action::WorkerLost),
        2 => n.clone().prop_map(Action::WorkerHung),
        2 => n.clone().prop_map(Action::WorkerRecovered),
        2 => n.clone().prop_map(Action::WorkerDraining),
        1 => n.prop_map(Action::WorkerStuck),
        1 => Just(Action::ReloadFailed),
        1 => Just(Action::MasterLost),
        1 => Just(Action::Stop),
        1 => Just(Action::NodeStops),
    ]
}

/// Chooses the transition that an action means in a state; none if it makes no sense there.
fn transition(roster: Roster<'_>, action: &Action, pid: i32) -> Option<Transition> {
    let pick = |n: usize, hung: bool| {
        let slots: Vec<u32> = roster.workers().filter(|w| w.hung == hung).map(|w| w.slot).collect();
        slots.get(n.checked_rem(slots.len())?).copied()
    };
    Some(match *action {
        Action::MasterStart => {
            Transition::MasterStart { pid, workers: 2, began: 1, reload: pid % 2 == 0 }
        }
        Action::ReloadFailed => Transition::ReloadFailed { pid, began: 2 },
        Action::MasterLost => Transition::MasterLost { pid },
        Action::WorkerDraining(n) => {
            let stopping = n % 5 == 0;
            Transition::WorkerDraining { slot: pick(n, false)?, connections: 3, stopping }
        }
        Action::WorkerStuck(n) => Transition::WorkerStuck { slot: pick(n, false)?, connections: 3 },
        Action::WorkerStart(n) => {
            let generations: Vec<u64> = roster.generations().map(|g| g.number).collect();
            let generation = *generations.get(n.checked_rem(generations.len())?)?;
            // Pids go up: that of the one before may be a worker's, which may be gone.
            let gone = roster.workers().all(|w| w.pid != pid - 1);
            Transition::WorkerStart {
                generation,
                pid,
                index: n as u32 % 3,
                process_slot: 0,
                heartbeat_timeout: 10,
                respawn_of: (gone && n % 2 == 0).then_some(pid - 1),
            }
        }
        Action::WorkerExit(n) => {
            Transition::WorkerExit { slot: pick(n, false)?, stopping: n % 5 == 0 }
        }
        Action::WorkerLost(n) => {
            let slot = pick(n / 2, n % 2 == 0)?;
            Transition::WorkerLost { slot, reason: Reason::Unknown }
        }
        Action::WorkerHung(n) => Transition::WorkerHung { slot: pick(n, false)? },
        Action::WorkerRecovered(n) => Transition::WorkerRecovered { slot: pick(n, true)? },
        Action::Stop | Action::NodeStops => return None,
    })
}

/// Dies at the given step, as a killed process does: nothing after it happens.
fn record_and_die(roster: Roster<'_>, transition: Transition, at: usize) {
    let mut steps = 0;
    let _ = panic::catch_unwind(AssertUnwindSafe(|| {
        roster.record(transition, NOW, &mut |_| {
            if steps == at {
                panic::resume_unwind(Box::new("killed"));
            }
            steps += 1;
        })
    }));
}

/// Tells all events that are recorded and not told.
fn tell(roster: Roster<'_>, ledger: &mut Ledger) {
    while let Some(pending) = roster.pending() {
        ledger.take(&pending.event).expect("the laws hold");
        roster.begin_callback(pending.event.seq, 1, 0);
        assert_eq!(roster.pending().map(|p| (p.begun, p.generation)), Some((1, 1)));
        roster.delivered(pending.event.seq, 0);
        if let Some(next) = roster.pending() {
            assert_eq!(next.begun, 0, "what has begun is forgotten with its event");
        }
    }
    assert!(!roster.skip_unreadable());
}

fn finish_generations(roster: Roster<'_>, ledger: &mut Ledger) {
    while let Some(generation) = roster.ready() {
        roster
            .record(Transition::MasterReady { generation, pid: 1 }, NOW, &mut |_| ())
            .expect("it is there");
        tell(roster, ledger);
    }
    while let Some(generation) = roster.finished() {
        roster
            .record(Transition::MasterExit { generation, pid: 1 }, NOW, &mut |_| ())
            .expect("it is there");
        tell(roster, ledger);
    }
}

/// An action, and at which step of it the process dies, if it does.
type Happening = (Action, Option<usize>);

fn happenings(n: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Happening>> {
    prop::collection::vec((action(), prop::option::weighted(0.3, 0..8usize)), n)
}

/// Lets it all happen and holds the roster to the laws. Returns what was refused for want of room.
fn live(geometry: Geometry, happenings: &[Happening]) -> Vec<Full> {
    let memory = Memory::new(geometry);
    let roster = memory.roster();
    let mut ledger = Ledger::new(2);
    let mut refused = Vec::new();
    for (i, (action, death)) in happenings.iter().enumerate() {
        if let Action::Stop = action {
            roster.retire_all();
        } else if let Action::NodeStops = action {
            roster.retire_all();
            roster.set_stopping();
        } else if let Some(transition) = transition(roster, action, 100 + i as i32) {
            let seq = roster.seq();
            let reloads = roster.reloads();
            match death {
                Some(at) => {
                    record_and_die(roster, transition, *at);
                    // The next to take the lock mends; it may die at that too, and another
                    // mends again.
                    let recovery = roster.recover();
                    assert_eq!(recovery.corrected, 0);
                    assert_eq!(roster.recover().finished, None);
                }
                None => {
                    if let Err(full) = roster.record(transition, NOW, &mut |_| ()) {
                        assert_eq!(roster.seq(), seq, "{full} changes nothing");
                        refused.push(full);
                    }
                }
            }
            assert!(roster.seq() <= seq + 1, "one event at most");
            let counted = matches!(
                transition,
                Transition::ReloadFailed { .. } | Transition::MasterStart { reload: true, .. }
            );
            let attempts = |r: roster::Reloads| r.succeeded + r.failed;
            let expected = if counted { roster.seq() - seq } else { 0 };
            assert_eq!(attempts(roster.reloads()), attempts(reloads) + expected);
        }
        tell(roster, &mut ledger);
        finish_generations(roster, &mut ledger);
        ledger.check_table(roster).expect("the laws hold");
    }
    // The node stops: whoever is left is lost, and every generation ends.
    roster.retire_all();
    roster.set_stopping();
    let left: Vec<u32> = roster.workers().map(|w| w.slot).collect();
    for slot in left {
        let lost = Transition::WorkerLost { slot, reason: Reason::Unknown };
        roster.record(lost, NOW, &mut |_| ()).expect("it is there");
        tell(roster, &mut ledger);
    }
    finish_generations(roster, &mut ledger);
    assert!(ledger.generations.is_empty());
    let reloads = roster.reloads();
    assert!(reloads.succeeded <= ledger.newest);
    assert_eq!(roster.workers().count(), 0);
    refused
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn laws_hold_while_processes_die_anywhere(happenings in happenings(1..120)) {
        live(Geometry { generations: 6, workers: 12, events: 8, messages: 4 }, &happenings);
    }
}

proptest! {
    // Not made smaller: that would take very long.
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 0, ..ProptestConfig::default() })]

    #[test]
    fn laws_hold_for_long_with_little_room(happenings in happenings(4000..6000)) {
        let refused = live(Geometry { generations: 3, workers: 5, events: 4, messages: 4 }, &happenings);
        prop_assert!(refused.contains(&Full::Generations), "reloads while old ones live");
        prop_assert!(refused.contains(&Full::Workers), "all slots are taken at times");
    }

    #[test]
    fn laws_hold_for_long_with_much_room(happenings in happenings(2000..3000)) {
        live(Geometry { generations: 40, workers: 300, events: 64, messages: 4 }, &happenings);
    }
}
