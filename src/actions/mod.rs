//! What can be done about an event: a line in the error log, a program, a C function, a handler in Lua, a
//! line of the event log. Of the configuration they see an `ActionContext`. They use `nginx` alone; the folders
//! above register how a program that no process awaits wakes the event loop.

mod call;
mod callback;
mod context;
pub mod detached;
pub mod event_log;
mod exec;
mod log_line;
mod lua;
mod program;

pub use call::{with_event_for_c, Call, CallbackPt, LoadError};
pub use callback::Callback;
pub use context::ActionContext;
pub use exec::Exec;
pub use log_line::LogLine;
pub use lua::{current_event, Handler, Vms, VMS};
pub use program::{helper, prepare, Running};
