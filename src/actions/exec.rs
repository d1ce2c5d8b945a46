//! `exec PROGRAM ARG…` and `exec_nowait PROGRAM ARG…`: what the program gets to see. How it is run is in
//! `program`.

use std::ffi::{CStr, CString};
use std::io;

use exec::job::User;
use ngx::ffi::ngx_cycle_t;
use roster::{Event, Field, Roster, Template};
use thiserror::Error;

use super::context::ActionContext;
use super::program::{Program, Running};
use crate::nginx::log::Log;
use crate::nginx::process;

/// A program to run.
pub struct Exec {
    /// The program, an absolute path.
    pub path: CString,
    /// Its arguments, without its name.
    pub arguments: Vec<Template>,
    /// Whether it is awaited where events of its kind are.
    pub awaited: bool,
}

/// Why a program was not started.
#[derive(Debug, Error)]
enum ExecError {
    /// The configuration has no helper to start it.
    #[error("could not start \"{0}\"")]
    NoHelper(String),
    /// Its helper, which has this path, could not be started.
    #[error("could not start \"{0}\"")]
    Helper(String, #[source] io::Error),
}

impl ExecError {
    fn raw_os_error(&self) -> Option<i32> {
        match self {
            ExecError::NoHelper(_) => Some(libc::ENOENT),
            ExecError::Helper(_, error) => error.raw_os_error(),
        }
    }
}

impl Exec {
    /// Starts it.
    pub fn run(
        &self,
        event: &Event,
        context: ActionContext<'_>,
        roster: Roster<'_>,
        log: Log,
    ) -> Option<Running> {
        let label = format!("{} {}", event.kind.name(), event.id());
        match self.start(&label, event, context, roster, log) {
            Ok(running) => Some(running),
            Err(error) => {
                log!(log, Error, error = error, "{label}: {error}");
                roster.callback_failed(event.kind);
                None
            }
        }
    }

    fn start(
        &self,
        label: &str,
        event: &Event,
        context: ActionContext<'_>,
        roster: Roster<'_>,
        log: Log,
    ) -> Result<Running, ExecError> {
        let text = |path: &CStr| path.to_string_lossy().into_owned();
        let helper = context.helper.ok_or_else(|| ExecError::NoHelper(text(&self.path)))?;
        let error = roster.error_of(event);
        let error = error.as_deref();
        let mut argv = vec![self.path.clone()];
        // No field's text has a zero byte, nor has the template's: checked when it was read.
        argv.extend(self.arguments.iter().map(|argument| {
            CString::new(argument.fill(event, error).to_string()).unwrap_or_default()
        }));
        let mut envp = context.environment.try_borrow().map(|own| own.clone()).unwrap_or_default();
        envp.extend(Field::ALL.into_iter().filter_map(|field| variable(field, event, error)));

        let is_awaited = self.awaited && event.kind.is_awaited();
        let program = Program {
            helper,
            argv,
            envp,
            timeout: context.timeout,
            label: label.to_string(),
            user: user(event, context.cycle),
            ticket: (!is_awaited).then(|| roster.next_program()),
            kind: event.kind,
        };
        program.start(log).map_err(|error| ExecError::Helper(text(helper), error))
    }
}

/// Programs of workers' events run as the user of nginx's workers, whichever process dispatches them. None if that is
/// this process's, or can't be had from it.
fn user(event: &Event, cycle: *const ngx_cycle_t) -> Option<User> {
    if event.kind.is_about_master() {
        return None;
    }
    // SAFETY: the cycle of a configuration that events are dispatched by is live.
    let (uid, gid, name) = unsafe { process::worker_user(cycle) }?;
    Some(User { uid, gid, name })
}

/// `WORKER_MANAGER_FIELD=value`; none if the event has no such value.
fn variable(field: Field, event: &Event, error: Option<&str>) -> Option<CString> {
    let mut text = format!("WORKER_MANAGER_{}=", field.name().to_ascii_uppercase());
    match field.write(event, error, &mut text) {
        Ok(true) => CString::new(text).ok(),
        _ => None,
    }
}
