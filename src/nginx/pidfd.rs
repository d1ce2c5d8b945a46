//! A process that is watched in the event loop, by its pidfd.

use core::ffi::c_int;

use ngx::ffi::ngx_event_t;
use roster::Reason;

use super::descriptor::Descriptor;
use crate::nginx::failpoint::simulated;
use crate::nginx::log::Log;

/// A process that is watched.
pub struct Pidfd(Descriptor);

/// How a process that has died ended, as far as its pidfd tells.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// So.
    Known(Reason),
    /// Its parent has not reaped it yet.
    NotReaped,
    /// This kernel does not tell.
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

impl Pidfd {
    /// One that watches nobody.
    pub const fn new() -> Pidfd {
        Pidfd(Descriptor::new())
    }

    /// Whether the event loop can watch processes at all.
    pub fn is_supported() -> bool {
        Descriptor::is_supported()
    }

    /// Starts to watch a process; `handler` is called once when it has died. The error is an errno.
    ///
    /// # Safety
    /// `this` points to a static that watches nobody, and this thread runs the event loop.
    pub unsafe fn open(
        this: *mut Pidfd,
        pid: i32,
        handler: unsafe extern "C" fn(*mut ngx_event_t),
        log: Log,
    ) -> Result<(), i32> {
        if simulated("no-pidfd") || !Pidfd::is_supported() {
            return Err(libc::ENOSYS);
        }
        // SAFETY: the caller vouches for `this`. pidfd_open sets close-on-exec.
        unsafe {
            let fd = libc::syscall(libc::SYS_pidfd_open, pid, 0) as c_int;
            if fd < 0 {
                return Err(*libc::__errno_location());
            }
            Descriptor::open(&raw mut (*this).0, fd, handler, this.cast(), log)
        }
    }

    /// Stops the handler from being called, and keeps the descriptor.
    ///
    /// # Safety
    /// `this` points to a static, and this thread runs the event loop.
    pub unsafe fn silence(this: *mut Pidfd) {
        // SAFETY: the caller vouches for `this`.
        unsafe { Descriptor::silence(&raw mut (*this).0) }
    }

    /// Stops to watch.
    ///
    /// # Safety
    /// As for `silence`.
    pub unsafe fn close(this: *mut Pidfd) {
        // SAFETY: the caller vouches for `this`.
        unsafe { Descriptor::close(&raw mut (*this).0) }
    }

    /// Whether the process has died.
    pub fn has_died(&self) -> bool {
        self.0.is_readable()
    }

    /// How the process ended.
    pub fn ending(&self) -> Ending {
        let Some(fd) = self.0.fd().filter(|_| !simulated("no-exit-info")) else {
            return Ending::Untold;
        };
        let mut info = PidfdInfo { mask: INFO_EXIT, cgroup: 0, ids: [0; 11], exit_code: 0 };
        // SAFETY: the descriptor is a pidfd, and the structure as large as the request says.
        let result = unsafe { libc::ioctl(fd, GET_INFO as _, &mut info) };
        if result != 0 {
            // Older kernels: ENOTTY or EINVAL if they know no such request, ESRCH if they do but
            // keep nothing of the dead.
            Ending::Untold
        } else if info.mask & INFO_EXIT != 0 {
            Ending::Known(Reason::from_wait_status(info.exit_code))
        } else {
            Ending::NotReaped
        }
    }
}
