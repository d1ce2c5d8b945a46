//! Running a program from inside nginx.
//!
//! Each is started and watched by the helper executable of `crates/exec`, a process for it alone that is
//! no child of nginx's and has none of its memory. It writes what the program prints to nginx's logs
//! itself, and how it ended to a pipe.

use core::ffi::CStr;
use core::mem;
use core::time::Duration;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use exec::job::{self, Job, Ticket, User};
use exec::status::{FAILED, PROTOCOL, SUCCEEDED};
use exec::TURNED_AWAY;
use ngx::ffi::{ngx_pid, ngx_use_stderr};
use roster::Kind;

use crate::nginx::clock;
use crate::nginx::log::{Log, PREFIX};
use crate::nginx::process;

mod fd;
pub mod helper;
mod logs;
mod node;
mod raw;
mod spawn;

use fd::{errno, pipe};
pub use node::prepare;
use spawn::{Command, Launch};

/// How much longer than the program's time its helper may take before it counts as stuck:
/// stopped by a signal, or unable to write to the log.
const OVERDUE_MS: u64 = 5000;

/// How long a killed helper may take to vanish.
const GRACE_MS: u64 = 1000;

/// A program to run.
pub struct Program<'a> {
    /// The helper executable.
    pub helper: &'a CStr,
    /// The program, an absolute path, and its arguments.
    pub argv: Vec<CString>,
    /// Its whole environment.
    pub envp: Vec<CString>,
    /// How long it may run.
    pub timeout: Duration,
    /// What begins each line in the log, after the prefix of the module.
    pub label: String,
    /// The user that it runs as, if not that of this process.
    pub user: Option<User>,
    /// None if this process waits for it; then it does not outlive this process. Otherwise its
    /// number among those that no process waits for, of which only so many run at a time and so many wait.
    pub ticket: Option<u32>,
    /// What kind of event it is run for.
    pub kind: Kind,
}

/// A program that was started, or turned away and so has ended already.
pub struct Running {
    /// The process that started it. One that is forked from it later has a copy that is not its own.
    owner: libc::pid_t,
    /// 0 if it is not known.
    helper: libc::pid_t,
    /// The helper's start, while that runs beside this process.
    launch: Option<Launch>,
    /// What the helper reports. Closes when the helper has ended, however it ends.
    status: OwnedFd,
    /// Closes when this process has ended: the helper of an awaited program watches it.
    control: Option<OwnedFd>,
    /// When the helper must have ended, by the monotonic clock.
    overdue: u64,
    killed: bool,
    label: String,
    /// What kind of event it is run for.
    pub kind: Kind,
    /// Whether the helper has reported its protocol.
    greeted: bool,
    /// Whether it succeeded, once it has ended.
    outcome: Option<bool>,
}

