//! `exec PROGRAM ARG…`: what the program gets to see. How it is run is in `program`.

use std::ffi::CString;
use std::time::Duration;

use roster::{Event, Field, Roster, Template};

use super::program::{Program, Running};
use crate::conf::Conf;
use crate::log::Log;

/// A program to run.
pub struct Exec {
    /// The program, an absolute path.
    pub path: CString,
    /// Its arguments, without its name.
    pub arguments: Vec<Template>,
}

impl Exec {
    /// Starts it.
    pub fn run(&self, event: &Event, conf: &Conf, roster: Roster<'_>, log: Log) -> Option<Running> {
        let label = format!("worker_manager: {} {}", event.kind.name(), event.id());

        let mut argv = vec![self.path.clone()];
        // No field's text has a zero byte, nor has the template's: checked when it was read.
        argv.extend(
            self.arguments
                .iter()
                .map(|argument| CString::new(argument.fill(event).to_string()).unwrap_or_default()),
        );
        let mut envp = conf.environment.borrow().clone();
        envp.extend(Field::ALL.into_iter().filter_map(|field| variable(field, event)));

        let program = Program {
            path: &self.path,
            argv: &argv,
            envp: &envp,
            timeout: Duration::from_millis(conf.exec_timeout() as u64),
            label: &label,
            ticket: (!event.kind.is_awaited()).then(|| roster.next_program()),
            roster,
            kind: event.kind,
        };
        match program.start(log) {
            Ok(running) => Some(running),
            Err(errno) => {
                let path = self.path.to_string_lossy();
                log!(log, Error, errno = errno, "{label}: could not start \"{path}\"");
                roster.callback_failed(event.kind);
                None
            }
        }
    }
}

/// `WORKER_MANAGER_FIELD=value`; none if the event has no such value.
fn variable(field: Field, event: &Event) -> Option<CString> {
    let mut text = format!("WORKER_MANAGER_{}=", field.name().to_ascii_uppercase());
    match field.write(event, &mut text) {
        Ok(true) => CString::new(text).ok(),
        _ => None,
    }
}
