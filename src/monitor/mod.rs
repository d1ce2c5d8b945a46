//! What runs in the event loop of a serving worker: its heartbeat, the look at its peers, the order to quit,
//! and what is left to do of events told from there. Nothing here ever waits. It uses `delivery` to take the
//! lock, and what is below that.

mod busy;
pub mod drain;
mod heartbeat;
mod holders;
pub mod order;
mod peers;
mod resume;
mod scan;
mod schedule;
mod witness;

pub use heartbeat::{end, reap_later, start, stop, turn_soon};
pub use resume::take_over;
pub use witness::ThisProcess;
