//! How the roster lies in memory: a head, then the generations, the workers and the events.
//!
//! Plain words, no pointer, each an atomic: two builds of the module may read one zone, and readers
//! need no lock. Any change here changes [`LAYOUT_VERSION`].

use std::mem::size_of;

use crate::event::{Event, Kind, Reason};
use crate::held::HeldAreas;
use crate::message::Message;
use crate::sync::{AtomicU32, AtomicU64};
use crate::words::{Word, Words};

/// First word of a roster.
pub const MAGIC: u64 = u64::from_le_bytes(*b"ngxrostr");

/// Version of everything in this file.
pub const LAYOUT_VERSION: u32 = 6;

/// Words of the journal: a change in full, see `journal.rs`.
pub(crate) const JOURNAL_WORDS: usize = 40;

/// The node as a whole.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Head {
    pub(crate) magic: AtomicU64,
    pub(crate) layout: AtomicU32,
    pub(crate) generation_slots: AtomicU32,
    pub(crate) worker_slots: AtomicU32,
    pub(crate) event_slots: AtomicU32,

    /// Names this history: no other node and no other start of this one has the same number.
    pub(crate) history: AtomicU64,

    /// The newest event recorded, and the newest whose callbacks have finished.
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
    /// The process that holds the lock, which processes that wait for it name; 0 while it is free.
    pub(crate) holder: AtomicU32,
    /// Generation slots that were ever in use are below this.
    pub(crate) generation_limit: AtomicU32,

    /// Reloads that committed and that did not, since the history began; when the last of each
    /// ended, wall clock, milliseconds; and how long the last of all took, milliseconds.
    pub(crate) reloads: [AtomicU64; Reloads::WORDS],
    /// The master whose loss is recorded; 0 if it lives, as far as is known.
    pub(crate) lost_master: AtomicU32,
    /// 1 while the event log can't be written, and 2 if its last line is not whole.
    pub(crate) log_state: AtomicU32,
    /// 1 while the node is known to stop.
    pub(crate) stopping: AtomicU64,
    /// Lines of the event log that could not be written, since the history began.
    pub(crate) log_failures: AtomicU64,
    /// The newest event that is in the event log.
    pub(crate) logged: AtomicU64,
    /// The line of it that was begun last: the event's number, device and inode of the file, its size
    /// before, and the length of the line. See `log.rs`.
    pub(crate) log_mark: [AtomicU64; 5],
    /// The processes that the kernel killed for memory, by their cgroup.
    pub(crate) oom_kills: [OomRecord; OOM_CGROUPS],
    /// How many programs that nobody waits for were started.
    pub(crate) programs: AtomicU64,
    /// The process that has let go of the lock in the middle of an event, to come back, or 0; and
    /// until when no other process continues with that event, by the monotonic clock, milliseconds.
    pub(crate) reserved_by: AtomicU64,
    /// When that process did so, by the clock that also counts sleep, milliseconds: another one that
    /// gets its pid begins later.
    pub(crate) reserved_since: AtomicU64,
    pub(crate) reserved_until: AtomicU64,

    /// Odd while the journal holds a change that is not carried out in full, one more at each end of
    /// that. A reader without the lock sees by it whether anything changed meanwhile.
    pub(crate) epoch: AtomicU64,
    pub(crate) journal: Words<JOURNAL_WORDS>,

    /// When the history began, wall clock, milliseconds.
    pub(crate) started: AtomicU64,
    /// Since when the master reads a configuration, wall clock, milliseconds; 0 while it does not.
    pub(crate) loading_since: AtomicU64,
    /// Since when a callback runs, monotonic clock, milliseconds; 0 while none does.
    pub(crate) callback_since: AtomicU64,
    /// Workers that found no place had indices below this.
    pub(crate) uncounted_limit: AtomicU64,
    /// Events so far, by `Kind` as a number.
    pub(crate) kinds: [AtomicU64; Kind::ALL.len() + 1],
    /// Workers lost so far, see `Reason::index`.
    pub(crate) losses: Words<{ Reason::INDICES }>,
    /// Workers started so far with an index that had one before in their generation.
    pub(crate) respawns: AtomicU64,
    /// What callbacks did so far, by `Kind` as a number.
    pub(crate) callbacks: [CallbackRecord; Kind::ALL.len() + 1],
}

/// In how many cgroups the processes of a node are told apart that the kernel killed for memory.
pub(crate) const OOM_CGROUPS: usize = 4;

/// The processes of one cgroup that the kernel killed for memory.
#[derive(Debug, Default)]
#[repr(C)]
pub struct OomRecord {
    /// The cgroup, as a hash of its path; 0 in a record that is not used.
    pub(crate) cgroup: AtomicU64,
    /// How many of them are accounted for.
    pub(crate) kills: AtomicU64,
}

/// How many buckets the time of a callback can fall into.
pub(crate) const CALLBACK_BUCKETS: usize = 12;

