//! The helper executable of ngx-worker-manager: one process that runs one program for nginx, writes
//! what it prints to nginx's error logs, and kills it when its time is over.
//!
//! nginx's process starts it by `vfork()` and `execve()`, so that neither costs nor holds any of
//! nginx's memory. What it is to do is in its arguments, see [`job`]; it reports on a pipe, see
//! [`status`]. The module uses this crate for both, and for the places in the queue.

// A panic in a hook would end a process of nginx's.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::unreachable,
    clippy::todo,
    clippy::unimplemented
)]
// An index out of bounds and an overflow panic, too.
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

pub mod job;
mod log;
mod output;
mod program;
pub mod queue;
pub mod status;
mod supervisor;
mod sys;

pub use supervisor::{main, TURNED_AWAY};
