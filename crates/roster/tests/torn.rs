//! Tables that the tests of tests/fuzz.rs once fell over, one for each fault.
#![cfg(not(loom))]

mod common;

use std::sync::atomic::Ordering::Relaxed;

use common::{Memory, NOW};
use roster::{Geometry, Transition};

const GEOMETRY: Geometry = Geometry { generations: 4, workers: 6, events: 8, messages: 2 };

/// A roster behind whose header every word is the same.
fn filled(word: u64) -> Memory {
    let memory = Memory::new(GEOMETRY);
    for old in &memory.words()[3..] {
        old.store(word, Relaxed);
    }
    memory
}

#[test]
fn the_largest_numbers_there_are() {
    let memory = filled(u64::MAX);
    let roster = memory.roster();
    assert_eq!(roster.pending(), None);
    assert_eq!(roster.counts(u64::MAX).n_mine, u32::MAX);
    roster.history().for_each(drop);
    roster.begin_callback(1, 1, u32::MAX);
    for slot in 0..2 {
        let _ = roster.record(Transition::WorkerRecovered { slot }, NOW, &mut |_| ());
    }
    let _ = roster.record(Transition::ReloadFailed { pid: 1, began: 1 }, NOW, &mut |_| ());
}

#[test]
fn events_without_number_are_not_waited_for() {
    let memory = Memory::new(GEOMETRY);
    let roster = memory.roster();
    let start = Transition::MasterStart { pid: 1, workers: 1, began: 1, reload: false };
    roster.record(start, NOW, &mut |_| ()).expect("there is room");
    let seq = memory.words().iter().position(|word| word.load(Relaxed) == 1);
    // The first word that is 1 is the number of the newest event.
    memory.words()[seq.expect("there is one event")].store(1 << 60, Relaxed);
    assert_eq!(roster.seq(), 1 << 60);
    roster.delivered(1, 0);
    let skipped = (0..1000).take_while(|_| roster.skip_unreadable()).count();
    assert!(skipped <= 1 + GEOMETRY.events, "{skipped} of all that is forgotten and 8 events");
}

#[test]
fn events_are_told_again_after_mending() {
    let memory = Memory::new(GEOMETRY);
    let roster = memory.roster();
    // That so many were told can't be.
    roster.delivered(1 << 60, 0);
    assert_eq!(roster.recover().corrected, 1);
    assert_eq!(roster.recover().corrected, 0);
    let start = Transition::MasterStart { pid: 1, workers: 1, began: 1, reload: false };
    roster.record(start, NOW, &mut |_| ()).expect("there is room");
    assert_eq!(roster.pending().map(|pending| pending.event.seq), Some(1));
}
