//! Memory that another build laid out, or nobody: a reload that keeps such a zone has to be refused.
#![cfg(not(loom))]

mod common;

use std::sync::atomic::Ordering::Relaxed;

use common::Memory;
use roster::Geometry;

const GEOMETRY: Geometry = Geometry { generations: 4, workers: 6, events: 8, messages: 2 };

#[test]
fn zeros_are_not_ours() {
    assert!(!Memory::zeroed(GEOMETRY).roster().is_compatible());
}

#[test]
fn another_layout_is_not_ours() {
    let memory = Memory::new(GEOMETRY);
    assert!(memory.roster().is_compatible());
    // Magic; layout and the slots of generations; those of workers and of events.
    for (word, bit) in [(0, 0), (0, 63), (1, 0), (1, 32), (2, 0), (2, 32)] {
        memory.words()[word].fetch_xor(1 << bit, Relaxed);
        assert!(!memory.roster().is_compatible(), "bit {bit} of word {word}");
        memory.words()[word].fetch_xor(1 << bit, Relaxed);
        assert!(memory.roster().is_compatible());
    }
}
