//! Whose workers an event counts, over several generations.
#![cfg(not(loom))]

mod common;

use common::{Memory, NOW};
use roster::{Event, Geometry, Kind, Roster, Transition};

/// A roster and its transitions, in few words.
struct Node<'a>(Roster<'a>);

impl Node<'_> {
    fn record(&self, transition: Transition) -> (Event, u32) {
        let recorded = self.0.record(transition, NOW, &mut |_| ()).expect("there is room");
        self.0.delivered(recorded.event.seq, 0);
        (recorded.event, recorded.slot.unwrap_or_default())
    }

    fn load(&self, reload: bool) -> Event {
        self.record(Transition::MasterStart { pid: 1, workers: 2, began: 1, reload }).0
    }

    fn start(&self, generation: u64, pid: i32, index: u32) -> (Event, u32) {
        self.record(Transition::WorkerStart {
            generation,
            pid,
            index,
            process_slot: index,
            heartbeat_timeout: 10,
            respawn_of: None,
        })
    }

    fn exit(&self, slot: u32) -> Event {
        self.record(Transition::WorkerExit { slot, stopping: false }).0
    }

    /// Whether the generation was over; tells so.
    fn finished(&self) -> Option<Event> {
        let generation = self.0.finished()?;
        Some(self.record(Transition::MasterExit { generation, pid: 1 }).0)
    }
}

#[test]
fn a_worker_takes_the_place_of_the_last_that_registered() {
    let memory = memory();
    let node = Node(memory.roster());
    let start = |generation, pid, last| Transition::WorkerStart {
        generation,
        pid,
        index: 0,
        process_slot: 0,
        heartbeat_timeout: 10,
        respawn_of: last,
    };
    node.load(false);
    // The process 9 died before it could register: nobody was told of it.
    let (first, slot) = node.record(start(1, 10, Some(9)));
    assert_eq!(first.respawn_of, None);
    node.exit(slot);
    // So did 11.
    let (second, slot) = node.record(start(1, 12, Some(11)));
    assert_eq!(second.respawn_of, Some(10));
    // Workers of the next generation have the same indexes; the old ones may be started again all
    // the same.
    node.load(true);
    assert_eq!(node.record(start(2, 20, None)).0.respawn_of, None);
    node.exit(slot);
    let (old, slot) = node.record(start(1, 13, Some(12)));
    assert_eq!(old.respawn_of, Some(12));
    node.exit(slot);
    // nginx gives the place of an old worker to one of the new generation.
    assert_eq!(node.record(start(2, 21, Some(13))).0.respawn_of, Some(13));
}

fn memory() -> Memory {
    Memory::new(Geometry { generations: 6, workers: 12, events: 8, messages: 0 })
}

fn counts(event: &Event) -> (Option<u32>, u32, Option<u32>, u32) {
    (event.n_prev, event.n_mine, event.n_next, event.n_older)
}

#[test]
fn an_old_worker_outlives_the_next_generation() {
    let memory = memory();
    let node = Node(memory.roster());
    node.load(false);
    let (_, held) = node.start(1, 10, 0);
    node.load(true);
    let (_, second) = node.start(2, 20, 0);
    node.load(true);
    node.start(3, 30, 0);
    node.start(3, 31, 1);
    node.exit(second);
    let end = node.finished().expect("the second is over");
    assert_eq!((end.generation, counts(&end)), (2, (Some(1), 0, Some(2), 0)));
    let exit = node.exit(held);
    assert_eq!(counts(&exit), (None, 1, Some(2), 0), "the two are the third generation's");
    let end = node.finished().expect("the first is over");
    assert_eq!((end.kind, counts(&end)), (Kind::MasterExit, (None, 0, Some(2), 0)));
}

#[test]
fn the_previous_generation_is_the_nearest_that_lives() {
    let memory = memory();
    let node = Node(memory.roster());
    node.load(false);
    node.start(1, 10, 0);
    node.load(true);
    node.start(2, 20, 0);
    node.load(true);
    let (_, third) = node.start(3, 30, 0);
    node.exit(third);
    // Nobody retires the newest before the next is there.
    assert_eq!(node.finished(), None);
    assert_eq!(counts(&node.load(true)), (Some(0), 0, None, 2));
    assert_eq!(node.finished().map(|end| end.generation), Some(3));
    let (start, _) = node.start(4, 40, 0);
    assert_eq!(counts(&start), (Some(1), 1, None, 1), "the second's, and the first's are older");
}
