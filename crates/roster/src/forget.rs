//! Emptying what no transition depends on any more, for a model checker: it then sees fewer states that
//! differ.

use std::sync::atomic::Ordering;

use crate::table::Roster;

impl Roster<'_> {
    /// Empties the journal, as if it had never been written.
    pub fn forget_journal(&self) {
        for word in self.head.journal.iter() {
            word.store(0, Ordering::Relaxed);
        }
    }

    /// Empties what no transition depends on any more: events that were delivered, a journal that was
    /// carried out, free slots, and what is only counted. Two tables that differ in nothing else are then equal.
    pub fn forget_the_past(&self) {
        if self.journaled().is_none() {
            self.forget_journal();
        }
        let delivered = self.head.delivered.load(Ordering::Relaxed);
        for record in self.events {
            if record.words[0].load(Ordering::Relaxed) <= delivered {
                for word in &record.words {
                    word.store(0, Ordering::Relaxed);
                }
                record.took.store(0, Ordering::Relaxed);
            }
        }
        if self.head.delivery.load(Ordering::Relaxed) >> 32 <= delivered {
            self.head.delivery.store(0, Ordering::Relaxed);
            self.head.delivery_generation.store(0, Ordering::Relaxed);
        }
        let head = self.head;
        for count in head.kinds.iter().chain(head.losses.iter()).chain([&head.respawns]) {
            count.store(0, Ordering::Relaxed);
        }
        for record in self.workers {
            record.index_respawns.store(0, Ordering::Relaxed);
            if record.generation.load(Ordering::Relaxed) == 0 {
                record.pid.store(0, Ordering::Relaxed);
                record.hung.store(0, Ordering::Relaxed);
                record.index.store(0, Ordering::Relaxed);
                record.process_slot.store(0, Ordering::Relaxed);
                record.draining_since.store(0, Ordering::Relaxed);
            }
            // A name for one worker, whatever the order in which they came.
            let pid = u64::from(record.pid.load(Ordering::Relaxed));
            record.registration.store(pid, Ordering::Relaxed);
            record.index_pid.store(0, Ordering::Relaxed);
        }
        for record in self.generations {
            if record.number.load(Ordering::Relaxed) == 0 {
                record.retired.store(0, Ordering::Relaxed);
                record.ready.store(0, Ordering::Relaxed);
            }
        }
    }
}
