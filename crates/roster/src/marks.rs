//! Marks that a program puts on workers and generations for itself: bits that mean nothing to the
//! roster. Each is one atomic operation, no transition.

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};

use crate::table::Roster;

/// How many marks a generation has room for.
const GENERATION_MARKS: u32 = 8;

impl Roster<'_> {
    /// The marks of the worker in a slot. They end with it.
    pub fn marks(&self, slot: u32) -> u32 {
        self.workers.get(slot as usize).map_or(0, |record| record.marks.load(Acquire))
    }

    /// Adds marks to the worker in a slot.
    pub fn mark(&self, slot: u32, marks: u32) {
        if let Some(record) = self.workers.get(slot as usize) {
            record.marks.fetch_or(marks, AcqRel);
        }
    }

    /// The marks of a generation. They outlive it until another begins.
    pub fn generation_marks(&self, generation: u64) -> u64 {
        let words = self.generations.iter().map(|record| record.marks.load(Acquire));
        let own = words.into_iter().find(|word| word >> GENERATION_MARKS == generation);
        own.map_or(0, |word| word & ((1 << GENERATION_MARKS) - 1))
    }

    /// Adds a mark, the one of that number, to a generation that has not ended; false if it has it
    /// already, or has ended.
    pub fn mark_generation(&self, generation: u64, mark: u32) -> bool {
        let slot = self.generation(generation).map(|g| g.slot as usize);
        let Some(record) = slot.and_then(|slot| self.generations.get(slot)) else {
            return false;
        };
        let mark = 1 << (mark % GENERATION_MARKS);
        let own = |word: u64| match word >> GENERATION_MARKS == generation {
            true => word,
            false => generation << GENERATION_MARKS,
        };
        let marked = record.marks.fetch_update(AcqRel, Relaxed, |word| Some(own(word) | mark));
        marked.is_ok_and(|before| own(before) & mark == 0)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use crate::{EventRecord, GenerationRecord, Head, Now, Roster, Transition, WorkerRecord};

    fn fresh<T: Default>(n: usize) -> Vec<T> {
        (0..n).map(|_| T::default()).collect()
    }

    #[test]
    fn marks_end_with_whom_they_are_of() {
        let head = Head::default();
        let generations = fresh::<GenerationRecord>(2);
        let workers = fresh::<WorkerRecord>(2);
        let events = fresh::<EventRecord>(4);
        let roster = Roster {
            head: &head,
            generations: &generations,
            workers: &workers,
            events: &events,
            messages: &[],
        };
        roster.create(0, 77);
        let now = Now { wall: 1, monotonic: 1, since_boot: 1 };
        let record = |transition| roster.record(transition, now, &mut |_| ()).expect("room");
        let load = Transition::MasterStart { pid: 1, workers: 1, began: 0, reload: true };
        let start = |generation| Transition::WorkerStart {
            generation,
            pid: 9,
            index: 0,
            process_slot: 0,
            heartbeat_timeout: 1,
            respawn_of: None,
        };
        record(load);
        let slot = record(start(1)).slot.expect("a worker has one");
        assert_eq!(roster.marks(slot), 0);
        roster.mark(slot, 1);
        roster.mark(slot, 4);
        assert_eq!(roster.marks(slot), 5);
        assert!(roster.mark_generation(1, 0));
        assert!(!roster.mark_generation(1, 0), "only once");
        assert!(roster.mark_generation(1, 1));
        record(Transition::WorkerExit { slot, stopping: false });
        record(load);
        record(Transition::MasterExit { generation: 1, pid: 1 });
        assert_eq!(roster.generation_marks(1), 3, "they are read when its end is told");
        assert!(!roster.mark_generation(1, 2), "but none is added");
        assert_eq!(roster.generation_marks(2), 0);
        record(load);
        assert_eq!(roster.generation_marks(3), 0, "another in the same place has none");
        assert!(roster.mark_generation(3, 0));
        let slot = record(start(3)).slot.expect("a worker has one");
        assert_eq!(roster.marks(slot), 0, "nor has the next worker there");
        assert_eq!(roster.generation_marks(9), 0);
    }
}
