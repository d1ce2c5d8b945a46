//! Callbacks: what runs for an event. Each kind is in its file.

use roster::{Event, Roster};

use super::call::Call;
use super::context::ActionContext;
use super::exec::Exec;
use super::log_line::LogLine;
use super::lua::Handler;
use super::program::Running;
use crate::nginx::log::Log;

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

    /// Runs it. A program is only started; what is returned is to be waited for, or not. An
    /// error is logged and concerns no other callback.
    pub fn run(
        &self,
        event: &Event,
        context: ActionContext<'_>,
        roster: Roster<'_>,
        log: Log,
    ) -> Option<Running> {
        match self {
            Callback::Log(line) => line.run(event, roster, log),
            Callback::Call(call) => call.run(event, roster, log),
            Callback::Lua(handler) => handler.run(event, context.cycle, context.vms, roster, log),
            Callback::Exec(exec) => return exec.run(event, context, roster, log),
        }
        None
    }
}
