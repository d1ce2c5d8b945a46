//! Mending a roster whose last holder of the lock died.

use std::sync::atomic::Ordering::{Relaxed, Release};

use crate::event::Event;
use crate::table::Roster;

/// What [`Roster::recover`] found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// The event of a transition that was begun and has now been finished.
    pub finished: Option<Event>,
    /// Numbers that did not fit each other, such as counts and workers. 0 unless there is a fault in this crate
    /// or somebody else wrote to the zone.
    pub corrected: u32,
}

impl Recovery {
    fn note(&mut self) {
        self.corrected = self.corrected.saturating_add(1);
    }
}

impl Roster<'_> {
    /// Finishes what the dead holder of the lock had begun, and counts anew. The caller holds the
    /// lock. May itself be interrupted at any point and called again.
    pub fn recover(&self) -> Recovery {
        let mut recovery = Recovery::default();
        if let Some(change) = self.journaled() {
            self.apply(&change, &mut || ());
            recovery.finished = Some(change.event);
        }
        self.carried_out();

        // An event that is not recorded can't have been delivered; none that follows would be.
        let seq = self.seq();
        if self.head.delivered.load(Relaxed) > seq {
            self.head.delivered.store(seq, Release);
            recovery.note();
        }
        // A worker of a generation that has no record could never have an event again.
        for w in self.workers() {
            if self.generation(w.generation).is_none() {
                if let Some(record) = self.workers.get(w.slot as usize) {
                    record.registration.store(0, Release);
                    record.generation.store(0, Release);
                }
                recovery.note();
            }
        }
        for g in self.generations() {
            let (mut running, mut present) = (0u32, 0u32);
            for w in self.workers().filter(|w| w.generation == g.number) {
                present = present.saturating_add(1);
                running = running.saturating_add(u32::from(!w.hung));
            }
            if (running, present) != (g.running, g.present) {
                if let Some(record) = self.generations.get(g.slot as usize) {
                    record.running.store(running, Relaxed);
                    record.present.store(present, Release);
                }
                recovery.note();
            }
        }
        self.link_free_workers();
        recovery
    }
}
