//! The roster: who is on duty on one nginx node, in which generation, in which state.
//!
//! It is a table of plain atomics, so that it can lie in memory that processes of several
//! generations share and that any of them may leave at any instruction. Whoever changes it holds
//! the node's lock, which is not this crate's business; whoever only reads needs none.
//!
//! A change is a [`Transition`]. [`Roster::record`] carries it out whole or not at all, even if the
//! process dies in the middle ([`Roster::recover`]), and yields the [`Event`] to tell.

#![forbid(unsafe_code)]

mod admission;
mod delivery;
mod event;
mod journal;
#[cfg(feature = "kill-points")]
pub mod kill;
mod layout;
mod log;
mod losses;
mod marks;
mod recover;
mod snapshot;
mod stats;
mod sync;
mod table;
mod template;
mod transaction;
mod transition;
mod uncounted;

pub use admission::Admission;
pub use delivery::Pending;
pub use event::{Event, History, Kind, Reason};
pub use layout::{
    CallbackRecord, EventRecord, GenerationRecord, Geometry, Head, Reloads, WorkerRecord,
    LAYOUT_VERSION, MAGIC,
};
pub use log::{LogMark, LogProgress};
pub use losses::{Cause, News, Peer, Plan, Witness};
pub use recover::Recovery;
pub use snapshot::Snapshot;
pub use stats::CallbackStats;
pub use table::{Counts, GenerationView, Reservation, Roster, WorkerView};
pub use template::{Field, Template, UnknownField};
pub use transaction::{Did, Host, Mode, Point, Ran, Report, Transaction};
pub use transition::{Full, Now, Recorded, Step, Transition};
pub use uncounted::Uncounted;
