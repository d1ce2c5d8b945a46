//! The supervisor: one process that runs one program, writes what it prints to nginx's log, and
//! kills it when its time is over.
//!
//! It is a raw fork of a process that may have threads, so from `run` on nothing may allocate or
//! lock; nginx's own log function formats on the stack and writes.

use core::ffi::{c_char, c_int, CStr};
use core::fmt;
use core::iter::successors;
use core::mem::{size_of_val, zeroed};
use core::ptr;
use core::time::Duration;

use ngx::ffi::{
    ngx_log_t, ngx_setproctitle, ngx_syslog_peer_t, ngx_syslog_writer, ngx_time_sigsafe_update,
    ngx_use_stderr,
};
use roster::{Kind, Roster};

use super::{errno, fork_quietly, slots};
use crate::clock::monotonic;
use crate::log::{Level, Log};

mod output;

use output::{Line, Output};

/// What to run, prepared before the fork.
pub struct Job<'a> {
    pub path: &'a CStr,
    pub name: &'a str,
    /// What `ps` shows of the supervisor.
    pub title: &'a CStr,
    pub argv: &'a [*const c_char],
    pub envp: &'a [*const c_char],
    pub timeout: Duration,
    pub label: &'a str,
    /// Closes when the process that awaits the program has ended.
    pub parent: Option<c_int>,
    /// Of a program that nobody awaits: where it waits until it may begin.
    pub place: Option<u32>,
    /// To be kept open: the other end tells that the supervisor has ended.
    pub alive: c_int,
    pub log: Log,
    /// Where a failure is counted, and as one of a callback for which kind of event.
    pub roster: Roster<'a>,
    pub kind: Kind,
}

/// How long a killed process may take to vanish.
pub const GRACE_MS: u64 = 1000;

/// Runs the program and ends the process, which was forked with all signals blocked. They stay so:
/// what is sent to all of nginx, by the terminal or a service manager, is not meant for the
/// supervisor, which has to tell the end.
pub fn run(job: &Job<'_>) -> ! {
    become_supervisor(job);
    let succeeded = wait_to_begin(job).is_some_and(|deadline| {
        supervise(job, deadline).unwrap_or_else(|(errno, what)| {
            say(job, Level::Error, errno, format_args!("{what}"));
            false
        })
    });
    if !succeeded {
        // One addition in the zone, which this process shares with all of nginx.
        job.roster.callback_failed(job.kind);
    }
    // SAFETY: ends this process without running anything of nginx's.
    unsafe { libc::_exit(0) }
}

/// Waits until the program may begin. When it must have ended; none if it may not begin any more.
fn wait_to_begin(job: &Job<'_>) -> Option<u64> {
    let deadline = || monotonic().saturating_add(job.timeout.as_millis() as u64);
    match job.place {
        Some(place) if slots::take(place) => Some(deadline()),
        Some(_) => {
            say(job, Level::Warn, 0, format_args!("{} {}", job.name, slots::TURNED_AWAY));
            slots::set_turned_away(slots::turned_away().saturating_add(1));
            None
        }
        None => wait_for_turn(job, deadline()),
    }
}

/// A process that is killed gives the lock back before its memory, which may take long, and its
/// descriptors only after that (the kernel's `exit_mm`, then `exit_files`). So the program that it
/// awaits may still run when the next holder of the lock starts one, which has to wait. That is part
/// of its time: who awaits it does so no longer.
fn wait_for_turn(job: &Job<'_>, deadline: u64) -> Option<u64> {
    let (name, timeout) = (job.name, job.timeout);
    let mut parent = pollfd(job.parent.unwrap_or(-1));
    loop {
        let taken = slots::try_turn();
        let left = deadline.saturating_sub(monotonic());
        let wait = if taken { 0 } else { left.min(slots::LOOK_MS) };
        // SAFETY: one valid pollfd.
        unsafe { libc::poll(&mut parent, 1, wait as c_int) };
        if parent.revents != 0 {
            say(job, Level::Warn, 0, format_args!("{name} not started, who awaited it has died"));
            return None;
        }
        if taken {
            return Some(deadline);
        }
        if left == 0 {
            say(
                job,
                Level::Error,
                0,
                format_args!(
                    "{name} not started, exec_timeout {timeout:?} is over while process {} runs \
                     another",
                    slots::turn_holder()
                ),
            );
            return None;
        }
    }
}

fn chain(log: Log) -> impl Iterator<Item = *mut ngx_log_t> {
    // SAFETY: a chain of live logs, ending with null.
    successors(Some(log.as_ptr()), |&log| Some(unsafe { (*log).next }).filter(|l| !l.is_null()))
}

fn say(job: &Job<'_>, level: Level, errno: i32, message: fmt::Arguments<'_>) {
    // SAFETY: nginx's own variant for signal handlers: it allocates nothing and gives up if the
    // time is locked. It does not move the time that ngx_time() tells.
    unsafe { ngx_time_sigsafe_update() };
    for log in chain(job.log) {
        // SAFETY: a live log, in memory that is this process's own. A log whose disk was full is
        // not written to while ngx_time() is that second, and here that second never ends.
        unsafe { (*log).disk_full_time = -1 };
    }
    job.log.write(level, errno, format_args!("{}: {message}", job.label));
}

