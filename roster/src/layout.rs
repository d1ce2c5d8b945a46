//! How the roster lies in memory: a head, then the generations, the workers and the events.
//!
//! Plain words, no pointer, each an atomic: two builds of the module may read one zone, and readers
//! need no lock. Any change here changes [`LAYOUT_VERSION`].

use std::mem::size_of;
use std::sync::atomic::{AtomicU32, AtomicU64};

/// First word of a roster.
pub const MAGIC: u64 = u64::from_le_bytes(*b"ngxrostr");

/// Version of everything in this file.
pub const LAYOUT_VERSION: u32 = 1;

/// Words of the journal: a change in full, see `journal.rs`.
pub(crate) const JOURNAL_WORDS: usize = 32;

/// The node as a whole.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Head {
    pub(crate) magic: AtomicU64,
    pub(crate) layout: AtomicU32,
    pub(crate) generation_slots: AtomicU32,
    pub(crate) worker_slots: AtomicU32,
    pub(crate) event_slots: AtomicU32,

    /// The newest event recorded, and the newest whose callbacks are over.
    pub(crate) seq: AtomicU64,
    pub(crate) delivered: AtomicU64,
    /// The delivery under way: low half of its event's seq, and how many callbacks have begun. One
    /// word, so that a count never goes with another event.
    pub(crate) delivery: AtomicU64,
    /// By the configuration of which generation.
    pub(crate) delivery_generation: AtomicU64,

    /// The generation committed last; 0 before the first.
    pub(crate) generation: AtomicU64,
    /// First of the free worker slots, linked by `WorkerRecord::next`; `NONE` at the end.
    pub(crate) free_worker: AtomicU32,
    /// Worker slots that were ever in use are below this.
    pub(crate) worker_limit: AtomicU32,
    /// The process that holds the lock, for those who wait to name it; 0 while free.
    pub(crate) holder: AtomicU32,
    /// Generation slots that were ever in use are below this.
    pub(crate) generation_limit: AtomicU32,

    pub(crate) journal_valid: AtomicU64,
    pub(crate) journal: [AtomicU64; JOURNAL_WORDS],
}

/// One generation.
#[derive(Debug, Default)]
#[repr(C)]
pub struct GenerationRecord {
    /// Its number; 0 in a free slot.
    pub(crate) number: AtomicU64,
    /// 1 once a newer one was committed or the node stops.
    pub(crate) retired: AtomicU32,
    /// Workers that run, hung ones not counted.
    pub(crate) running: AtomicU32,
    /// Workers that have not ended, hung ones included.
    pub(crate) present: AtomicU32,
    pub(crate) spare: [AtomicU32; 11],
}

/// One worker.
#[derive(Debug, Default)]
#[repr(C)]
pub struct WorkerRecord {
    /// Its generation; 0 in a free slot.
    pub(crate) generation: AtomicU64,
    pub(crate) pid: AtomicU32,
    pub(crate) index: AtomicU32,
    /// nginx's own slot of the process, `ngx_process_slot`, in the master's table.
    pub(crate) process_slot: AtomicU32,
    /// 1 while it counts as hung.
    pub(crate) hung: AtomicU32,
    /// When it registered, milliseconds of the clock that also counts sleep, as `/proc` does.
    pub(crate) since_boot: AtomicU64,
    /// Its last heartbeat, milliseconds of the monotonic clock.
    pub(crate) beat: AtomicU64,
    pub(crate) next: AtomicU32,
    /// How old its heartbeat may get, milliseconds. Its own, since a reload may change the rhythm.
    pub(crate) patience: AtomicU32,
    pub(crate) spare: [AtomicU32; 12],
}

/// One event of the history.
#[derive(Debug, Default)]
#[repr(C)]
pub struct EventRecord {
    pub(crate) words: [AtomicU64; crate::Event::WORDS],
    /// How long its callbacks took, microseconds; `u64::MAX` while they are not over.
    pub(crate) took: AtomicU64,
    pub(crate) spare: [AtomicU64; 4],
}

/// End of the list of free slots, and any other absent index.
pub(crate) const NONE: u32 = u32::MAX;

/// How many slots of each kind a piece of memory holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Generations alive at a time.
    pub generations: usize,
    /// Workers alive at a time, over all generations.
    pub workers: usize,
    /// Events remembered.
    pub events: usize,
}

impl Geometry {
    /// The least that makes sense.
    const MIN: Geometry = Geometry { generations: 4, workers: 16, events: 32 };

    /// Divides `bytes`: half for the workers, a thirty-second for the generations, the rest for the
    /// events. None if that is less than the least.
    pub fn for_bytes(bytes: usize) -> Option<Geometry> {
        let generations = (bytes / 32 / size_of::<GenerationRecord>()).max(Self::MIN.generations);
        let workers = bytes / 2 / size_of::<WorkerRecord>();
        let used = size_of::<Head>()
            + generations * size_of::<GenerationRecord>()
            + workers * size_of::<WorkerRecord>();
        let events = bytes.checked_sub(used)? / size_of::<EventRecord>();
        (workers >= Self::MIN.workers && events >= Self::MIN.events).then_some(Geometry {
            generations,
            workers,
            events,
        })
    }

    /// Offset of the generations from the head.
    pub const fn generations_offset(&self) -> usize {
        size_of::<Head>()
    }

    /// Offset of the workers from the head.
    pub const fn workers_offset(&self) -> usize {
        self.generations_offset() + self.generations * size_of::<GenerationRecord>()
    }

    /// Offset of the events from the head.
    pub const fn events_offset(&self) -> usize {
        self.workers_offset() + self.workers * size_of::<WorkerRecord>()
    }

    /// All of it.
    pub const fn total(&self) -> usize {
        self.events_offset() + self.events * size_of::<EventRecord>()
    }
}

// Every part begins where the one before ends, so each must keep the alignment of 8.
const _: () = {
    assert!(size_of::<Head>() % 8 == 0);
    assert!(size_of::<GenerationRecord>() == 64);
    assert!(size_of::<WorkerRecord>() == 96);
    assert!(size_of::<EventRecord>() == 96);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_zone_holds_what_the_contract_says() {
        // nginx keeps the first page or two of the 64 for the slab pool itself.
        let g = Geometry::for_bytes(61 * 4096).unwrap();
        assert!(g.workers >= 1024 && g.generations >= 8 && g.events >= 256, "{g:?}");
    }

    #[test]
    fn it_fits_and_grows() {
        let mut last = 0;
        for pages in 6..600 {
            let g = Geometry::for_bytes(pages * 4096).unwrap();
            assert!(g.total() <= pages * 4096);
            assert!(g.workers > last);
            last = g.workers;
        }
        assert_eq!(Geometry::for_bytes(0), None);
        assert_eq!(Geometry::for_bytes(1024), None);
    }
}
