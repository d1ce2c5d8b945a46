//! A process by a descriptor: it refers to that process for ever, while a pid may be given to another.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// A process, dead or alive.
#[derive(Debug)]
pub struct Pidfd(OwnedFd);

impl Pidfd {
    /// The process that has this pid now. Fails with ESRCH if there is none, and with ENOSYS before
    /// Linux 5.3.
    pub fn open(pid: i32) -> io::Result<Pidfd> {
        // SAFETY: no pointers are passed.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just opened, close-on-exec, and belongs to nobody else.
        Ok(Pidfd(unsafe { OwnedFd::from_raw_fd(fd as i32) }))
    }

    /// Sends a signal to it.
    pub fn send_signal(&self, signal: i32) -> io::Result<()> {
        let none = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: the descriptor is open; without siginfo the kernel fills in its own.
        let result = unsafe {
            libc::syscall(libc::SYS_pidfd_send_signal, self.0.as_raw_fd(), signal, none, 0)
        };
        if result == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    #[test]
    fn it_signals_the_process_and_no_other_that_follows() {
        let mut child = Command::new("sleep").arg("60").spawn().expect("sleep");
        let pidfd = Pidfd::open(child.id() as i32).expect("a pidfd");
        pidfd.send_signal(libc::SIGKILL).expect("it lives");
        assert_eq!(child.wait().expect("a status").signal(), Some(libc::SIGKILL));
        let error = pidfd.send_signal(libc::SIGKILL).expect_err("it is gone");
        assert_eq!(error.raw_os_error(), Some(libc::ESRCH));
    }

    #[test]
    fn there_is_none_for_a_process_that_is_gone() {
        let mut child = Command::new("true").spawn().expect("true");
        child.wait().expect("a status");
        let error = Pidfd::open(child.id() as i32).expect_err("it is gone");
        assert_eq!(error.raw_os_error(), Some(libc::ESRCH));
    }
}
