//! The transitions: what can happen to a roster.

use crate::event::{Event, Kind, Reason};
use crate::table::Roster;

/// The time of a transition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Wall clock, milliseconds since 1970.
    pub wall: i64,
    /// Monotonic clock, milliseconds.
    pub monotonic: u64,
    /// Clock that also counts sleep, milliseconds since boot.
    pub since_boot: u64,
}

/// Something that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transition {
    /// A generation is committed; all older ones retire. Its number is the next.
    MasterStart {
        /// The process that commits it.
        pid: i32,
        /// How many workers it is to have, `worker_processes`.
        workers: u32,
        /// When its configuration began to be read, milliseconds of the monotonic clock.
        began: u64,
        /// Whether there was one before it in this master.
        reload: bool,
    },
    /// All workers of a generation have started.
    MasterReady {
        /// Its number.
        generation: u64,
        /// The process that says so.
        pid: i32,
    },
    /// A reload did not commit.
    ReloadFailed {
        /// The master.
        pid: i32,
        /// When it began, milliseconds of the monotonic clock.
        began: u64,
    },
    /// The master died and workers live on.
    MasterLost {
        /// The master that died.
        pid: i32,
    },
    /// A worker was told to quit gracefully and has stopped accepting.
    WorkerDraining {
        /// Its slot.
        slot: u32,
        /// The connections it has still open.
        connections: u32,
        /// Whether it does so since the node stops.
        stopping: bool,
    },
    /// A worker drains for longer than it should.
    WorkerStuck {
        /// Its slot.
        slot: u32,
        /// The connections it has still open.
        connections: u32,
    },
    /// A generation has finished.
    MasterExit {
        /// Its number.
        generation: u64,
        /// The process that says so.
        pid: i32,
    },
    /// A worker begins.
    WorkerStart {
        /// The generation it belongs to.
        generation: u64,
        /// Its process.
        pid: i32,
        /// Its index.
        index: u32,
        /// Its slot in the master's table of processes.
        process_slot: u32,
        /// How old its heartbeat may get, milliseconds.
        heartbeat_timeout: u32,
        /// The process in whose place nginx started it, none if in nobody's. If that died before it
        /// registered, the event names the one before it.
        respawn_of: Option<i32>,
    },
    /// A worker ends in an orderly way.
    WorkerExit {
        /// Its slot, from [`Recorded::slot`].
        slot: u32,
        /// Whether it does so since the node stops.
        stopping: bool,
    },
    /// A worker died without a word.
    WorkerLost {
        /// Its slot.
        slot: u32,
        /// Why.
        reason: Reason,
    },
    /// A worker missed its heartbeat: it is no longer counted.
    WorkerHung {
        /// Its slot.
        slot: u32,
    },
    /// A hung worker beat again: it is counted again.
    WorkerRecovered {
        /// Its slot.
        slot: u32,
    },
}

impl Transition {
    /// The kind of the event that it records.
    pub const fn kind(&self) -> Kind {
        match self {
            Transition::MasterStart { .. } => Kind::MasterStart,
            Transition::MasterReady { .. } => Kind::MasterReady,
            Transition::MasterLost { .. } => Kind::MasterLost,
            Transition::MasterExit { .. } => Kind::MasterExit,
            Transition::ReloadFailed { .. } => Kind::ReloadFailed,
            Transition::WorkerStart { .. } => Kind::WorkerStart,
            Transition::WorkerDraining { .. } => Kind::WorkerDraining,
            Transition::WorkerStuck { .. } => Kind::WorkerStuck,
            Transition::WorkerExit { .. } => Kind::WorkerExit,
            Transition::WorkerLost { .. } => Kind::WorkerLost,
            Transition::WorkerHung { .. } => Kind::WorkerHung,
            Transition::WorkerRecovered { .. } => Kind::WorkerRecovered,
        }
    }
}

/// Why a transition can't be recorded. Nothing has changed then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// No slot for another generation.
    #[error("no room for another generation")]
    Generations,
    /// No slot for another worker.
    #[error("no room for another worker")]
    Workers,
    /// The transition is about a generation or worker that the roster doesn't have.
    #[error("no such generation or worker")]
    Unknown,
}

/// The moments of [`Roster::record`] at which a process may die, for tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing has changed yet.
    Planned,
    /// The change is written down: it will happen.
    Journaled,
    /// Some of it is carried out.
    Applying,
    /// All of it is.
    Recorded,
}

/// A transition that was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// The event to dispatch.
    pub event: Event,
    /// The slot of the worker it is about.
    pub slot: Option<u32>,
    /// The slot of the generation it is about.
    pub generation_slot: u32,
}

impl Roster<'_> {
    /// Records a transition, whole or not at all. The caller holds the lock. `step` is told how far
    /// it is.
    pub fn record(
        &self,
        transition: Transition,
        now: Now,
        step: &mut dyn FnMut(Step),
    ) -> Result<Recorded, Full> {
        let change = self.plan(transition, now)?;
        step(Step::Planned);
        // Before the event is there for anybody to read.
        if change.event.kind == Kind::ReloadFailed {
            self.give_message(change.event.seq);
        }
        self.journal(&change);
        step(Step::Journaled);
        self.apply(&change, &mut || step(Step::Applying));
        step(Step::Recorded);
        Ok(Recorded {
            event: change.event,
            slot: change.worker.map(|w| w.to.slot),
            generation_slot: change.generation.to.slot,
        })
    }
}
