//! A node for tests: its second generation runs, the first drains, a reload has just failed.

use roster::held::{Held, Holders, Protocol};
use roster::{
    EventRecord, GenerationRecord, Geometry, Head, Kind, Now, Roster, Snapshot, Transition,
    WorkerRecord,
};

use crate::Facts;

fn fresh<T: Default>(n: usize) -> Vec<T> {
    std::iter::repeat_with(T::default).take(n).collect()
}

pub fn node() -> (Snapshot, Facts) {
    let room = Geometry { generations: 4, workers: 8, events: 64, messages: 0 };
    let head = Head::default();
    let generations = fresh::<GenerationRecord>(room.generations);
    let workers = fresh::<WorkerRecord>(room.workers);
    let events = fresh::<EventRecord>(room.events);
    let roster = Roster {
        head: &head,
        generations: &generations,
        workers: &workers,
        events: &events,
        messages: &[],
    };
    roster.create(0, 77);
    let old_registration = live(roster);
    let facts = Facts {
        version: "1.2.3",
        nginx: "1.28.3".to_string(),
        now: at(3_000),
        master: 1,
        started: 1_000_000,
        loading_since: None,
        room,
        uncounted: 3,
        former_workers: 2,
        lost_lines: 0,
        holders: vec![held_by_a_download(old_registration)],
    };
    (roster.snapshot(32).expect("nobody else moves anything"), facts)
}

fn at(ms: u64) -> Now {
    Now { wall: 1_000_000 + ms as i64, monotonic: ms, since_boot: 5 + ms }
}

/// What happens to the node. The registration of its oldest worker.
fn live(roster: Roster<'_>) -> u64 {
    let record = |ms, transition| {
        let recorded = roster.record(transition, at(ms), &mut |_| ()).expect("there is room");
        roster.delivered(recorded.event.seq, 7);
        recorded.slot.unwrap_or_default()
    };
    let start = |generation, pid| Transition::WorkerStart {
        generation,
        pid,
        index: 0,
        process_slot: 0,
        heartbeat_timeout: 10,
        respawn_of: None,
    };
    let load = |began, reload| Transition::MasterStart { pid: 1, workers: 1, began, reload };
    record(100, load(50, false));
    let old = record(200, start(1, 10));
    let old_registration = roster.seq();
    record(300, Transition::MasterReady { generation: 1, pid: 10 });
    record(1_000, load(950, true));
    let crashing = record(1_100, start(2, 19));
    record(1_200, Transition::MasterReady { generation: 2, pid: 19 });
    record(1_300, Transition::WorkerDraining { slot: old, connections: 3, stopping: false });
    let reason = roster::Reason::Signal { number: 11, core: true };
    record(1_400, Transition::WorkerLost { slot: crashing, reason });
    let slot = record(1_500, start(2, 20));
    roster.set_connections(slot, roster.seq(), 3, 7);
    roster.callback_begins(Kind::WorkerStart, 1_500);
    roster.callback_over(Kind::WorkerStart, 50);
    record(2_500, Transition::ReloadFailed { pid: 1, began: 2_000 });
    old_registration
}

/// What holds the worker that drains.
fn held_by_a_download(registration: u64) -> Holders {
    Holders {
        registration,
        looked_at: 2_900,
        total: 3,
        connections: vec![Held {
            protocol: Protocol::Http1,
            since: 500,
            request_since: 1_000,
            sent: 42,
            requests: 1,
            client: "127.0.0.1:5".to_string(),
            method: "GET".to_string(),
            path: "/slow".to_string(),
            ..Held::default()
        }],
    }
}
