//! The calls by libc, where no assembler of their own is written.

use core::ffi::{c_int, c_long, c_void};

use super::super::fd::errno;

/// Whether the calls leave `errno` alone. Otherwise nginx's thread has to stand still meanwhile.
pub const IS_RAW: bool = false;

/// Makes a process that runs `main(argument)` on a stack of its own and exits with what that returns. Its
/// pid, or an errno as a negative number.
///
/// # Safety
/// `stack` is the end of enough memory, 16 bytes aligned, that is nobody else's as long as the process lives.
/// With CLONE_VM `main` makes system calls of `raw` alone.
pub unsafe fn clone(
    flags: c_int,
    stack: *mut c_void,
    main: unsafe extern "C" fn(*mut c_void) -> c_int,
    argument: *mut c_void,
) -> isize {
    // libc's type says that the function is safe to call, which it leaves to this function's caller.
    // SAFETY: the two types of functions differ in nothing else.
    let main: extern "C" fn(*mut c_void) -> c_int = unsafe { core::mem::transmute(main) };
    // SAFETY: the caller vouches for the stack and the function.
    match unsafe { libc::clone(main, stack, flags, argument) } {
        -1 => (errno() as isize).wrapping_neg(),
        pid => pid as isize,
    }
}

/// Writes to a file at a place.
///
/// # Safety
/// As for libc's function.
pub unsafe fn pwrite(fd: c_int, bytes: *const u8, count: usize, at: libc::off_t) {
    // The kernel may want the offset in two parts.
    // SAFETY: the caller vouches for the bytes.
    unsafe { libc::pwrite(fd, bytes.cast(), count, at) };
}

/// A system call; an error is a negative number.
///
/// # Safety
/// As for that call.
pub unsafe fn call(number: c_long, arguments: [usize; 4]) -> isize {
    let [a, b, c, d] = arguments;
    // SAFETY: the caller vouches for it.
    match unsafe { libc::syscall(number, a, b, c, d) } {
        -1 => (errno() as isize).wrapping_neg(),
        result => result as isize,
    }
}
