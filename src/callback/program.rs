//! Running a program from inside nginx.
//!
//! A program is run by a supervisor, a process forked for it alone. The supervisor is made with no
//! exit signal, so nginx's SIGCHLD handler, which reaps whatever `waitpid(-1)` finds, neither hears
//! of it nor can take its status: without `__WALL` such children are not waited for. The program
//! itself is the supervisor's child and never nginx's.

use core::ffi::{c_char, c_int, c_long, CStr};
use core::mem::zeroed;
use core::ptr;
use core::time::Duration;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use roster::{Kind, Roster};

use crate::clock;
use crate::log::Log;

mod slots;
mod supervisor;

pub use slots::prepare;

/// How much longer than the program's time its supervisor may take before it counts as stuck:
/// stopped by somebody, or unable to write to the log.
const OVERDUE_MS: u64 = 5000;

/// A program to run.
pub struct Program<'a> {
    /// Where it is, an absolute path.
    pub path: &'a CStr,
    /// Its arguments, its name first.
    pub argv: &'a [CString],
    /// Its whole environment.
    pub envp: &'a [CString],
    /// How long it may run.
    pub timeout: Duration,
    /// What begins each line in the log.
    pub label: &'a str,
    /// None if this process waits for it; then it does not outlive this process. Otherwise its
    /// number among those that nobody waits for, of which only so many run at a time and so many wait.
    pub ticket: Option<u32>,
    /// Where a failure is counted, and as one of a callback for which kind of event.
    pub roster: Roster<'a>,
    /// See `roster`.
    pub kind: Kind,
}

/// A program that was started, or turned away and so has ended already. Until `wait` returns or `poll`
/// says that it ended, its supervisor stays as a zombie, since nginx itself never reaps it.
pub struct Running {
    supervisor: libc::pid_t,
    /// Closes when the supervisor has ended, however it ends.
    alive: OwnedFd,
    /// Closes when this process has ended: the supervisor of an awaited program watches it.
    control: Option<OwnedFd>,
    /// When the supervisor must have ended, by the monotonic clock.
    overdue: u64,
    killed: bool,
    label: String,
    ended: bool,
}

impl Program<'_> {
    /// Starts it. What it prints, and how it ends, the supervisor writes to `log`. One of too many that
    /// nobody waits for is turned away instead. The error is an errno.
    pub fn start(&self, log: Log) -> Result<Running, i32> {
        let pointers = |strings: &[CString]| -> Vec<*const c_char> {
            strings.iter().map(|s| s.as_ptr()).chain([ptr::null()]).collect()
        };
        let argv = pointers(self.argv);
        let envp = pointers(self.envp);
        let name = base_name(self.path);
        // A path that is a C string has no zero byte.
        let title = CString::new(format!("worker_manager exec {name}")).unwrap_or_default();
        let label = String::from(self.label);
        let (alive, alive_end) = pipe()?;
        let (control_end, control) = pipe()?;
        let mut running = Running {
            supervisor: 0,
            alive,
            control: self.ticket.is_none().then_some(control),
            overdue: clock::monotonic()
                .saturating_add(self.timeout.as_millis() as u64)
                .saturating_add(OVERDUE_MS),
            killed: false,
            label,
            ended: false,
        };
        let place = self.ticket.map(slots::place);
        if place == Some(None) {
            self.turn_away(name, log);
            running.ended = true;
            return Ok(running);
        }
        let job = supervisor::Job {
            path: self.path,
            name,
            title: &title,
            argv: &argv,
            envp: &envp,
            timeout: self.timeout,
            label: self.label,
            parent: self.ticket.is_none().then(|| control_end.as_raw_fd()),
            place: place.flatten(),
            alive: alive_end.as_raw_fd(),
            log,
            roster: self.roster,
            kind: self.kind,
        };
        // The supervisor is born with all signals blocked: nginx's handlers never run in it, and
        // none that is sent to nginx's process group ends it before it has left that group.
        let mask = block_signals();
        let forked = fork_quietly(0);
        if forked == Ok(0) {
            supervisor::run(&job);
        }
        // SAFETY: the mask is the one that this thread had.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &mask, ptr::null_mut()) };
        running.supervisor = forked?;
        if place.is_some() {
            self.tell_turned_away(log);
        }
        Ok(running)
    }

    /// Does without it. The log tells of the first only, until one is started again.
    fn turn_away(&self, name: &str, log: Log) {
        self.roster.callback_failed(self.kind);
        let before = slots::turned_away();
        if before == 0 {
            log!(log, Warn, "{}: {name} {}", self.label, slots::TURNED_AWAY);
        }
        slots::set_turned_away(before.saturating_add(1));
    }

    /// Says how many were turned away before this one, which was not.
    fn tell_turned_away(&self, log: Log) {
        let count = slots::turned_away();
        if count > 0 {
            let programs = if count == 1 { "program" } else { "programs" };
            log!(
                log,
                Warn,
                "worker_manager: {count} {programs} not started, since too many waited"
            );
            slots::set_turned_away(0);
        }
    }
}

