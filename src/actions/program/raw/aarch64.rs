//! The calls on 64-bit ARM.

use core::ffi::{c_int, c_long, c_void};

/// Whether the calls leave `errno` alone. Otherwise nginx's thread has to stand still meanwhile.
pub const IS_RAW: bool = true;

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
    let result;
    // SAFETY: the kernel keeps all registers but x0. The new process has the registers of this one
    // on its own stack, and never comes back from here.
    unsafe {
        core::arch::asm!(
            "svc #0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x0, {argument}",
            "blr {main}",
            "mov x8, {exit}",
            "svc #0",
            "brk #1",
            "2:",
            argument = in(reg) argument,
            main = in(reg) main,
            exit = const libc::SYS_exit,
            inout("x0") flags as isize => result,
            in("x1") stack,
            in("x2") 0usize,
            in("x3") 0usize,
            in("x4") 0usize,
            in("x8") libc::SYS_clone,
        );
    }
    result
}

/// Writes to a file at a place.
///
/// # Safety
/// As for libc's function.
pub unsafe fn pwrite(fd: c_int, bytes: *const u8, count: usize, at: libc::off_t) {
    // SAFETY: the caller vouches for the bytes.
    unsafe { call(libc::SYS_pwrite64, [fd as usize, bytes as usize, count, at as usize]) };
}

/// A system call; an error is a negative number.
///
/// # Safety
/// As for that call.
pub unsafe fn call(number: c_long, arguments: [usize; 4]) -> isize {
    let [a, b, c, d] = arguments;
    let result;
    // SAFETY: the kernel keeps all registers but x0; the caller vouches for the rest.
    unsafe {
        core::arch::asm!(
            "svc #0",
            inout("x0") a as isize => result,
            in("x1") b,
            in("x2") c,
            in("x3") d,
            in("x8") number,
            options(nostack),
        );
    }
    result
}
