//! What `worker_manager_status` answers: a snapshot of the roster as JSON or metrics, events as lines,
//! and whether what somebody waits for has come. Pure Rust that knows neither nginx nor sockets.
//!
//! ```
//! # use roster::*;
//! # let head = Head::default();
//! # let generations: [GenerationRecord; 4] = Default::default();
//! # let workers: [WorkerRecord; 4] = Default::default();
//! # let events: [EventRecord; 16] = Default::default();
//! # let roster =
//! #     Roster { head: &head, generations: &generations, workers: &workers, events: &events, messages: &[] };
//! # roster.create(0, 77);
//! # let now = Now { wall: 1_700_000_000_000, monotonic: 5, since_boot: 6 };
//! # let load = Transition::MasterStart { pid: 100, workers: 2, began: 1, reload: false };
//! # roster.record(load, now, &mut |_| ()).expect("there is room");
//! # let geometry = Geometry { generations: 4, workers: 4, events: 16, messages: 0 };
//! use status::{json, losses::Recent, metrics, Facts};
//!
//! let snapshot = roster.snapshot(10).expect("nobody moves anything");
//! let facts = Facts {
//!     version: "0.1.0",
//!     nginx: "1.28.0".to_string(),
//!     now,
//!     master: 100,
//!     started: now.wall,
//!     loading_since: None,
//!     room: geometry,
//!     uncounted: 0,
//!     former_workers: 0,
//!     lost_lines: 0,
//!     holders: Vec::new(),
//! };
//! let recent = Recent::count(snapshot.events.iter().rev().map(|(event, _)| *event), now.wall);
//! let status = json::status(&snapshot, &facts, recent);
//! assert!(status.contains(r#""event":"master_start""#));
//!
//! let text = metrics::encode(snapshot, facts, metrics::Format::Text)?;
//! assert!(text.contains("nginx_worker_manager_generation 1.0\n"));
//! # Ok::<(), std::fmt::Error>(())
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

pub mod cursor;
pub mod health;
mod holders;
pub mod json;
pub mod losses;
pub mod metrics;
pub mod request;
pub mod wait;

use roster::held::Holders;
use roster::{Geometry, Now, Snapshot, WorkerView};

/// What is to be said besides the snapshot.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Version of the module.
    pub version: &'static str,
    /// Version of nginx.
    pub nginx: String,
    /// When the snapshot was taken.
    pub now: Now,
    /// The master process.
    pub master: i32,
    /// When the history began, wall clock, milliseconds.
    pub started: i64,
    /// Since when the master reads a configuration, wall clock, milliseconds; none while it does not.
    pub loading_since: Option<i64>,
    /// How much the zone holds.
    pub room: Geometry,
    /// Workers that serve without a place in the zone.
    pub uncounted: usize,
    /// Workers that drain in a zone that a reload has left.
    pub former_workers: usize,
    /// Lines of the event log that could not be written.
    pub lost_lines: u64,
    /// What holds workers that drain.
    pub holders: Vec<Holders>,
}

/// What a worker does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerState {
    /// It serves.
    Running,
    /// It was told to quit and serves what it has.
    Draining,
    /// It drains for longer than `draining_warn`.
    Stuck,
    /// It missed its heartbeat.
    Hung,
}

impl WorkerState {
    /// All of them, in the order in which they are listed.
    pub const ALL: [WorkerState; 4] =
        [WorkerState::Running, WorkerState::Draining, WorkerState::Stuck, WorkerState::Hung];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            WorkerState::Running => "running",
            WorkerState::Draining => "draining",
            WorkerState::Stuck => "stuck",
            WorkerState::Hung => "hung",
        }
    }

    /// That of a worker: what most needs to be known.
    pub fn of(w: &WorkerView) -> WorkerState {
        if w.hung {
            WorkerState::Hung
        } else if w.stuck {
            WorkerState::Stuck
        } else if w.draining_since.is_some() {
            WorkerState::Draining
        } else {
            WorkerState::Running
        }
    }
}

/// How old a generation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    /// The newest.
    Current,
    /// The one before it.
    Previous,
    /// Any before that.
    Older,
}

impl Age {
    /// All of them.
    pub const ALL: [Age; 3] = [Age::Current, Age::Previous, Age::Older];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Age::Current => "current",
            Age::Previous => "previous",
            Age::Older => "older",
        }
    }

    /// That of a generation.
    pub fn of(generation: u64, snapshot: &Snapshot) -> Age {
        match snapshot.generation.saturating_sub(generation) {
            0 => Age::Current,
            1 => Age::Previous,
            _ => Age::Older,
        }
    }
}

/// Milliseconds in seconds.
pub(crate) fn seconds(milliseconds: u64) -> f64 {
    milliseconds as f64 / 1000.0
}

/// A time on the wall clock, milliseconds, in seconds.
pub(crate) fn moment(milliseconds: i64) -> f64 {
    milliseconds as f64 / 1000.0
}

/// A moment of the monotonic clock, milliseconds, on the wall clock, in seconds.
pub(crate) fn wall(monotonic: u64, now: Now) -> f64 {
    let ago = now.monotonic.saturating_sub(monotonic) as i64;
    moment(now.wall.saturating_sub(ago))
}

/// How many workers of a generation are in a state.
pub(crate) fn count(snapshot: &Snapshot, state: WorkerState, of: impl Fn(u64) -> bool) -> usize {
    let workers = snapshot.workers.iter();
    workers.filter(|w| of(w.generation) && WorkerState::of(w) == state).count()
}

#[cfg(test)]
mod fixture;
