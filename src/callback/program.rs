//! Running a program from inside nginx.
//!
//! A program is run by a supervisor, a process forked for it alone. The supervisor is made with no
//! exit signal, so nginx's SIGCHLD handler, which reaps whatever `waitpid(-1)` finds, neither hears
//! of it nor can take its status: without `__WALL` such children are not waited for. The program
//! itself is the supervisor's child and never nginx's.

use core::ffi::{c_char, CStr};
use core::ptr;
use core::time::Duration;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::log::Log;

mod supervisor;

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
    /// Whether this process waits for it. If so, it does not outlive this process.
    pub awaited: bool,
}

/// A program that was started.
pub struct Running {
    supervisor: libc::pid_t,
    /// Closes when the supervisor has ended, however it ends.
    alive: OwnedFd,
    /// Closes when this process has ended: the supervisor of an awaited program watches it.
    _control: Option<OwnedFd>,
    log: Log,
    ended: bool,
}

impl Program<'_> {
    /// Starts it. What it prints, and how it ends, the supervisor writes to `log`. The error is an
    /// errno.
    pub fn start(&self, log: Log) -> Result<Running, i32> {
        let pointers = |strings: &[CString]| -> Vec<*const c_char> {
            strings.iter().map(|s| s.as_ptr()).chain([ptr::null()]).collect()
        };
        let argv = pointers(self.argv);
        let envp = pointers(self.envp);
        let (alive, alive_end) = pipe()?;
        let (control_end, control) = pipe()?;
        let job = supervisor::Job {
            path: self.path,
            name: base_name(self.path),
            argv: &argv,
            envp: &envp,
            timeout: self.timeout,
            label: self.label,
            parent: self.awaited.then(|| control_end.as_raw_fd()),
            alive: alive_end.as_raw_fd(),
            log,
        };
        match fork_quietly()? {
            0 => supervisor::run(&job),
            pid => Ok(Running {
                supervisor: pid,
                alive,
                _control: self.awaited.then_some(control),
                log,
                ended: false,
            }),
        }
    }
}

impl Running {
    /// Waits until it has ended. Calls `beat` meanwhile, about ten times a second.
    pub fn wait(mut self, beat: &mut dyn FnMut()) {
        let mut alive =
            libc::pollfd { fd: self.alive.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        loop {
            // SAFETY: one valid pollfd. A signal ends the call early, which does no harm.
            if unsafe { libc::poll(&mut alive, 1, 100) } > 0 {
                break;
            }
            beat();
        }
        self.reap(0);
    }

    /// Whether it has ended. Does not wait.
    pub fn poll(&mut self) -> bool {
        self.ended || self.reap(libc::WNOHANG)
    }

    fn reap(&mut self, flags: i32) -> bool {
        let mut status = 0;
        let reaped = loop {
            // SAFETY: the status is a valid place; the process is this one's child.
            let pid = unsafe { libc::waitpid(self.supervisor, &mut status, flags | libc::__WALL) };
            if pid != -1 || io::Error::last_os_error().raw_os_error() != Some(libc::EINTR) {
                break pid;
            }
        };
        if reaped == 0 {
            return false;
        }
        if reaped == self.supervisor && libc::WIFSIGNALED(status) {
            log!(
                self.log,
                Warn,
                "worker_manager: the supervisor of a program exited on signal {}",
                libc::WTERMSIG(status)
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

/// `fork` without exit signal, and without what libc does around it: nginx may have threads, so
/// the child must neither allocate nor take any lock of libc.
fn fork_quietly() -> Result<libc::pid_t, i32> {
    // SAFETY: all zeros mean a new process with a copy of the memory, going on on the same stack,
    // on every architecture whatever the order of the arguments.
    let pid = unsafe { libc::syscall(libc::SYS_clone, 0, 0, 0, 0, 0) };
    if pid == -1 {
        Err(errno())
    } else {
        Ok(pid as libc::pid_t)
    }
}

fn errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}