/// What the callbacks for one kind of event did so far.
#[derive(Debug, Default)]
#[repr(C)]
pub struct CallbackRecord {
    pub(crate) runs: AtomicU64,
    pub(crate) failures: AtomicU64,
    /// Microseconds that those took that are over.
    pub(crate) time: AtomicU64,
    /// How many of those took up to each of `CallbackStats::BOUNDS`, and more than the last.
    pub(crate) buckets: [AtomicU64; CALLBACK_BUCKETS],
}

/// The attempts to reload since the history began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reloads {
    /// How many committed.
    pub succeeded: u64,
    /// How many did not.
    pub failed: u64,
    /// When the last one committed, wall clock, milliseconds since 1970; none if none did.
    pub succeeded_at: Option<i64>,
    /// When the last one failed, likewise.
    pub failed_at: Option<i64>,
    /// How long the last attempt took, milliseconds.
    pub duration: u64,
    /// Whether the last attempt failed.
    pub last_failed: bool,
}

impl Reloads {
    pub(crate) const WORDS: usize = 6;

    pub(crate) fn to_words(self) -> [u64; Self::WORDS] {
        [
            self.succeeded,
            self.failed,
            self.succeeded_at.to_word(),
            self.failed_at.to_word(),
            self.duration,
            self.last_failed.into(),
        ]
    }

    pub(crate) fn from_words(words: [u64; Self::WORDS]) -> Reloads {
        let [succeeded, failed, succeeded_at, failed_at, duration, last_failed] = words;
        Reloads {
            succeeded,
            failed,
            succeeded_at: Word::from_word(succeeded_at),
            failed_at: Word::from_word(failed_at),
            duration,
            last_failed: last_failed != 0,
        }
    }
}

/// One generation.
#[derive(Debug, Default)]
#[repr(C)]
pub struct GenerationRecord {
    /// Its number; 0 in a free slot.
    pub(crate) number: AtomicU64,
    /// When its configuration began to be read, milliseconds of the monotonic clock.
    pub(crate) began: AtomicU64,
    /// 1 once a newer one was committed or the node stops.
    pub(crate) retired: AtomicU32,
    /// Workers that run, hung ones not counted.
    pub(crate) running: AtomicU32,
    /// Workers that have not ended, hung ones included.
    pub(crate) present: AtomicU32,
    /// `worker_processes`: with so many it is ready; 0 if that is of no interest.
    pub(crate) expected: AtomicU32,
    /// 1 once it was ready.
    pub(crate) ready: AtomicU32,
    /// How long that took since `began`, milliseconds.
    pub(crate) ready_after: AtomicU32,
    /// When it was committed, wall clock, milliseconds.
    pub(crate) started: AtomicU64,
    /// Its number and marks, see `marks.rs`.
    pub(crate) marks: AtomicU64,
    pub(crate) spare: [AtomicU32; 2],
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
    pub(crate) heartbeat_timeout: AtomicU32,
    /// Since when it drains, milliseconds of the monotonic clock; 0 if it does not.
    pub(crate) draining_since: AtomicU64,
    /// 1 once its `worker_stuck` is recorded.
    pub(crate) stuck: AtomicU32,
    /// How many workers of its generation had its index before it.
    pub(crate) respawns: AtomicU32,
    /// Its open connections: low half those in use and 1, high half idle ones; 0 if not known.
    pub(crate) connections: AtomicU64,
    /// Not about this worker, but about the index that equals this slot: low half how often a worker
    /// with it was started again, high half in which generation (its lower 32 bits).
    pub(crate) index_respawns: AtomicU64,
    /// Nor this: the process that has registered with that index last.
    pub(crate) index_pid: AtomicU32,
    /// See `marks.rs`.
    pub(crate) marks: AtomicU32,
    /// The number of its `worker_start`: the one name of a worker that no other ever has, since its
    /// slot, its pid and nginx's slot are given to others. 0 in a free slot.
    pub(crate) registration: AtomicU64,
    /// About the index that equals this slot, too: a worker with it that found no place; 0 if there is
    /// none. See `uncounted.rs`.
    pub(crate) uncounted: AtomicU64,
}

/// One event of the history.
#[derive(Debug, Default)]
#[repr(C)]
pub struct EventRecord {
    pub(crate) words: [AtomicU64; Event::WORDS],
    /// How long its callbacks took, microseconds; `u64::MAX` until they have finished.
    pub(crate) took: AtomicU64,
    pub(crate) spare: [AtomicU64; 1],
}

/// The text of an event of the history, if it has one.
#[derive(Debug, Default)]
#[repr(C)]
pub struct MessageRecord {
    /// The event's number; 0 while there is none, or the text is being written.
    pub(crate) seq: AtomicU64,
    /// Bytes.
    pub(crate) length: AtomicU64,
    pub(crate) words: Words<{ Message::SIZE / 8 }>,
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
    /// Texts of events remembered.
    pub messages: usize,
}

