//! System calls of a process that shares the memory of a thread of nginx's which goes on running. libc would
//! leave their errors in `errno`, which is that thread's. Each kind of processor has a file; on one that has
//! none libc makes the calls.

use core::ffi::{c_char, c_int};

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod other;
#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(target_arch = "aarch64")]
use aarch64 as arch;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
use other as arch;
#[cfg(target_arch = "x86_64")]
use x86_64 as arch;

use arch::call;
pub use arch::{clone, pwrite, IS_RAW};

/// `execve()`. It comes back only with an error, an errno.
///
/// # Safety
/// As for libc's function.
pub unsafe fn execve(
    path: *const c_char,
    argv: *const *const c_char,
    envp: *const *const c_char,
) -> i32 {
    // SAFETY: the caller vouches for the strings.
    let result =
        unsafe { call(libc::SYS_execve, [path as usize, argv as usize, envp as usize, 0]) };
    result.wrapping_neg() as i32
}

/// Lets a descriptor stay open over `execve()`.
pub fn keep(fd: c_int) {
    // SAFETY: the call touches no memory.
    unsafe { call(libc::SYS_fcntl, [fd as usize, libc::F_SETFD as usize, 0, 0]) };
}

/// Waits for a child to end.
pub fn wait(pid: i32) {
    // SAFETY: the call writes to no memory without pointers.
    unsafe { call(libc::SYS_wait4, [pid as usize, 0, libc::__WALL as usize, 0]) };
}

/// Reads a byte and drops it.
#[cfg(feature = "failpoints")]
pub fn pass(gate: c_int) {
    let mut byte = 0u8;
    // SAFETY: room for one byte.
    unsafe { call(libc::SYS_read, [gate as usize, (&raw mut byte) as usize, 1, 0]) };
}
