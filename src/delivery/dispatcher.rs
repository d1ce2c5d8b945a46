//! This process as the roster's state machine sees it: what runs the hooks of its configuration.

use std::fmt::Display;

use roster::{Event, Host, Kind, Now, Pending, Point, Ran, Reason, Report, Step};

use super::membership::beat;
use super::oom;
use crate::actions::{detached, Running};
use crate::config::Conf;
use crate::nginx::clock;
use crate::nginx::failpoint::failpoint;
use crate::nginx::log::Log;
use crate::nginx::process;
use crate::nginx::zone::Zone;

/// The holder of the lock, with the configuration whose hooks it runs.
pub struct Dispatcher<'a> {
    pub zone: Zone<'a>,
    pub conf: &'a Conf,
    pub log: Log<'a>,
    /// The program that is awaited.
    pub program: &'a mut Option<Running>,
}

impl Dispatcher<'_> {
    fn report_interrupted(&self, pending: &Pending) {
        let Pending { event, begun, generation } = pending;
        let label = self.zone.label().get();
        let label = label.as_ref().map_or(&"a callback" as &dyn Display, |label| label);
        log!(
            self.log,
            Warn,
            "{label} did not finish, its process died: callback {begun} of \
             generation {generation} was interrupted at {} {}",
            event.kind.name(),
            event.id()
        );
        self.zone.label().set("");
    }
}

impl Host for Dispatcher<'_> {
    fn now(&self) -> Now {
        clock::now()
    }

    fn microseconds(&self) -> u64 {
        clock::microseconds()
    }

    fn pid(&self) -> i32 {
        process::pid()
    }

    fn generation(&self) -> u64 {
        self.conf.generation.get()
    }

    fn next_hook(&self, kind: Kind, from: u32) -> Option<u32> {
        let hooks = self.conf.callbacks.iter().enumerate().skip(from as usize);
        let mut matching = hooks.filter(|(_, on)| on.matches(kind));
        matching.next().map(|(index, _)| index as u32)
    }

    fn run_hook(&mut self, event: &Event, index: u32) -> Ran {
        let Some(on) = self.conf.callbacks.iter().nth(index as usize) else {
            return Ran::Finished;
        };
        let roster = self.zone.roster();
        let label = self.zone.label();
        label.set(&on.label);
        failpoint(event.kind, "begun");
        match on.callback.run(event, self.conf.action_context(), roster, self.log) {
            Some(running) if running.is_awaited() => {
                *self.program = Some(running);
                return Ran::Awaited;
            }
            Some(running) => detached::adopt(running, self.zone),
            None => {
                label.set("");
                return Ran::Finished;
            }
        }
        label.set("");
        Ran::Started
    }

    fn poll_program(&mut self, blocking: bool) -> Option<bool> {
        let succeeded = match self.program.take() {
            None => true,
            Some(running) if blocking => running.wait(&mut beat),
            Some(mut running) => match running.poll() {
                Some(succeeded) => succeeded,
                None => {
                    *self.program = Some(running);
                    return None;
                }
            },
        };
        self.zone.label().set("");
        Some(succeeded)
    }

    fn write_event(&mut self, event: &Event, took: u64) {
        if let Some(log) = &self.conf.event_log {
            log.write(self.zone.roster(), event, took, self.log);
        }
    }

    fn judge(&mut self, reason: Reason) -> Reason {
        oom::judge(self.zone.roster(), reason)
    }

    fn report(&mut self, report: Report<'_>) {
        match report {
            Report::NotDispatched(event) => log!(
                self.log,
                Notice,
                "{} {} was not told yet, telling it now",
                event.kind.name(),
                event.id()
            ),
            Report::Interrupted(pending) => self.report_interrupted(pending),
            Report::Unreadable => {
                log!(self.log, Alert, "an event in the zone is unreadable");
            }
            Report::Refused(transition, full) => {
                log!(self.log, Alert, "{transition:?} can't be recorded: {full}");
            }
        }
    }

    fn failpoint(&mut self, kind: Kind, point: Point) {
        let name = match point {
            Point::Recording(Step::Planned) => "planned",
            Point::Recording(Step::Journaled) => "journaled",
            Point::Recording(Step::Applying) => "applying",
            Point::Recording(Step::Recorded) => "recorded",
            Point::Called => "called",
            Point::Delivered => "delivered",
        };
        failpoint(kind, name);
    }
}
