//! The supervisor: one process that runs one program, writes what it prints to nginx's log, and
//! kills it when its time is over.
//!
//! It is a raw fork of a process that may have threads, so from `run` on nothing may allocate or
//! lock; nginx's own log function formats on the stack and writes.

use core::ffi::{c_char, c_int, CStr};
use core::mem::{size_of, zeroed, MaybeUninit};
use core::ptr;
use core::time::Duration;

use ngx::ffi::{ngx_log_t, ngx_syslog_peer_t, ngx_syslog_writer, ngx_time_sigsafe_update};

use super::errno;
use crate::log::{Level, Log};

mod output;

use output::Output;

/// What to run, prepared before the fork.
pub struct Job<'a> {
    pub path: &'a CStr,
    pub name: &'a str,
    pub argv: &'a [*const c_char],
    pub envp: &'a [*const c_char],
    pub timeout: Duration,
    pub label: &'a str,
    /// Closes when the process that awaits the program has ended.
    pub parent: Option<c_int>,
    /// To be kept open: the other end tells that the supervisor has ended.
    pub alive: c_int,
    pub log: Log,
}

/// How long a killed program may take to vanish.
const GRACE_MS: u64 = 1000;

/// Runs the program and ends the process.
pub fn run(job: &Job<'_>) -> ! {
    become_supervisor(job);
    if let Err((errno, what)) = supervise(job) {
        say(job, Level::Error, errno, format_args!("{what}"));
    }
    // SAFETY: ends this process without running anything of nginx's.
    unsafe { libc::_exit(0) }
}

fn say(job: &Job<'_>, level: Level, errno: i32, message: core::fmt::Arguments<'_>) {
    // SAFETY: nginx's own variant for signal handlers: it allocates nothing and gives up if the
    // time is locked. Its 64 slots wrap around to the one that ngx_time() reads and leave 0 there,
    // which is why `become_supervisor` sees to disk_full_time.
    unsafe { ngx_time_sigsafe_update() };
    job.log.write(level, errno, format_args!("{}: {message}", job.label));
}

/// Leaves behind what belongs to nginx: its signal handlers, its process group, its descriptors.
fn become_supervisor(job: &Job<'_>) {
    // SAFETY: plain system calls with valid arguments. A signal sent to nginx's group, such as the
    // terminal's at Ctrl-C, is not meant for the supervisor, which has to tell the end.
    unsafe {
        // The system call itself: libc keeps 32 and 33 to itself, and whoever started nginx may
        // have ignored them. All zeros are the kernel's structure for the default.
        let default = [0u64; 4];
        for signal in 1..=64 {
            let none = ptr::null::<u64>();
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), none, 8);
        }
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
        libc::setpgid(0, 0);
        libc::prctl(libc::PR_SET_NAME, c"nginx-hook".as_ptr());
    }
    close_all_but_ours(job);

    let mut log = job.log.as_ptr();
    while !log.is_null() {
        // SAFETY: a chain of live logs, ending with null, in memory that is this process's own. A
        // log is not written to while ngx_time() is the second at which its disk was full; 0, as
        // it is to begin with, would match the time that ngx_time_sigsafe_update leaves.
        unsafe {
            (*log).disk_full_time = -1;
            log = (*log).next;
        }
    }
}

/// Closes nginx's descriptors. A supervisor that outlives its nginx must not keep its ports, and
/// no client may wait for the end of a connection that is still open here.
fn close_all_but_ours(job: &Job<'_>) {
    let mut kept = [0; 18];
    let mut n = 0;
    let mut keep = |fd: c_int| {
        if fd >= 0 && n < kept.len() {
            kept[n] = fd;
            n += 1;
        }
    };
    keep(job.alive);
    if let Some(parent) = job.parent {
        keep(parent);
    }
    for_each_log_fd(job.log.as_ptr(), &mut keep);
    let kept = &mut kept[..n];
    kept.sort_unstable();
    let mut first = 0;
    for &mut fd in kept {
        if fd > first {
            close_range(first, fd - 1);
        }
        first = first.max(fd + 1);
    }
    close_range(first, c_int::MAX);
}

