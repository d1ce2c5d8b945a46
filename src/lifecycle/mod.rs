//! The story: what happens when a node starts, reloads, gains and loses workers, and stops. Each moment that
//! nginx calls the module at is a function here. It uses `monitor`, which serves between a start and an end,
//! and what is below that.

mod end;
mod environment;
pub mod former;
mod load;
pub mod marks;
mod start;

pub use end::{node_exited, worker_exited};
pub use load::{load_begins, load_failed, loaded};
pub use start::{tell_start_to, worker_started};
