//! A process that is watched in the event loop, by its pidfd.

use std::io;
use std::os::fd::OwnedFd;

use linux::pidfd::{self, Ending};
use ngx::ffi::ngx_event_t;

use super::descriptor::Descriptor;
use crate::nginx::failpoint::simulated;
use crate::nginx::log::Log;

/// A process that is watched.
pub struct Pidfd(Descriptor);

impl Pidfd {
    /// One that watches no process.
    pub const fn new() -> Pidfd {
        Pidfd(Descriptor::new())
    }

    /// Whether the event loop can watch processes at all.
    pub fn is_supported() -> bool {
        Descriptor::is_supported()
    }

    /// Starts to watch a process; `handler` is called once when it has died.
    ///
    /// # Safety
    /// `this` points to a static that watches no process, and this thread runs the event loop.
    pub unsafe fn open(
        this: *mut Pidfd,
        pid: i32,
        handler: unsafe extern "C" fn(*mut ngx_event_t),
        log: Log,
    ) -> io::Result<()> {
        if simulated("no-pidfd") || !Pidfd::is_supported() {
            return Err(io::Error::from_raw_os_error(libc::ENOSYS));
        }
        let fd = OwnedFd::from(pidfd::Pidfd::open(pid)?);
        // SAFETY: the caller vouches for `this`.
        unsafe { Descriptor::open(&raw mut (*this).0, fd, handler, this.cast(), log) }
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
        let fd = self.0.fd().filter(|_| !simulated("no-exit-info"));
        fd.map_or(Ending::Untold, pidfd::ending)
    }
}
