//! What no small node of the model has: slots of nginx's table that are given to others, and causes that
//! are not known yet.

#![allow(clippy::expect_used)]

use super::*;
use crate::layout::{EventRecord, GenerationRecord, Head, WorkerRecord};
use crate::transition::Now;

const KILLED: Reason = Reason::Signal { number: 9, core: false };
const STATUS: Reason = Reason::Exit(1);

/// A process that knows these.
#[derive(Default)]
struct Facts {
    gone: Vec<i32>,
    predecessor: Option<(i32, Reason)>,
    reaped: Option<(u32, i32, Reason)>,
    overdue: bool,
    orphan: bool,
}

impl Witness for Facts {
    fn pid(&self) -> i32 {
        1
    }
    fn process_slot(&self) -> u32 {
        3
    }
    fn predecessor(&self) -> Option<(i32, Reason)> {
        self.predecessor
    }
    fn is_gone(&self, pid: i32, _: u64) -> bool {
        self.gone.contains(&pid)
    }
    fn unreaped(&self, _: i32, _: u64) -> Option<Reason> {
        None
    }
    fn reaped(&self, process_slot: u32, pid: i32) -> Option<Reason> {
        // What nginx leaves of a child that it does not start again is -1.
        let (slot, left, reason) = self.reaped?;
        (slot == process_slot && (left == pid || left == -1)).then_some(reason)
    }
    fn is_orphan(&self) -> bool {
        self.orphan
    }
    fn is_draining(&self) -> bool {
        false
    }
    fn is_stopping(&self, _: Roster<'_>, _: &WorkerView) -> bool {
        false
    }
    fn has_other_binary(&self) -> bool {
        false
    }
    fn take_draining(&self, _: &WorkerView, _: bool) -> Option<Transition> {
        None
    }
    fn is_overdue(&self, _: &WorkerView) -> bool {
        self.overdue
    }
}