/// Leaves behind what belongs to nginx: its signal handlers, its process group, its name, its
/// descriptors.
fn become_supervisor(job: &Job<'_>) {
    // SAFETY: plain system calls with valid arguments. The title goes into the memory where argv
    // was, which is this process's own. nginx sets ngx_use_stderr to 0 before it serves.
    unsafe {
        libc::setpgid(0, 0);
        // The system call itself: libc keeps 32 and 33 to itself, and whoever started nginx may
        // have ignored them; and it may take a lock (glibc 2.41 does for SIGABRT). All zeros are
        // the kernel's structure for the default. A set of signals is 8 bytes, except on MIPS.
        let default = [0u64; 8];
        for signal in 1..=64 {
            let old = ptr::null_mut::<u64>();
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), old, 8usize);
        }
        libc::prctl(libc::PR_SET_NAME, c"nginx-hook".as_ptr());
        ngx_setproctitle(job.title.as_ptr().cast_mut());
        if job.parent.is_none() {
            ngx_use_stderr = 0;
        }
    }
    close_all_but_ours(job);
}

/// Closes nginx's descriptors. A supervisor that outlives its nginx must not keep its ports, and
/// no client may wait for the end of a connection that is still open here.
fn close_all_but_ours(job: &Job<'_>) {
    // SAFETY: a plain global. While it is set, nginx tells errors on the console too.
    let console = if unsafe { ngx_use_stderr } != 0 { 2 } else { -1 };
    let ours = [job.alive, job.parent.unwrap_or(-1), console, slots::file()];
    let mut first = 0;
    // Searched anew for each gap, because there may be any number of logs and no memory for them.
    while let Some(fd) = ours.into_iter().chain(log_fds(job.log)).filter(|&fd| fd >= first).min() {
        if fd > first {
            close_range(first, fd - 1);
        }
        first = fd + 1;
    }
    close_range(first, c_int::MAX);
}

/// The descriptors that nginx's error logs write to: files, and sockets of syslog.
fn log_fds(log: Log) -> impl Iterator<Item = c_int> {
    chain(log).map(|log| {
        let syslog = ngx_syslog_writer as *const ();
        // SAFETY: a live log; the writer tells what wdata is. Another writer, the one to memory,
        // has no file.
        unsafe {
            if (*log).writer.is_some_and(|writer| writer as *const () == syslog) {
                (*log).wdata.cast::<ngx_syslog_peer_t>().as_ref().map_or(-1, |peer| peer.conn.fd)
            } else {
                (*log).file.as_ref().map_or(-1, |file| file.fd)
            }
        }
    })
}

fn close_range(first: c_int, last: c_int) {
    // SAFETY: closing descriptors that nobody in this process uses any more.
    unsafe {
        if libc::syscall(libc::SYS_close_range, first, last, 0) == 0 {
            return;
        }
        // Linux before 5.9, or a sandbox that does not know the call.
        let mut limit: libc::rlimit = zeroed();
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit);
        let end = (last as libc::rlim_t).min(limit.rlim_cur).min(1 << 20) as c_int;
        for fd in first..=end {
            libc::close(fd);
        }
    }
}

type Failure = (i32, &'static str);

/// Whether the program succeeded.
fn supervise(job: &Job<'_>, deadline: u64) -> Result<bool, Failure> {
    let signals = child_signals()?;
    let (output_read, output_write) = pipe()?;
    let (error_read, error_write) = pipe()?;
    // SAFETY: can't fail.
    let supervisor = unsafe { libc::getpid() };
    // With an exit signal, unlike the supervisor: the signalfd is how its end is noticed.
    let pid = fork_quietly(libc::SIGCHLD).map_err(|errno| (errno, "fork() failed"))?;
    if pid == 0 {
        become_program(job, supervisor, output_write, error_write);
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
fn child_signals() -> Result<c_int, Failure> {
    // SAFETY: the set is filled before it is used; the signal is blocked, as all are.
    unsafe {
        let mut set: libc::sigset_t = zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGCHLD);
        match libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) {
            -1 => Err((errno(), "signalfd() failed")),
            fd => Ok(fd),
        }
    }
}

/// A pipe whose ends are clear of the standard descriptors.
fn pipe() -> Result<(c_int, c_int), Failure> {
    let mut fds = [-1; 2];
    // SAFETY: there is room for two descriptors; they are ours to move.
    unsafe {
        if libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) != 0 {
            return Err((errno(), "pipe() failed"));
        }
        for fd in &mut fds {
            if *fd < 3 {
                let higher = libc::fcntl(*fd, libc::F_DUPFD_CLOEXEC, 3);
                if higher == -1 {
                    return Err((errno(), "fcntl() failed"));
                }
                libc::close(*fd);
                *fd = higher;
            }
        }
    }
    Ok((fds[0], fds[1]))
}

