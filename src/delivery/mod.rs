//! Telling events: the lock, the driver of the roster's state machine, and this process's place in the
//! roster. It uses `config`, whose callbacks it runs, and what is below that.

mod alarm;
mod dispatcher;
mod guard;
mod membership;
pub mod oom;
pub mod registration;
mod suspended;
pub mod uncounted;
mod wait;

pub use guard::LockGuard;
pub use membership::{member, set_member, Member};
pub use registration::register;
pub use suspended::{Resumed, Suspended};
pub use wait::{Blocked, Occasion};
