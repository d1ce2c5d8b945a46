//! How many programs that nobody waits for run at a time on the whole node: a storm of events must
//! not become a storm of processes.
//!
//! A slot is a record lock on one byte of a file that all processes of a node inherit and nobody
//! sees. The kernel hands it on when its holder ends, however that ends.

use core::ffi::c_int;
use std::cell::Cell;

use crate::process::PerProcess;

/// How many.
pub const SLOTS: u32 = 16;

static FILE: PerProcess<Cell<c_int>> = PerProcess(Cell::new(-1));

/// Makes the file, once in the life of a node: in the process that loads the first configuration
/// with a program in it. Without it, as on a kernel that can't make it, there is no limit.
pub fn prepare() {
    if FILE.get() == -1 {
        // SAFETY: the name is a C string.
        let fd = unsafe { libc::memfd_create(c"worker_manager".as_ptr(), libc::MFD_CLOEXEC) };
        FILE.set(fd);
    }
}

/// The file, for those who close all others; -1 if there is none.
pub fn file() -> c_int {
    FILE.get()
}

/// Waits until the slot that a ticket leads to is free, and takes it until this process ends.
pub fn take(ticket: u32) {
    // SAFETY: all zeros is a valid structure.
    let mut lock: libc::flock = unsafe { core::mem::zeroed() };
    lock.l_type = libc::F_WRLCK as _;
    lock.l_whence = libc::SEEK_SET as _;
    lock.l_start = (ticket % SLOTS).into();
    lock.l_len = 1;
    // SAFETY: a valid lock. It fails if there is no file, and all signals are blocked here.
    unsafe { libc::fcntl(FILE.get(), libc::F_SETLKW, &lock) };
}
