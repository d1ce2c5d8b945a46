//! System calls that several files make.

use std::ffi::c_int;
use std::io;

/// The errno of the last call of libc.
pub fn errno() -> i32 {
    number(&io::Error::last_os_error())
}

/// The errno of an error, 0 if it is none of the kernel's.
pub fn number(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(0)
}

/// The monotonic clock, milliseconds.
pub fn monotonic() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a valid place for the time; the clock exists on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    (now.tv_sec as u64).saturating_mul(1000).saturating_add(now.tv_nsec as u64 / 1_000_000)
}

/// Closes a range of descriptors.
pub fn close_range(first: c_int, last: c_int) {
    // SAFETY: closing descriptors that this process does not use any more.
    unsafe {
        if libc::syscall(libc::SYS_close_range, first, last, 0) == 0 {
            return;
        }
        // Linux before 5.9, or a sandbox that does not know the call.
        let mut limit: libc::rlimit = std::mem::zeroed();
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit);
        let end = (last as libc::rlim_t).min(limit.rlim_cur).min(1 << 20) as c_int;
        for fd in first..=end {
            libc::close(fd);
        }
    }
}

/// Closes all descriptors but those given. Of the standard ones /dev/null is left, so that no other file
/// takes their numbers.
pub fn close_all_but(kept: &[c_int]) {
    let mut kept = kept.to_vec();
    // SAFETY: the name is a C string, and the descriptors are ours to replace.
    unsafe {
        let null = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC);
        for fd in (0..3).filter(|fd| *fd != null && !kept.contains(fd)) {
            if null == -1 || libc::dup2(null, fd) == -1 {
                libc::close(fd);
            }
        }
    }
    kept.sort_unstable();
    let mut first = 3;
    for fd in kept {
        if fd > first {
            close_range(first, fd.saturating_sub(1));
        }
        first = first.max(fd.saturating_add(1));
    }
    close_range(first, c_int::MAX);
}

/// A pipe that programs do not inherit, clear of the standard descriptors.
pub fn pipe() -> io::Result<(c_int, c_int)> {
    let mut fds = [-1; 2];
    // SAFETY: there is room for two descriptors; they are ours to move.
    unsafe {
        if libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) != 0 {
            return Err(io::Error::last_os_error());
        }
        for fd in &mut fds {
            if *fd < 3 {
                let higher = libc::fcntl(*fd, libc::F_DUPFD_CLOEXEC, 3);
                if higher == -1 {
                    return Err(io::Error::last_os_error());
                }
                libc::close(*fd);
                *fd = higher;
            }
        }
    }
    Ok((fds[0], fds[1]))
}

/// Something to wait for with `poll()`; nothing if the descriptor is negative.
pub fn pollfd(fd: c_int) -> libc::pollfd {
    libc::pollfd { fd, events: libc::POLLIN, revents: 0 }
}

/// Waits until one is ready, or some milliseconds.
pub fn poll(fds: &mut [libc::pollfd], milliseconds: u64) {
    let timeout = milliseconds.min(60_000) as c_int;
    // SAFETY: the pollfds are valid; negative descriptors are skipped.
    unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, timeout) };
}
