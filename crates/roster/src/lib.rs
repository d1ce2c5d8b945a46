//! The roster: the masters and workers of one nginx node, by generation, each with its state.
//!
//! It is a table of plain atomics, so that it can lie in memory that processes of several
//! generations share and that any of them may leave at any instruction. A process that changes it holds
//! the node's lock, which is not this crate's business; a reader needs none.
//!
//! A change is a [`Transition`]. [`Roster::record`] carries it out whole or not at all, even if the
//! process dies in the middle ([`Roster::recover`]), and yields the [`Event`] to dispatch.
//!
//! ```
//! use roster::{
//!     EventRecord, GenerationRecord, Head, Kind, Now, Roster, Transition, WorkerRecord,
//! };
//!
//! // The module has these in shared memory; each process sees the same roster there.
//! let head = Head::default();
//! let generations: [GenerationRecord; 4] = Default::default();
//! let workers: [WorkerRecord; 4] = Default::default();
//! let events: [EventRecord; 16] = Default::default();
//! let roster =
//!     Roster { head: &head, generations: &generations, workers: &workers, events: &events, messages: &[] };
//! let history = 77;
//! roster.create(0, history);
//!
//! // A master commits its configuration, and its first worker begins.
//! let now = Now { wall: 1_700_000_000_000, monotonic: 5, since_boot: 6 };
//! let load = Transition::MasterStart { pid: 100, workers: 2, began: 1, reload: false };
//! roster.record(load, now, &mut |_| ()).expect("there is room");
//! let start = Transition::WorkerStart {
//!     generation: roster.current_generation(),
//!     pid: 101,
//!     index: 0,
//!     process_slot: 0,
//!     heartbeat_timeout: 10_000,
//!     respawn_of: None,
//! };
//! let recorded = roster.record(start, now, &mut |_| ()).expect("there is room");
//!
//! // The event has the counts, the new worker included.
//! assert_eq!(recorded.event.kind, Kind::WorkerStart);
//! assert_eq!((recorded.event.n_prev, recorded.event.n_mine), (None, 1));
//! assert_eq!(roster.counts(1).n_mine, 1);
//!
//! // Both events wait for their callbacks, the older first; the next holder of the lock finds them,
//! // even if the process that recorded them is gone.
//! let pending = roster.pending().expect("nothing is dispatched yet");
//! assert_eq!((pending.event.kind, pending.begun), (Kind::MasterStart, 0));
//! ```

#![forbid(unsafe_code)]
// A panic in a hook would end a process of nginx's.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::unreachable,
    clippy::todo,
    clippy::unimplemented
)]
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

mod admission;
mod delivery;
mod event;
mod fields;
#[cfg(feature = "failpoints")]
mod forget;
pub mod held;
mod journal;
#[cfg(feature = "failpoints")]
pub mod kill;
mod layout;
mod log;
mod losses;
mod marks;
mod message;
mod messages;
mod plan;
mod recover;
mod snapshot;
mod stats;
mod sync;
mod table;
mod template;
mod transaction;
mod transition;
mod uncounted;
mod views;
mod words;

pub use admission::Admission;
pub use delivery::Pending;
pub use event::{Event, History, Kind, Reason};
pub use layout::{
    CallbackRecord, EventRecord, GenerationRecord, Geometry, Head, MessageRecord, Reloads,
    WorkerRecord, LAYOUT_VERSION, MAGIC,
};
pub use log::{LogMark, LogProgress};
pub use losses::{Cause, News, Peer, Plan, Witness};
pub use message::Message;
pub use recover::Recovery;
pub use snapshot::Snapshot;
pub use stats::CallbackStats;
pub use table::{Counts, Reservation, Roster};
pub use template::{Field, Template, UnknownField};
pub use transaction::{Did, Host, Mode, Point, Ran, Report, Transaction};
pub use transition::{Full, Now, Recorded, Step, Transition};
pub use uncounted::Uncounted;
pub use views::{GenerationView, WorkerView};