/// Why a program did not begin: errno, and whether that was execve's.
type NotBegun = [c_int; 2];

/// In the child: gives the program what the contract says, and nothing else of nginx's.
fn become_program(job: &Job<'_>, supervisor: libc::pid_t, output: c_int, error: c_int) -> ! {
    let fail = |execve: bool| -> ! {
        let why: NotBegun = [errno(), c_int::from(execve)];
        // SAFETY: as many bytes as there are; then it ends without running anything of nginx's.
        unsafe {
            libc::write(error, why.as_ptr().cast(), size_of_val(&why));
            libc::_exit(127)
        }
    };
    // SAFETY: plain system calls with valid arguments, and pointers that end with null.
    unsafe {
        libc::setpgid(0, 0);
        // Without its supervisor nobody would end it at its time, or know of it.
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        if libc::getppid() != supervisor {
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
            close_range(3, error - 1);
        }
        close_range(error + 1, c_int::MAX);
        // nginx's daemon() sets 0, which no program expects.
        libc::umask(0o022);
        let mut none: libc::sigset_t = zeroed();
        libc::sigemptyset(&mut none);
        libc::pthread_sigmask(libc::SIG_SETMASK, &none, ptr::null_mut());
        libc::execve(job.path.as_ptr(), job.argv.as_ptr(), job.envp.as_ptr());
    }
    fail(true)
}

/// Sees the program to its end. Never waits without a limit, not even for execve, which may hang
/// on a file system that is gone. Returns whether it succeeded.
fn watch(
    job: &Job<'_>,
    mut deadline: u64,
    pid: libc::pid_t,
    signals: c_int,
    output: c_int,
    error: c_int,
) -> bool {
    let mut text = Output::new(job.label.len() + job.name.len());
    let mut killed = false;
    let mut fds = [pollfd(signals), pollfd(output), pollfd(job.parent.unwrap_or(-1))];
    loop {
        let left = deadline.saturating_sub(monotonic()).min(60_000) as c_int;
        // SAFETY: three valid pollfds; negative descriptors are skipped.
        unsafe { libc::poll(fds.as_mut_ptr(), 3, left) };

        if fds[1].revents != 0 {
            text.read(output, &mut |line| told(job, line));
            if text.ended {
                fds[1].fd = -1;
            }
        }
        let status = if fds[0].revents != 0 { ended(pid, signals) } else { None };
        if let Some(status) = status {
            // What it printed last; a daemon that it left may hold the pipe open for ever.
            text.read_all(output, &mut |line| told(job, line));
            if let Some([errno, execve]) = not_begun(error) {
                report_not_begun(job, errno, execve != 0);
                return false;
            }
            return !killed && report(job, status);
        }
        let (name, timeout) = (job.name, job.timeout);
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
        deadline = monotonic() + GRACE_MS;
        // Whoever has died stays dead: that must not end poll again.
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

fn pollfd(fd: c_int) -> libc::pollfd {
    libc::pollfd { fd, events: libc::POLLIN, revents: 0 }
}

/// The program's status, if it has ended.
fn ended(pid: libc::pid_t, signals: c_int) -> Option<c_int> {
    let mut signal = [0u8; 128];
    let mut status = 0;
    // SAFETY: room for one signal, and there is never more than one; the status is a valid place.
    // A signal may also tell that the program was stopped or goes on.
    let pid = unsafe {
        libc::read(signals, signal.as_mut_ptr().cast(), signal.len());
        libc::waitpid(pid, &mut status, libc::WNOHANG)
    };
    (pid != 0).then_some(status)
}

fn told(job: &Job<'_>, line: Line<'_>) {
    let name = job.name;
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
        libc::kill(-pid, libc::SIGKILL);
        libc::kill(pid, libc::SIGKILL);
    }
}

fn not_begun(error: c_int) -> Option<NotBegun> {
    let mut why: NotBegun = [0; 2];
    // SAFETY: there is room for what is asked for.
    let n = unsafe { libc::read(error, why.as_mut_ptr().cast(), size_of_val(&why)) };
    (n == size_of_val(&why) as isize).then_some(why)
}

fn report_not_begun(job: &Job<'_>, errno: c_int, execve: bool) {
    if !execve {
        say(job, Level::Error, errno, format_args!("open() of \"/dev/null\" failed"));
        return;
    }
    let path = job.path.to_str().unwrap_or(job.name);
    // SAFETY: the path is a C string.
    let exists = unsafe { libc::access(job.path.as_ptr(), libc::F_OK) == 0 };
    let hint = if errno == libc::ENOENT && exists { ", is its interpreter missing?" } else { "" };
    say(job, Level::Error, errno, format_args!("execve() of \"{path}\" failed{hint}"));
}

/// Says how it failed, if it did; whether it succeeded.
fn report(job: &Job<'_>, status: c_int) -> bool {
    let name = job.name;
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