impl Geometry {
    /// The least that makes sense.
    const MIN: Geometry = Geometry { generations: 4, workers: 16, events: 32, messages: 4 };

    /// Divides `bytes`: half for the workers, a thirty-second for the generations, an eighth at the end for
    /// what holds those that drain (`held.rs`), some for texts, the rest for the events. None if that is less
    /// than the least.
    pub fn for_bytes(bytes: usize) -> Option<Geometry> {
        let part = |bytes: usize, size: usize| bytes.checked_div(size).unwrap_or_default();
        let generations =
            part(bytes / 32, size_of::<GenerationRecord>()).max(Self::MIN.generations);
        let workers = part(bytes / 2, size_of::<WorkerRecord>());
        let messages = Self::MIN.messages;
        let used = Geometry { generations, workers, events: 0, messages }.total();
        let used = used.saturating_add(HeldAreas::bytes(bytes));
        let events = part(bytes.checked_sub(used)?, size_of::<EventRecord>());
        (workers >= Self::MIN.workers && events >= Self::MIN.events).then_some(Geometry {
            generations,
            workers,
            events,
            messages,
        })
    }

    /// Offset of the generations from the head.
    pub const fn generations_offset(&self) -> usize {
        size_of::<Head>()
    }

    /// Offset of the workers from the head.
    pub const fn workers_offset(&self) -> usize {
        after(self.generations_offset(), self.generations, size_of::<GenerationRecord>())
    }

    /// Offset of the events from the head.
    pub const fn events_offset(&self) -> usize {
        after(self.workers_offset(), self.workers, size_of::<WorkerRecord>())
    }

    /// Offset of the texts from the head.
    pub const fn messages_offset(&self) -> usize {
        after(self.events_offset(), self.events, size_of::<EventRecord>())
    }

    /// All of it.
    pub const fn total(&self) -> usize {
        after(self.messages_offset(), self.messages, size_of::<MessageRecord>())
    }
}

/// Where a part ends that begins at an offset. What does not fit into any memory ends beyond all of it.
const fn after(offset: usize, records: usize, size: usize) -> usize {
    offset.saturating_add(records.saturating_mul(size))
}

// Every part begins where the one before ends, so each must keep the alignment of 8. loom's atomics
// are larger.
#[cfg(not(loom))]
const _: () = {
    assert!(size_of::<Head>() % 8 == 0);
    assert!(size_of::<GenerationRecord>() == 64);
    assert!(size_of::<WorkerRecord>() == 104);
    assert!(size_of::<EventRecord>() == 96);
};

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::held::HeldArea;

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
            assert!(g.total() + HeldAreas::bytes(pages * 4096) <= pages * 4096);
            assert!(g.workers > last);
            last = g.workers;
        }
        assert_eq!(Geometry::for_bytes(0), None);
        assert_eq!(Geometry::for_bytes(1024), None);
    }

    /// Each layout that there was, by its version; a new one is added at the end.
    #[cfg(target_pointer_width = "64")]
    const LAYOUTS: &[(u32, u64)] = &[(5, 0x73f8_fc9f_4420_0ea2), (6, 0xd7ae_1005_1ebc_46ac)];

    /// FNV-1a of the structures of this file, without comments, and of the sizes that come of them.
    #[cfg(target_pointer_width = "64")]
    fn fingerprint() -> u64 {
        let files = [include_str!("layout.rs"), include_str!("held.rs")];
        let structures = files.into_iter().flat_map(|text| text.split("#[repr(C)]\n").skip(1));
        let declared = structures
            .flat_map(|text| text.lines().take_while(|line| *line != "}"))
            .map(|line| line.split("//").next().unwrap_or_default().trim())
            .flat_map(str::bytes);
        let sizes = [
            size_of::<Head>(),
            size_of::<GenerationRecord>(),
            size_of::<WorkerRecord>(),
            size_of::<EventRecord>(),
            size_of::<MessageRecord>(),
            size_of::<HeldArea>(),
        ];
        let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        let sizes = sizes.into_iter().flat_map(usize::to_le_bytes);
        declared.chain(sizes).fold(0xcbf2_9ce4_8422_2325, mix)
    }

    // Elsewhere the same structures have other sizes.
    #[cfg(target_pointer_width = "64")]
    #[test]
    fn a_change_of_the_layout_has_a_new_version() {
        let now = (LAYOUT_VERSION, fingerprint());
        assert!(
            LAYOUTS.contains(&now),
            "what lies in the zone has changed: raise LAYOUT_VERSION, which keeps other builds of the module \
             from reading it, and add {now:#x?} to LAYOUTS"
        );
        assert_eq!(LAYOUTS.last(), Some(&now), "versions grow");
        assert!(
            LAYOUTS.is_sorted_by(|one, next| one.0 < next.0),
            "no version stands for two layouts"
        );
    }
}
