//! Callbacks: what runs for an event. Each kind is in its file.

use roster::{Event, Roster};

use crate::conf::Conf;
use crate::nginx::log::Log;

mod call;
mod exec;
mod log_line;
mod lua;
mod program;

pub use call::{with_event_for_c, Call, CallbackPt};
pub use exec::Exec;
pub use log_line::LogLine;
pub use lua::{current_event, Handler};
pub use program::{helper, prepare, Running};

/// One callback.
pub enum Callback {
    /// A line in the error log.
    Log(LogLine),
    /// A program.
    Exec(Exec),
    /// A C function.
    Call(Call),
    /// A handler in Lua.
    Lua(Handler),
}

impl Callback {
    /// Whether it runs a program.
    pub fn is_program(&self) -> bool {
        matches!(self, Callback::Exec(_))
    }

    /// Whether it runs a program that is awaited where events of its kind are.
    pub fn is_awaited_program(&self) -> bool {
        matches!(self, Callback::Exec(exec) if exec.awaited)
    }

    /// Runs it. A program is only started; what is returned is to be waited for, or not. Whatever
    /// goes wrong is logged and concerns nobody else.
    pub fn run(&self, event: &Event, conf: &Conf, roster: Roster<'_>, log: Log) -> Option<Running> {
        match self {
            Callback::Log(line) => line.run(event, log),
            Callback::Call(call) => call.run(event, roster, log),
            Callback::Lua(handler) => handler.run(event, conf, roster, log),
            Callback::Exec(exec) => return exec.run(event, conf, roster, log),
        }
        None
    }
}
