//! The program itself: its birth, its time, its output and its end.

use std::ffi::{c_char, c_int};
use std::io;
use std::mem::{size_of_val, zeroed};
use std::ptr;

use thiserror::Error;

use crate::job::Job;
use crate::log::{say, Level};
use crate::output::{Line, Output};
use crate::sys::{close_range, errno, monotonic, number, pipe, poll, pollfd};

// SAFETY: POSIX declares it so.
unsafe extern "C" {
    /// libc's: the environment of this process, which is that of the program.
    static environ: *const *const c_char;
}

/// How long a killed process may take to vanish, milliseconds.
const GRACE: u64 = 1000;

/// Why the helper can't start the program.
#[derive(Debug, Error)]
pub enum StartError {
    #[error("signalfd() failed")]
    Signals(#[source] io::Error),
    #[error("pipe() failed")]
    Pipe(#[source] io::Error),
    #[error("fork() failed")]
    Fork(#[source] io::Error),
}

impl StartError {
    /// The errno of the system call that failed.
    pub fn errno(&self) -> i32 {
        match self {
            StartError::Signals(error) | StartError::Pipe(error) | StartError::Fork(error) => {
                number(error)
            }
        }
    }
}

/// Runs the program until it ends, or its time is over at `deadline`. Whether it succeeded.
pub fn supervise(job: &Job, deadline: u64) -> Result<bool, StartError> {
    let signals = child_signals()?;
    let (output_read, output_write) = pipe().map_err(StartError::Pipe)?;
    let (error_read, error_write) = pipe().map_err(StartError::Pipe)?;
    let argv: Vec<*const c_char> =
        job.argv.iter().map(|word| word.as_ptr()).chain([ptr::null()]).collect();
    // SAFETY: this process has one thread, so the child may do everything.
    let pid = unsafe {
        let helper = libc::getpid();
        let pid = libc::fork();
        if pid == 0 {
            become_program(&argv, helper, output_write, error_write);
        }
        pid
    };
    if pid == -1 {
        return Err(StartError::Fork(io::Error::last_os_error()));
    }
    // SAFETY: the writing ends are the child's, the reading ones ours.
    unsafe {
        libc::setpgid(pid, pid);
        libc::close(output_write);
        libc::close(error_write);
        libc::fcntl(output_read, libc::F_SETFL, libc::O_NONBLOCK);
        libc::fcntl(error_read, libc::F_SETFL, libc::O_NONBLOCK);
    }
    Ok(watch(job, deadline, pid, signals, output_read, error_read))
}

/// A descriptor that becomes readable when something happened to a child.
fn child_signals() -> Result<c_int, StartError> {
    // SAFETY: the set is filled before it is used; the signal is blocked, as all are.
    unsafe {
        let mut set: libc::sigset_t = zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGCHLD);
        match libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) {
            -1 => Err(StartError::Signals(io::Error::last_os_error())),
            fd => Ok(fd),
        }
    }
}

/// Why a program did not begin: errno, and whether that was execve's.
type NotBegun = [c_int; 2];

/// In the child: gives the program what the contract says, and nothing else of nginx's.
fn become_program(argv: &[*const c_char], helper: libc::pid_t, output: c_int, error: c_int) -> ! {
    let fail = |execve: bool| -> ! {
        let why: NotBegun = [errno(), c_int::from(execve)];
        // SAFETY: as many bytes as there are.
        unsafe {
            libc::write(error, why.as_ptr().cast(), size_of_val(&why));
            libc::_exit(127)
        }
    };
    // SAFETY: plain system calls with valid arguments, and pointers that end with null.
    unsafe {
        libc::setpgid(0, 0);
        // Without the helper no process would end it at its time, or know of it.
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        if libc::getppid() != helper {
            libc::_exit(127);
        }
        let null = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR);
        if null == -1 {
            fail(false);
        }
        libc::dup2(null, 0);
        libc::dup2(output, 1);
        libc::dup2(output, 2);
        // All others; `error` closes itself when the program begins.
        if error > 3 {
            close_range(3, error.saturating_sub(1));
        }
        close_range(error.saturating_add(1), c_int::MAX);
        // nginx's daemon() sets 0, which no program expects.
        libc::umask(0o022);
        let mut none: libc::sigset_t = zeroed();
        libc::sigemptyset(&mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, ptr::null_mut());
        libc::execve(argv.first().copied().unwrap_or(ptr::null()), argv.as_ptr(), environ);
    }
    fail(true)
}