impl Running {
    /// Waits until it has ended. Calls `beat` meanwhile, about ten times a second. Returns whether its
    /// supervisor lived to tell how it ended.
    pub fn wait(mut self, beat: &mut dyn FnMut()) -> bool {
        let mut alive =
            libc::pollfd { fd: self.alive.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        while !self.ended {
            // SAFETY: one valid pollfd.
            let closed = match unsafe { libc::poll(&mut alive, 1, 100) } {
                0 => false,
                // A signal ends the call early, which does no harm.
                -1 => errno() != libc::EINTR,
                _ => true,
            };
            if closed {
                self.reap(0);
            } else {
                beat();
                self.give_up_if_overdue();
            }
        }
        !self.killed
    }

    /// How long it may run from now on, milliseconds. Its supervisor sees to that, whatever this
    /// process does.
    pub fn time_left(&self) -> u64 {
        self.overdue.saturating_sub(OVERDUE_MS).saturating_sub(clock::monotonic())
    }

    /// Whether it has ended. Does not wait.
    pub fn poll(&mut self) -> bool {
        if !self.ended && !self.reap(libc::WNOHANG) {
            self.give_up_if_overdue();
        }
        self.ended
    }

    /// Ends a supervisor that is stuck; waits no longer if not even that helps. Only if somebody
    /// awaits the program: any other would go on with nobody to end it.
    fn give_up_if_overdue(&mut self) {
        let now = clock::monotonic();
        if self.control.is_none() || now < self.overdue {
            return;
        }
        let label = &self.label;
        if self.killed {
            log!(Log::current(), Alert, "{label}: the supervisor of its program can't be killed");
            self.ended = true;
            return;
        }
        log!(Log::current(), Alert, "{label}: the supervisor of its program is stuck, killing it");
        // SAFETY: it was not reaped yet, so its number is not reused. The program goes with it.
        unsafe { libc::kill(self.supervisor, libc::SIGKILL) };
        self.killed = true;
        self.overdue = now + supervisor::GRACE_MS;
    }

    fn reap(&mut self, flags: c_int) -> bool {
        let mut status = 0;
        let reaped = loop {
            // SAFETY: the status is a valid place; the process is this one's child.
            let pid = unsafe { libc::waitpid(self.supervisor, &mut status, flags | libc::__WALL) };
            if pid != -1 || errno() != libc::EINTR {
                break pid;
            }
        };
        if reaped == 0 {
            return false;
        }
        if reaped == self.supervisor && libc::WIFSIGNALED(status) && !self.killed {
            let (label, signal) = (&self.label, libc::WTERMSIG(status));
            // Not that of the start, which a reload may have freed.
            log!(
                Log::current(),
                Warn,
                "{label}: the supervisor of its program exited on signal {signal}"
            );
        }
        self.ended = true;
        true
    }
}

fn base_name(path: &CStr) -> &str {
    let path = path.to_str().unwrap_or("program");
    path.rsplit('/').next().unwrap_or(path)
}

/// A pipe that no other program inherits, clear of the standard descriptors, which nginx may have
/// closed and the program is given anew.
fn pipe() -> Result<(OwnedFd, OwnedFd), i32> {
    let mut fds = [-1; 2];
    // SAFETY: there is room for two descriptors.
    if unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) } != 0 {
        return Err(errno());
    }
    // SAFETY: both were just opened and belong to nobody else.
    let (read, write) = unsafe { (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])) };
    Ok((above_standard(read)?, above_standard(write)?))
}

fn above_standard(fd: OwnedFd) -> Result<OwnedFd, i32> {
    if fd.as_raw_fd() > 2 {
        return Ok(fd);
    }
    // SAFETY: the descriptor is open.
    let higher = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 3) };
    if higher == -1 {
        return Err(errno());
    }
    // SAFETY: it was just opened and belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(higher) })
}

/// Blocks all signals in this thread; what was blocked before.
fn block_signals() -> libc::sigset_t {
    // SAFETY: sigset_t is plain data; both sets are valid, and the call can't fail with them.
    unsafe {
        let (mut all, mut old) = (zeroed(), zeroed());
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut old);
        old
    }
}

/// `fork` without what libc does around it: nginx may have threads, so the child must neither
/// allocate nor take any lock of libc. `exit_signal` tells the parent of the child's end; 0, none.
fn fork_quietly(exit_signal: c_int) -> Result<libc::pid_t, i32> {
    let (flags, stack) = (c_long::from(exit_signal), 0 as c_long);
    let (first, second) = if cfg!(target_arch = "s390x") { (stack, flags) } else { (flags, stack) };
    let none = 0 as c_long;
    // SAFETY: no flags and no stack mean a new process with a copy of the memory, going on on the
    // same stack. The other arguments belong to flags that are not set.
    let pid = unsafe { libc::syscall(libc::SYS_clone, first, second, none, none, none) };
    if pid == -1 {
        Err(errno())
    } else {
        Ok(pid as libc::pid_t)
    }
}

fn errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}
