//! A process by a descriptor: it refers to that process for ever, while a pid may be given to another.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// A process, dead or alive.
#[derive(Debug)]
pub struct Pidfd(OwnedFd);

impl Pidfd {
    /// The process that has this pid now. Fails with ESRCH if there is none, with ENOSYS before Linux
    /// 5.3, and with EPERM where a container forbids the system call.
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
    use std::os::unix::process::{CommandExt, ExitStatusExt};
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

    /// From now on a system call of this process fails with that errno, as in an old kernel or under the
    /// seccomp filter of a container.
    fn refuse(call: libc::c_long, errno: i32) -> io::Result<()> {
        let load = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
        let equals = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
        let answer = (libc::BPF_RET | libc::BPF_K) as u16;
        let step = |code, jf, k| libc::sock_filter { code, jt: 0, jf, k };
        let mut steps = [
            // The number of the system call is the first word of struct seccomp_data.
            step(load, 0, 0),
            step(equals, 1, call as u32),
            step(answer, 0, libc::SECCOMP_RET_ERRNO | errno as u32),
            step(answer, 0, libc::SECCOMP_RET_ALLOW),
        ];
        let program = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
        // SAFETY: plain system calls; the program and its steps are valid.
        let refused = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
                && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program)
                    == 0
        };
        if refused {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }

    /// The errno that a process gets from `ask`, for which a system call fails with `errno`.
    fn answer(call: libc::c_long, errno: i32, ask: fn() -> io::Result<()>) -> Option<i32> {
        let mut child = Command::new("true");
        // SAFETY: between fork and exec only system calls.
        unsafe { child.pre_exec(move || refuse(call, errno).and_then(|()| ask())) };
        child.status().err().and_then(|error| error.raw_os_error())
    }

    #[test]
    fn a_kernel_without_it_and_one_that_forbids_it() {
        let open = || Pidfd::open(std::process::id() as i32).map(drop);
        assert_eq!(answer(libc::SYS_getppid, libc::ENOSYS, open), None, "it can be had here");
        for errno in [libc::ENOSYS, libc::EPERM] {
            assert_eq!(answer(libc::SYS_pidfd_open, errno, open), Some(errno));
            let signal = || Pidfd::open(std::process::id() as i32)?.send_signal(0);
            assert_eq!(answer(libc::SYS_pidfd_send_signal, errno, signal), Some(errno));
        }
    }

    #[test]
    fn descriptors_that_are_used_up_are_an_error() {
        let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        let mut child = Command::new("true");
        // SAFETY: between fork and exec only system calls, with a limit that is valid.
        unsafe {
            child.pre_exec(move || {
                libc::setrlimit(libc::RLIMIT_NOFILE, &none);
                Pidfd::open(1).map(drop)
            })
        };
        let error = child.status().expect_err("there is no descriptor");
        assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
    }

    #[test]
    fn there_is_none_for_a_process_that_is_gone() {
        let mut child = Command::new("true").spawn().expect("true");
        child.wait().expect("a status");
        let error = Pidfd::open(child.id() as i32).expect_err("it is gone");
        assert_eq!(error.raw_os_error(), Some(libc::ESRCH));
    }
}