/// Sees the program to its end. Never waits without a limit, not even for execve, which may hang
/// on a file system that is gone. Returns whether it succeeded.
fn watch(
    job: &Job,
    mut deadline: u64,
    pid: libc::pid_t,
    signals: c_int,
    output: c_int,
    error: c_int,
) -> bool {
    let mut text = Output::new(job.label.len().saturating_add(job.name().len()));
    let mut killed = false;
    let mut fds = [pollfd(signals), pollfd(output), pollfd(job.control.unwrap_or(-1))];
    loop {
        poll(&mut fds, deadline.saturating_sub(monotonic()));
        if fds[1].revents != 0 {
            text.read(output, &mut |line| log_line(job, line));
            if text.ended {
                fds[1].fd = -1;
            }
        }
        let status = if fds[0].revents != 0 { ended(pid, signals) } else { None };
        if let Some(status) = status {
            // What it printed last; a daemon that it left may hold the pipe open for ever.
            text.read_all(output, &mut |line| log_line(job, line));
            if let Some([errno, execve]) = not_begun(error) {
                report_not_begun(job, errno, execve != 0);
                return false;
            }
            return !killed && report(job, status);
        }
        let (name, timeout) = (job.name(), job.timeout());
        let abandoned = fds[2].revents != 0;
        if !abandoned && monotonic() < deadline {
            continue;
        }
        if killed {
            say(job, Level::Alert, 0, format_args!("{name} can't be killed, leaving it"));
            return false;
        }
        kill(pid);
        killed = true;
        deadline = monotonic().saturating_add(GRACE);
        // The process that awaited it stays dead: that must not end poll again.
        fds[2] = pollfd(-1);
        if abandoned {
            say(job, Level::Warn, 0, format_args!("{name} killed, who awaited it has died"));
        } else {
            say(
                job,
                Level::Error,
                0,
                format_args!("{name} killed, exec_timeout {timeout:?} is over"),
            );
        }
    }
}

/// The program's status, if it has ended.
fn ended(pid: libc::pid_t, signals: c_int) -> Option<c_int> {
    let mut signal = [0u8; 128];
    let mut status = 0;
    // SAFETY: room for one signal, and there is never more than one; the status is a valid place.
    // A signal may also say that the program was stopped or goes on.
    let pid = unsafe {
        libc::read(signals, signal.as_mut_ptr().cast(), signal.len());
        libc::waitpid(pid, &mut status, libc::WNOHANG)
    };
    (pid != 0).then_some(status)
}

fn log_line(job: &Job, line: Line<'_>) {
    let name = job.name();
    match line {
        Line::Text(text) => say(job, Level::Notice, 0, format_args!("{name}: {text}")),
        Line::TooMuch => {
            say(job, Level::Warn, 0, format_args!("{name}: more output is dropped"));
        }
    }
}

/// Ends the program and all it started in its group.
fn kill(pid: libc::pid_t) {
    // SAFETY: the group is the program's own: it was not reaped yet, so its number is not reused.
    unsafe {
        libc::kill(pid.wrapping_neg(), libc::SIGKILL);
        libc::kill(pid, libc::SIGKILL);
    }
}

fn not_begun(error: c_int) -> Option<NotBegun> {
    let mut why: NotBegun = [0; 2];
    // SAFETY: there is room for what is asked for.
    let n = unsafe { libc::read(error, why.as_mut_ptr().cast(), size_of_val(&why)) };
    (n == size_of_val(&why) as isize).then_some(why)
}

fn report_not_begun(job: &Job, errno: c_int, execve: bool) {
    let Some(path) = job.argv.first().filter(|_| execve) else {
        say(job, Level::Error, errno, format_args!("open() of \"/dev/null\" failed"));
        return;
    };
    // SAFETY: the path is a C string.
    let exists = unsafe { libc::access(path.as_ptr(), libc::F_OK) == 0 };
    let hint = if errno == libc::ENOENT && exists { ", is its interpreter missing?" } else { "" };
    let path = path.to_string_lossy();
    say(job, Level::Error, errno, format_args!("execve() of \"{path}\" failed{hint}"));
}

/// Says how it failed, if it did; whether it succeeded.
fn report(job: &Job, status: c_int) -> bool {
    let name = job.name();
    if libc::WIFSIGNALED(status) {
        let core = if libc::WCOREDUMP(status) { " (core dumped)" } else { "" };
        let signal = libc::WTERMSIG(status);
        say(job, Level::Error, 0, format_args!("{name} exited on signal {signal}{core}"));
    } else if libc::WEXITSTATUS(status) != 0 {
        let code = libc::WEXITSTATUS(status);
        say(job, Level::Error, 0, format_args!("{name} exited with code {code}"));
    }
    status == 0
}