/// The descriptors that nginx's error logs write to: files, and sockets of syslog.
fn for_each_log_fd(mut log: *mut ngx_log_t, keep: &mut dyn FnMut(c_int)) {
    while !log.is_null() {
        // SAFETY: a chain of live logs, ending with null; the writer tells what wdata is.
        unsafe {
            let syslog = ngx_syslog_writer as *const ();
            if (*log).writer.is_some_and(|writer| writer as *const () == syslog) {
                let peer = (*log).wdata.cast::<ngx_syslog_peer_t>();
                if !peer.is_null() {
                    keep((*peer).conn.fd);
                }
            } else if !(*log).file.is_null() {
                keep((*(*log).file).fd);
            }
            log = (*log).next;
        }
    }
}

fn close_range(first: c_int, last: c_int) {
    // SAFETY: closing descriptors that nobody in this process uses any more.
    unsafe {
        if libc::syscall(libc::SYS_close_range, first, last, 0) == 0 {
            return;
        }
        // Linux before 5.9.
        let mut limit: libc::rlimit = zeroed();
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit);
        let end = (last as libc::rlim_t).min(limit.rlim_cur).min(1 << 20) as c_int;
        for fd in first..=end {
            libc::close(fd);
        }
    }
}

type Failure = (i32, &'static str);

fn supervise(job: &Job<'_>) -> Result<(), Failure> {
    let signals = child_signals()?;
    let (output_read, output_write) = pipe()?;
    let (error_read, error_write) = pipe()?;
    // SAFETY: a raw fork again; the child calls nothing that allocates. With an exit signal, unlike
    // the supervisor: the signalfd is how its end is noticed.
    let pid = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) } as libc::pid_t;
    if pid == -1 {
        return Err((errno(), "fork() failed"));
    }
    if pid == 0 {
        become_program(job, output_write, error_write);
    }
    // SAFETY: these ends are the child's.
    unsafe {
        libc::setpgid(pid, pid);
        libc::close(output_write);
        libc::close(error_write);
    }
    if let Some(errno) = exec_error(error_read) {
        let path = job.path.to_bytes();
        let path = core::str::from_utf8(path).unwrap_or(job.name);
        // SAFETY: the path is a C string.
        let exists = unsafe { libc::access(job.path.as_ptr(), libc::F_OK) == 0 };
        let hint =
            if errno == libc::ENOENT && exists { ", is its interpreter missing?" } else { "" };
        // SAFETY: the child has nothing left to do but to exit.
        unsafe { libc::waitpid(pid, ptr::null_mut(), 0) };
        say(job, Level::Error, errno, format_args!("execve() of \"{path}\" failed{hint}"));
        return Ok(());
    }
    // SAFETY: the descriptor is ours.
    unsafe { libc::fcntl(output_read, libc::F_SETFL, libc::O_NONBLOCK) };
    watch(job, pid, signals, output_read);
    Ok(())
}

/// A descriptor that becomes readable when a child has ended.
fn child_signals() -> Result<c_int, Failure> {
    // SAFETY: the set is filled before it is used.
    unsafe {
        let mut set: libc::sigset_t = zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGCHLD);
        libc::sigprocmask(libc::SIG_SETMASK, &set, ptr::null_mut());
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

/// In the child: gives the program what the contract says, and nothing else of nginx's.
fn become_program(job: &Job<'_>, output: c_int, error: c_int) -> ! {
    // SAFETY: plain system calls with valid arguments, and pointers that end with null.
    unsafe {
        libc::setpgid(0, 0);
        if job.parent.is_some() {
            // What is awaited must not go on when nobody knows of it any more.
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        }
        let null = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR);
        libc::dup2(null, 0);
        libc::dup2(output, 1);
        libc::dup2(output, 2);
        // All others; `error` closes itself when the program begins.
        if error > 3 {
            close_range(3, error - 1);
        }
        close_range(error + 1, c_int::MAX);
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        let mut none: libc::sigset_t = zeroed();
        libc::sigemptyset(&mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, ptr::null_mut());
        // nginx's daemon() sets 0, which no program expects.
        libc::umask(0o022);
        libc::execve(job.path.as_ptr(), job.argv.as_ptr(), job.envp.as_ptr());
        let errno = errno();
        libc::write(error, (&raw const errno).cast(), size_of::<i32>());
        libc::_exit(127)
    }
}

