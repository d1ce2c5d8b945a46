//! A process whose death the event loop tells.

use core::cell::{Cell, UnsafeCell};
use std::io;

use memoffset::offset_of;
use ngx::ffi::ngx_event_t;

use super::descriptor::Descriptor;
use super::pidfd::Pidfd;
use crate::nginx::log::Log;
use crate::nginx::main_thread::is_main;

pub use linux::pidfd::Ending;

/// A watch on a process, in a static.
#[repr(C)]
pub struct Watch {
    pidfd: UnsafeCell<Pidfd>,
    handler: Cell<Option<fn()>>,
}

// The owner of the pidfd's descriptor is the pidfd, and so the watch.
const _: () = assert!(offset_of!(Watch, pidfd) == 0);

impl Watch {
    /// A watch on no process.
    pub const fn new() -> Watch {
        Watch { pidfd: UnsafeCell::new(Pidfd::new()), handler: Cell::new(None) }
    }

    /// Whether the event loop can watch processes at all.
    pub fn is_supported() -> bool {
        Pidfd::is_supported()
    }

    /// Watches a process, and no other any more; `handler` is called once it has died.
    pub fn open(&'static self, pid: i32, handler: fn(), log: Log) -> io::Result<()> {
        if !is_main() {
            return Err(io::Error::from_raw_os_error(libc::EPERM));
        }
        self.close();
        self.handler.set(Some(handler));
        // SAFETY: the main thread runs the event loop, which is there if a process can be watched. The
        // watch is a static that watches nothing now, and never another thread's, since it is not Send.
        unsafe { Pidfd::open(self.pidfd.get(), pid, on_death, log) }
    }

    /// Stops the handler from being called, and keeps the pidfd.
    pub fn silence(&'static self) {
        // SAFETY: as in `open`.
        unsafe { Pidfd::silence(self.pidfd.get()) }
    }

    /// Ends the watch.
    pub fn close(&'static self) {
        // SAFETY: as in `open`.
        unsafe { Pidfd::close(self.pidfd.get()) }
    }

    /// Whether the process has died.
    pub fn has_died(&self) -> bool {
        self.pidfd().has_died()
    }

    /// How the process ended.
    pub fn ending(&self) -> Ending {
        self.pidfd().ending()
    }

    fn pidfd(&self) -> &Pidfd {
        // SAFETY: it is written to by `open`, `silence` and `close` alone, and no reference leaves this
        // file.
        unsafe { &*self.pidfd.get() }
    }
}

unsafe extern "C" fn on_death(event: *mut ngx_event_t) {
    // SAFETY: the owner is the pidfd that `open` was called for, the beginning of a watch in a static.
    let watch = unsafe { &*Descriptor::owner(event).cast::<Watch>() };
    if let Some(handler) = watch.handler.get() {
        handler();
    }
}
