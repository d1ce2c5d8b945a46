//! Telling events: the lock, the driver of the roster's state machine, and this process's place in the
//! roster. It uses `config`, whose callbacks it runs, and what is below that.

mod dispatcher;
mod hold;
mod membership;
pub mod oom;
mod parked;
pub mod registration;
pub mod uncounted;
mod wait;

pub use hold::Hold;
pub use membership::{member, set_member, Member};
pub use parked::{Parked, Resumed};
pub use registration::register;
pub use wait::{Blocked, Occasion};
