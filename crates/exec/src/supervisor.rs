//! The life of the helper: it waits until its program may begin, sees it to its end, and reports that to nginx.

use std::ffi::{c_int, CStr};
use std::io::{self, stderr, Write};
use std::ptr;

use thiserror::Error;

use crate::job::{Job, User};
use crate::log::{say, Level};
use crate::program;
use crate::queue::{Place, Queue, LOOK};
use crate::status::{FAILED, PROTOCOL, SUCCEEDED};
use crate::sys::{close_all_but, monotonic, number, poll, pollfd};

/// Does what the arguments say. All signals stay blocked: what is sent to all of nginx, by the
/// terminal or a service manager, is not meant for the helper, which has to report the end.
pub fn main(arguments: Vec<&CStr>) -> c_int {
    let Some(status) = status(&arguments) else {
        let _ = writeln!(stderr(), "this is started by nginx's module ngx_worker_manager");
        return 2;
    };
    become_helper();
    report(status, PROTOCOL);
    // nginx asks for the protocol alone when it reads its configuration, and a module of another
    // version has other arguments.
    let Some(job) = Job::parse(&arguments) else {
        return 1;
    };
    close_all_but(&job.descriptors());
    let succeeded = run(&job);
    if let (None, Some(queue)) = (job.ticket, job.queue) {
        // Before nginx learns of the end: what it starts next must not wait.
        Queue::of(queue).end_turn();
    }
    report(status, if succeeded { SUCCEEDED } else { FAILED });
    0
}

/// The descriptor for the answer, which is in the same place in every version.
fn status(arguments: &[&CStr]) -> Option<c_int> {
    let [_, protocol, status, ..] = arguments else {
        return None;
    };
    protocol.to_str().ok()?.strip_prefix("protocol=")?;
    status.to_str().ok()?.strip_prefix("status=")?.parse().ok()
}

fn report(status: c_int, word: u8) {
    // SAFETY: one byte is there to be written. If nginx's process has ended, no process reads it.
    unsafe { libc::write(status, [word].as_ptr().cast(), 1) };
}

/// Leaves behind what belongs to nginx: its signals, its process group, its name.
fn become_helper() {
    // SAFETY: plain system calls with valid arguments.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut all);
        libc::sigprocmask(libc::SIG_SETMASK, &all, ptr::null_mut());
        // The system call itself: libc keeps 32 and 33 to itself, and the process that started nginx
        // may have ignored them. All zeros are the kernel's structure for the default. A set of signals
        // is 8 bytes, except on MIPS.
        let default = [0u64; 8];
        for signal in 1..=64 {
            let old = ptr::null_mut::<u64>();
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), old, 8usize);
        }
        libc::setpgid(0, 0);
        libc::prctl(libc::PR_SET_NAME, c"nginx-hook".as_ptr());
    }
}

/// Whether the program ran and succeeded.
fn run(job: &Job) -> bool {
    if let Some(user) = &job.user {
        if let Err(error) = become_user(user) {
            say(
                job,
                Level::Error,
                error.errno(),
                format_args!("{error}, {} not started", job.name()),
            );
            return false;
        }
    }
    wait_to_begin(job).is_some_and(|deadline| {
        program::supervise(job, deadline).unwrap_or_else(|error| {
            say(job, Level::Error, error.errno(), format_args!("{error}"));
            false
        })
    })
}

/// Why the helper can't become another user.
#[derive(Debug, Error)]
enum UserError {
    #[error("setgid({gid}) failed")]
    Group { gid: u32, source: io::Error },
    #[error("initgroups({name}, {gid}) failed")]
    Groups { name: String, gid: u32, source: io::Error },
    #[error("setuid({uid}) failed")]
    User { uid: u32, source: io::Error },
}

impl UserError {
    /// The errno of the call that failed.
    fn errno(&self) -> i32 {
        match self {
            UserError::Group { source, .. }
            | UserError::Groups { source, .. }
            | UserError::User { source, .. } => number(source),
        }
    }
}

/// As nginx's workers do (`ngx_worker_process_init()`), but for going on after a failure.
fn become_user(user: &User) -> Result<(), UserError> {
    let User { uid, gid, name } = user;
    let c_name = std::ffi::CString::new(name.as_str()).unwrap_or_default();
    // SAFETY: plain calls with valid arguments; this process has one thread.
    unsafe {
        if libc::setgid(*gid) == -1 {
            let source = io::Error::last_os_error();
            return Err(UserError::Group { gid: *gid, source });
        }
        // Root, in a container that may not set groups, goes on with those that it has.
        if libc::initgroups(c_name.as_ptr(), *gid) == -1 && *uid != 0 {
            let source = io::Error::last_os_error();
            return Err(UserError::Groups { name: name.clone(), gid: *gid, source });
        }
        if libc::setuid(*uid) == -1 {
            let source = io::Error::last_os_error();
            return Err(UserError::User { uid: *uid, source });
        }
    }
    Ok(())
}

/// Waits until the program may begin. When it must have ended; none if it may not begin any more.
fn wait_to_begin(job: &Job) -> Option<u64> {
    let deadline = || monotonic().saturating_add(job.timeout);
    let Some(file) = job.queue else {
        return Some(deadline());
    };
    let queue = Queue::of(file);
    let Some(ticket) = job.ticket else {
        return wait_for_turn(job, queue, deadline());
    };
    match queue.wait(ticket, job.node.unwrap_or(-1)) {
        Place::Begins => Some(deadline()),
        Place::Taken => {
            say(job, Level::Warn, 0, format_args!("{} {TURNED_AWAY}", job.name()));
            queue.turn_away();
            None
        }
        Place::Stops => {
            say(job, Level::Notice, 0, format_args!("{} not started, nginx has ended", job.name()));
            None
        }
    }
}

/// What is logged of a program that is turned away.
pub const TURNED_AWAY: &str = "not started, too many programs wait";

/// A process that is killed gives the lock back before its memory, which may take long, and its
/// descriptors only after that (the kernel's `exit_mm`, then `exit_files`). So the program that it
/// awaits may still run when the next holder of the lock starts one, which has to wait. That is part
/// of its time: the process that awaits it does so no longer.
fn wait_for_turn(job: &Job, queue: Queue, deadline: u64) -> Option<u64> {
    let name = job.name();
    let mut control = [pollfd(job.control.unwrap_or(-1))];
    loop {
        let taken = queue.try_turn();
        let left = deadline.saturating_sub(monotonic());
        poll(&mut control, if taken { 0 } else { left.min(LOOK) });
        if control[0].revents != 0 {
            say(job, Level::Warn, 0, format_args!("{name} not started, who awaited it has died"));
            return None;
        }
        if taken {
            return Some(deadline);
        }
        if left == 0 {
            let (timeout, holder) = (job.timeout(), queue.turn_holder());
            say(
                job,
                Level::Error,
                0,
                format_args!(
                    "{name} not started, exec_timeout {timeout:?} is over while process {holder} \
                     runs another"
                ),
            );
            return None;
        }
    }
}
