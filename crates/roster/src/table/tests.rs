use super::*;
use crate::{Now, Transition};

#[test]
fn the_history_has_the_newest_events() {
    let head = Head::default();
    let make = |_| EventRecord::default();
    let events: Vec<_> = (0..4).map(make).collect();
    let generations: Vec<_> = (0..9).map(|_| GenerationRecord::default()).collect();
    let roster = Roster {
        head: &head,
        generations: &generations,
        workers: &[],
        events: &events,
        messages: &[],
    };
    roster.create(0, 77);
    let remembered = || roster.history().map(|(e, took)| (e.seq, took)).collect::<Vec<_>>();
    assert_eq!(remembered(), []);
    for pid in 1..=6 {
        let start = Transition::MasterStart { pid, workers: 0, began: 0, reload: true };
        let now = Now { wall: 1, monotonic: 2, since_boot: 3 };
        roster.record(start, now, &mut |_| ()).expect("there is room");
        if pid < 6 {
            roster.delivered(pid as u64, 10 * pid as u64);
        }
    }
    assert_eq!(remembered(), [(3, Some(30)), (4, Some(40)), (5, Some(50)), (6, None)]);
    let reloads = roster.reloads();
    assert_eq!((reloads.succeeded, reloads.failed, reloads.succeeded_at), (6, 0, Some(1)));
}

#[test]
fn programs_are_counted_from_one() {
    let head = Head::default();
    let roster = Roster { head: &head, generations: &[], workers: &[], events: &[], messages: &[] };
    assert_eq!([roster.next_program(), roster.next_program()], [1, 2]);
}

#[test]
fn a_slot_that_is_given_to_another_is_no_longer_ones_own() {
    let head = Head::default();
    let generations: Vec<_> = (0..4).map(|_| GenerationRecord::default()).collect();
    let workers: Vec<_> = (0..4).map(|_| WorkerRecord::default()).collect();
    let events: Vec<_> = (0..8).map(|_| EventRecord::default()).collect();
    let roster = Roster {
        head: &head,
        generations: &generations,
        workers: &workers,
        events: &events,
        messages: &[],
    };
    roster.create(0, 77);
    let record = |transition| {
        let now = Now { wall: 1, monotonic: 2, since_boot: 3 };
        roster.record(transition, now, &mut |_| ()).expect("there is room")
    };
    record(Transition::MasterStart { pid: 1, workers: 1, began: 0, reload: false });
    // Same process id, same slot of nginx's, same slot here, same millisecond.
    let start = Transition::WorkerStart {
        generation: 1,
        pid: 9,
        index: 0,
        process_slot: 0,
        heartbeat_timeout: 10,
        respawn_of: None,
    };
    let first = record(start);
    let slot = first.slot.expect("a worker has one");
    assert_eq!(roster.registered(slot, first.event.seq), roster.worker(slot));
    record(Transition::WorkerLost { slot, reason: crate::Reason::Unknown });
    assert_eq!(roster.registered(slot, first.event.seq), None);
    let second = record(start);
    assert_eq!(second.slot, Some(slot));
    assert_eq!(roster.registered(slot, first.event.seq), None);
    roster.beat(slot, first.event.seq, 1000);
    roster.set_connections(slot, first.event.seq, 5, 6);
    let seen = roster.registered(slot, second.event.seq).expect("it is there");
    assert_eq!((seen.beat, seen.connections), (2, None));
    roster.beat(slot, second.event.seq, 1000);
    roster.set_connections(slot, second.event.seq, 5, 6);
    let seen = roster.registered(slot, second.event.seq).expect("it is there");
    assert_eq!((seen.beat, seen.connections), (1000, Some((5, 6))));
    let snapshot = roster.snapshot(0).expect("nobody moves anything");
    assert_eq!(snapshot.workers, [seen]);
}

#[test]
fn what_the_kernel_killed_is_counted_by_cgroup() {
    let head = Head::default();
    let roster = Roster { head: &head, generations: &[], workers: &[], events: &[], messages: &[] };
    assert_eq!(roster.oom_kills(7), None);
    for cgroup in 1..=4 {
        roster.set_oom_kills(cgroup, 10 * cgroup);
    }
    roster.set_oom_kills(3, 33);
    let counts = |cgroups: &[u64]| cgroups.iter().map(|c| roster.oom_kills(*c)).collect::<Vec<_>>();
    assert_eq!(counts(&[1, 2, 3, 4, 5]), [Some(10), Some(20), Some(33), Some(40), None]);
    // One more than there is room for takes the place of one.
    roster.set_oom_kills(5, 0);
    assert_eq!(counts(&[1, 2, 3, 4, 5]), [Some(10), None, Some(33), Some(40), Some(0)]);
}