/// Waits until the program has begun; the errno if it could not.
fn exec_error(error: c_int) -> Option<i32> {
    let mut errno = MaybeUninit::<i32>::uninit();
    loop {
        // SAFETY: there is room for the number.
        let n = unsafe { libc::read(error, errno.as_mut_ptr().cast(), size_of::<i32>()) };
        if n == size_of::<i32>() as isize {
            // SAFETY: read has filled it.
            return Some(unsafe { errno.assume_init() });
        }
        if n != -1 || super::errno() != libc::EINTR {
            return None;
        }
    }
}

fn now_ms() -> u64 {
    crate::clock::monotonic()
}

/// Sees the program to its end.
fn watch(job: &Job<'_>, pid: libc::pid_t, signals: c_int, output: c_int) {
    let mut text = Output::new();
    let mut deadline = now_ms() + job.timeout.as_millis() as u64;
    let mut killed = false;
    loop {
        let pollfd = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        let mut fds = [pollfd(signals), pollfd(output), pollfd(job.parent.unwrap_or(-1))];
        if text.ended {
            fds[1].fd = -1;
        }
        let left = deadline.saturating_sub(now_ms()).min(60_000) as c_int;
        // SAFETY: three valid pollfds; negative descriptors are skipped.
        unsafe { libc::poll(fds.as_mut_ptr(), 3, left) };

        text.read(output, &mut |line| told(job, line));
        if let Some(status) = ended(pid) {
            // What it printed last; a daemon that it left may hold the pipe open for ever.
            text.read_all(output, &mut |line| told(job, line));
            if !killed {
                report(job, status);
            }
            return;
        }
        if !killed && fds[2].revents != 0 {
            kill(pid);
            killed = true;
            deadline = now_ms() + GRACE_MS;
            say(job, Level::Warn, 0, format_args!("{} killed, who awaited it has died", job.name));
        }
        if now_ms() >= deadline {
            if killed {
                let name = job.name;
                say(job, Level::Alert, 0, format_args!("{name} can't be killed, leaving it"));
                return;
            }
            kill(pid);
            killed = true;
            deadline = now_ms() + GRACE_MS;
            let (name, timeout) = (job.name, job.timeout);
            say(
                job,
                Level::Error,
                0,
                format_args!("{name} killed, exec_timeout {timeout:?} is over"),
            );
        }
    }
}

fn told(job: &Job<'_>, line: output::Line<'_>) {
    match line {
        output::Line::Text(text) => {
            let text = core::str::from_utf8(text).unwrap_or("");
            say(job, Level::Notice, 0, format_args!("{}: {text}", job.name));
        }
        output::Line::TooMuch => {
            say(job, Level::Warn, 0, format_args!("{}: more output is dropped", job.name));
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

fn ended(pid: libc::pid_t) -> Option<c_int> {
    let mut status = 0;
    // SAFETY: the status is a valid place.
    (unsafe { libc::waitpid(pid, &mut status, libc::WNOHANG) } == pid).then_some(status)
}

fn report(job: &Job<'_>, status: c_int) {
    let name = job.name;
    if libc::WIFSIGNALED(status) {
        let core = if libc::WCOREDUMP(status) { " (core dumped)" } else { "" };
        let signal = libc::WTERMSIG(status);
        say(job, Level::Error, 0, format_args!("{name} exited on signal {signal}{core}"));
    } else if libc::WEXITSTATUS(status) != 0 {
        let code = libc::WEXITSTATUS(status);
        say(job, Level::Error, 0, format_args!("{name} exited with code {code}"));
    }
}