impl Program<'_> {
    /// Starts it. What it prints, and how it ends, the helper writes to `log`. One of too many that
    /// no process waits for is turned away instead.
    pub fn start(mut self, log: Log) -> io::Result<Running> {
        let (status, status_end) = pipe()?;
        let (control_end, control) = pipe()?;
        // SAFETY: the descriptor is open, and the other end has flags of its own.
        unsafe { libc::fcntl(status.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
        let awaited = self.ticket.is_none();
        let ticket = self.ticket.map(node::ticket);
        let (logs, _sockets) = logs::of(log);
        let mut running = Running::new(&self, status, awaited.then_some(control));
        let (helper, envp) = (self.helper.to_owned(), mem::take(&mut self.envp));
        let job = self.into_job(&status_end, &control_end, logs, ticket.flatten());
        if ticket == Some(None) {
            // The log has the first only, until one is started again.
            if node::turn_away() == 0 {
                log!(log, Warn, "{}: {} {TURNED_AWAY}", running.label, job.name());
            }
            running.outcome = Some(false);
            return Ok(running);
        }
        let title = format!("nginx: worker_manager exec {}", job.name());
        running.launch(Command {
            path: helper,
            argv: job.arguments(&title),
            envp,
            kept: job.descriptors(),
            note: job.ticket.map(node::note),
        })?;
        if let Some(ticket) = job.ticket {
            let count = node::started(ticket);
            if count > 0 {
                let programs = if count == 1 { "program" } else { "programs" };
                log!(log, Warn, "{count} {programs} not started, since too many waited");
            }
        }
        Ok(running)
    }

    /// What its helper is to do, to which these ends of two pipes belong.
    fn into_job(
        self,
        status: &OwnedFd,
        control: &OwnedFd,
        logs: Vec<job::Log>,
        ticket: Option<Ticket>,
    ) -> Job {
        let awaited = self.ticket.is_none();
        // SAFETY: plain globals. nginx sets the latter to 0 before it serves.
        let (pid, use_stderr) = unsafe { (ngx_pid, ngx_use_stderr != 0) };
        Job {
            status: status.as_raw_fd(),
            control: awaited.then(|| control.as_raw_fd()),
            queue: node::queue(),
            node: node::ends().filter(|_| !awaited),
            ticket,
            timeout: milliseconds(self.timeout),
            pid,
            console: use_stderr && awaited,
            logs,
            user: self.user,
            label: format!("{PREFIX}{}", self.label),
            argv: self.argv,
        }
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Running {
    /// What is known of a program before it is started, with this process's ends of its pipes.
    fn new(program: &Program<'_>, status: OwnedFd, control: Option<OwnedFd>) -> Running {
        let overdue = clock::monotonic().saturating_add(milliseconds(program.timeout));
        Running {
            owner: process::pid(),
            helper: 0,
            launch: None,
            status,
            control,
            overdue: overdue.saturating_add(OVERDUE_MS),
            killed: false,
            label: program.label.clone(),
            kind: program.kind,
            greeted: false,
            outcome: None,
        }
    }

    /// Starts its helper.
    fn launch(&mut self, command: Command) -> io::Result<()> {
        // A worker may serve: it does not stand still for a program that no process waits for. A master may
        // fork, or unload this module, so there nothing runs beside it.
        let beside = !self.is_awaited() && process::is_worker();
        let mut launch = command.launch(beside)?;
        if beside {
            self.launch = Some(launch);
        } else {
            self.helper = launch.wait()?;
        }
        Ok(())
    }

    /// Whether this process waits for it.
    pub fn is_awaited(&self) -> bool {
        self.control.is_some()
    }

    /// Whether this process has it from the one that it was forked from.
    pub fn is_inherited(&self) -> bool {
        self.owner != process::pid()
    }

    /// Waits until it has ended. Calls `beat` meanwhile, about ten times a second. Returns whether it
    /// succeeded.
    pub fn wait(mut self, beat: &mut dyn FnMut()) -> bool {
        loop {
            if let Some(outcome) = self.poll() {
                return outcome;
            }
            let mut status =
                libc::pollfd { fd: self.status.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: one valid pollfd. A signal ends the call early, which does no harm.
            if unsafe { libc::poll(&mut status, 1, 100) } == 0 {
                beat();
            }
        }
    }

    /// How long it may run from now on, milliseconds. Its helper sees to that, whatever this
    /// process does.
    pub fn time_left(&self) -> u64 {
        self.overdue.saturating_sub(OVERDUE_MS).saturating_sub(clock::monotonic())
    }

    /// Waits until nothing of it runs in this process's memory any more.
    pub fn settle(&mut self) {
        let Some(mut launch) = self.launch.take() else {
            return;
        };
        match launch.wait() {
            Ok(pid) => self.helper = pid,
            Err(error) => {
                let (label, path) = (&self.label, launch.path().to_string_lossy());
                log!(Log::current(), Error, error = error, "{label}: could not start \"{path}\"");
                self.outcome = Some(false);
            }
        }
    }

    /// Whether it succeeded, if it has ended. Does not wait.
    pub fn poll(&mut self) -> Option<bool> {
        if self.launch.as_mut().is_some_and(Launch::has_ended) {
            self.settle();
        }
        while self.outcome.is_none() {
            let mut word = [0u8];
            // SAFETY: room for one byte.
            match unsafe { libc::read(self.status.as_raw_fd(), word.as_mut_ptr().cast(), 1) } {
                1 => self.take(word[0]),
                // If the helper could not be started: its end of the pipe is closed a moment earlier.
                0 if self.launch.is_some() => self.settle(),
                0 => {
                    if !self.killed {
                        // Not the log of the start, which a reload may have freed.
                        let label = &self.label;
                        log!(Log::current(), Warn, "{label}: the helper of its program was killed");
                    }
                    self.outcome = Some(false);
                }
                _ => {
                    if errno() != libc::EINTR {
                        self.give_up_if_overdue();
                        break;
                    }
                }
            }
        }
        self.outcome
    }

    fn take(&mut self, word: u8) {
        match word {
            PROTOCOL if !self.greeted => self.greeted = true,
            SUCCEEDED if self.greeted => self.outcome = Some(true),
            FAILED if self.greeted => self.outcome = Some(false),
            _ => {
                let label = &self.label;
                log!(
                    Log::current(),
                    Error,
                    "{label}: its program was not started, the helper \"{}\" was replaced by one of another \
                     version while nginx runs",
                    helper::NAME
                );
                self.outcome = Some(false);
            }
        }
    }

    /// Ends a helper that is stuck; waits no longer if not even that helps. Only if this
    /// process awaits the program: any other would go on without a process that ends it.
    fn give_up_if_overdue(&mut self) {
        let now = clock::monotonic();
        if self.control.is_none() || now < self.overdue {
            return;
        }
        let label = &self.label;
        if self.killed || self.helper == 0 {
            log!(Log::current(), Alert, "{label}: the helper of its program can't be killed");
            self.outcome = Some(false);
            return;
        }
        log!(Log::current(), Alert, "{label}: the helper of its program is stuck, killing it");
        // SAFETY: it has its end of the pipe open, so it lives and its number is not reused. The program
        // goes with it.
        unsafe { libc::kill(self.helper, libc::SIGKILL) };
        self.killed = true;
        self.overdue = now.saturating_add(GRACE_MS);
    }
}
