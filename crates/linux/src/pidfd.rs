//! A process by a descriptor: it refers to that process for ever, while a pid may be given to another.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// A process, dead or alive.
#[derive(Debug)]
pub struct Pidfd(OwnedFd);

/// How a process ended, as far as the kernel reports it of a pidfd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With this wait status.
    Known(i32),
    /// Its parent has not reaped it yet; or it lives.
    NotReaped,
    /// This kernel does not report it.
    Untold,
}

/// `struct pidfd_info` of linux/pidfd.h, as it was when it got `exit_code`.
#[repr(C)]
struct PidfdInfo {
    mask: u64,
    cgroup: u64,
    ids: [u32; 11],
    exit_code: i32,
}

/// `PIDFD_INFO_EXIT`: since Linux 6.15.
const INFO_EXIT: u64 = 1 << 3;
/// `PIDFD_GET_INFO`, `_IOWR(0xff, 11, struct pidfd_info)`.
const GET_INFO: libc::c_ulong = 3 << 30 | (size_of::<PidfdInfo>() as libc::c_ulong) << 16 | 0xff0b;

/// How the process that a pidfd refers to ended.
pub fn ending(pidfd: BorrowedFd<'_>) -> Ending {
    let mut info = PidfdInfo { mask: INFO_EXIT, cgroup: 0, ids: [0; 11], exit_code: 0 };
    // SAFETY: the descriptor is open, and the structure as large as the request says.
    let result = unsafe { libc::ioctl(pidfd.as_raw_fd(), GET_INFO as _, &mut info) };
    if result != 0 {
        // Older kernels: ENOTTY or EINVAL if they know no such request, ESRCH if they do but keep nothing
        // of the dead.
        Ending::Untold
    } else if info.mask & INFO_EXIT != 0 {
        Ending::Known(info.exit_code)
    } else {
        Ending::NotReaped
    }
}

impl Pidfd {
    /// The process that has this pid now. Fails with ESRCH if there is none, with ENOSYS before Linux
    /// 5.3, and with EPERM where a container forbids the system call.
    pub fn open(pid: i32) -> io::Result<Pidfd> {
        // SAFETY: no pointers are passed.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just opened, close-on-exec, and this function owns it.
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

impl From<Pidfd> for OwnedFd {
    fn from(pidfd: Pidfd) -> OwnedFd {
        pidfd.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
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

    /// Waits until the process has died. It is not reaped by that.
    fn await_death(pidfd: BorrowedFd<'_>) {
        let mut poll = libc::pollfd { fd: pidfd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one valid entry.
        assert_eq!(unsafe { libc::poll(&mut poll, 1, 20_000) }, 1, "it dies");
    }

    #[test]
    fn an_ending_is_known_once_the_parent_has_reaped_the_process() {
        let mut child = Command::new("sh").args(["-c", "exec sleep 60"]).spawn().expect("sh");
        let pidfd = OwnedFd::from(Pidfd::open(child.id() as i32).expect("a pidfd"));
        let alive = ending(pidfd.as_fd());
        assert!(matches!(alive, Ending::NotReaped | Ending::Untold), "{alive:?}");
        child.kill().expect("it lives");
        await_death(pidfd.as_fd());
        // Linux 6.13 and 6.14 answer for processes that live alone.
        let zombie = ending(pidfd.as_fd());
        assert!(matches!(zombie, Ending::NotReaped | Ending::Untold), "{zombie:?}");
        child.wait().expect("a status");
        let reaped = ending(pidfd.as_fd());
        assert!(matches!(reaped, Ending::Known(libc::SIGKILL) | Ending::Untold), "{reaped:?}");
        // One without an answer has none later, either.
        assert!(alive != Ending::Untold || reaped == Ending::Untold, "{alive:?} {reaped:?}");
    }

    #[test]
    fn a_status_is_that_of_wait() {
        let mut child = Command::new("sh").args(["-c", "exit 7"]).spawn().expect("sh");
        let pidfd = OwnedFd::from(Pidfd::open(child.id() as i32).expect("a pidfd"));
        let status = child.wait().expect("a status").into_raw();
        let known = ending(pidfd.as_fd());
        assert!(known == Ending::Known(status) || known == Ending::Untold, "{known:?}");
    }

    /// An error unless the kernel does not report how a process has ended.
    fn ask_for_an_ending() -> io::Result<()> {
        let pidfd = OwnedFd::from(Pidfd::open(std::process::id() as i32)?);
        match ending(pidfd.as_fd()) {
            Ending::Untold => Ok(()),
            Ending::NotReaped | Ending::Known(_) => Err(io::Error::from_raw_os_error(libc::EEXIST)),
        }
    }

    #[test]
    fn a_kernel_that_does_not_report_it() {
        // Before Linux 6.13; before 6.15, for a process that has died; a container that forbids it.
        for errno in [libc::ENOTTY, libc::EINVAL, libc::ESRCH, libc::EPERM] {
            assert_eq!(answer(libc::SYS_ioctl, errno, ask_for_an_ending), None);
        }
        let other = OwnedFd::from(std::fs::File::open("/dev/null").expect("it is there"));
        assert_eq!(ending(other.as_fd()), Ending::Untold, "no pidfd");
    }
}