/// A generation with workers of these pids and slots in the master's table, in slots of the roster
/// from 0 on.
fn with(workers: &[(i32, u32)], test: impl FnOnce(Roster<'_>)) {
    let head = Head::default();
    let generations = [GenerationRecord::default(), GenerationRecord::default()];
    let records: Vec<_> = (0..4).map(|_| WorkerRecord::default()).collect();
    let events: Vec<_> = (0..8).map(|_| EventRecord::default()).collect();
    let roster = Roster {
        head: &head,
        generations: &generations,
        workers: &records,
        events: &events,
        messages: &[],
    };
    roster.create(0, 77);
    let record = |transition| {
        let now = Now { wall: 1, monotonic: 2, since_boot: 3 };
        roster.record(transition, now, &mut |_| ()).expect("there is room");
    };
    record(Transition::MasterStart { pid: 1, workers: 2, began: 0, reload: false });
    for &(pid, process_slot) in workers {
        let (index, heartbeat_timeout, respawn_of) = (process_slot, 10, None);
        let generation = 1;
        record(Transition::WorkerStart {
            generation,
            pid,
            index,
            process_slot,
            heartbeat_timeout,
            respawn_of,
        });
    }
    test(roster);
}

fn lost(slot: u32, reason: Reason) -> Transition {
    Transition::WorkerLost { slot, reason }
}

#[test]
fn a_successor_knows_the_end_of_the_last_before_it_only() {
    with(&[(10, 3), (11, 3), (12, 4)], |roster| {
        let gone = vec![10, 11, 12];
        let facts = Facts { gone, predecessor: Some((11, KILLED)), ..Facts::default() };
        assert_eq!(roster.lost_before(&facts), [lost(0, Reason::Unknown), lost(1, KILLED)]);
        // One that died before it registered: of those in the roster nothing is known.
        let predecessor = Some((13, KILLED));
        let facts = Facts { predecessor, ..facts };
        let unknown = [lost(0, Reason::Unknown), lost(1, Reason::Unknown)];
        assert_eq!(roster.lost_before(&facts), unknown);
        // Who starts in nobody's place records none.
        assert_eq!(roster.lost_before(&Facts { predecessor: None, ..facts }), []);
    });
}

#[test]
fn the_table_is_believed_of_the_last_in_a_slot_that_is_gone() {
    with(&[(10, 3), (11, 3), (12, 4)], |roster| {
        let gone = vec![10, 11, 12];
        let facts = Facts { gone, reaped: Some((3, -1, STATUS)), ..Facts::default() };
        assert_eq!(roster.lost_to_master(&facts), [lost(1, STATUS)]);
        let all = [lost(0, Reason::Unknown), lost(1, STATUS), lost(2, Reason::Unknown)];
        assert_eq!(roster.master_end(&facts).transitions, all);
        let facts = Facts { gone: vec![10], ..facts };
        assert_eq!(roster.lost_to_master(&facts), []);
    });
}

#[test]
fn a_peer_waits_for_the_cause_if_a_successor_may_know_it() {
    with(&[(10, 3), (11, 4)], |roster| {
        let registration = roster.worker(1).expect("it is there").registration;
        let peer = Peer::Worker { slot: 1, registration };
        let facts = Facts::default();
        let news =
            |waited, cause, facts: &Facts| roster.news_of_peer(peer, waited, || cause, facts);
        let unknown = News::Record(lost(1, Reason::Unknown));
        assert_eq!(news(0, Cause::Known(KILLED), &facts), News::Record(lost(1, KILLED)));
        assert_eq!(news(GRACE - 1, Cause::Untold, &facts), News::Wait);
        assert_eq!(news(GRACE, Cause::Untold, &facts), unknown);
        assert_eq!(news(GRACE - 1, Cause::NotReaped, &facts), News::Wait);
        assert_eq!(news(GRACE, Cause::NotReaped, &facts), unknown);
        let orphan = Facts { orphan: true, ..facts };
        assert_eq!(news(0, Cause::Untold, &orphan), unknown);
        assert_eq!(news(0, Cause::NotReaped, &orphan), News::Wait);
        let former = Peer::Worker { slot: 1, registration: registration - 1 };
        let settled = roster.news_of_peer(former, 0, || Cause::Untold, &orphan);
        assert_eq!(settled, News::Settled);
    });
}

#[test]
fn one_loss_is_recorded_with_the_reason_of_who_knows_it() {
    with(&[(10, 3), (11, 4)], |roster| {
        let me = roster.worker(0).expect("it is there");
        let facts = Facts { gone: vec![11], overdue: true, ..Facts::default() };
        let seen = roster.seen_by_worker(me.registration, vec![lost(1, KILLED)], &[], &facts);
        assert_eq!(seen, [lost(1, KILLED)]);
        let seen = roster.seen_by_worker(me.registration, vec![], &[], &facts);
        assert_eq!(seen, [lost(1, Reason::Unknown)]);
        let facts = Facts { gone: vec![], ..facts };
        let seen = roster.seen_by_worker(me.registration, vec![], &[], &facts);
        assert_eq!(seen, [Transition::WorkerHung { slot: 1 }]);
    });
}

#[test]
fn the_last_worker_of_a_dead_master_ends_the_node() {
    with(&[(10, 3), (11, 4)], |roster| {
        let me = roster.worker(0);
        let facts = Facts { orphan: true, ..Facts::default() };
        let plan = roster.worker_end(me.as_ref(), &facts);
        let exit = |stopping| Transition::WorkerExit { slot: 0, stopping };
        assert_eq!((plan.retires, plan.stops), (true, false));
        assert_eq!(plan.transitions, [exit(false)]);
        let plan = roster.worker_end(me.as_ref(), &Facts { gone: vec![11], ..facts });
        assert_eq!((plan.retires, plan.stops), (true, true));
        assert_eq!(plan.transitions, [lost(1, Reason::Unknown), exit(true)]);
    });
}
