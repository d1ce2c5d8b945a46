//! The calls on x86-64.

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
    // SAFETY: the kernel keeps all registers but rax, rcx and r11. The new process has the
    // registers of this one on its own stack, and never comes back from here.
    unsafe {
        core::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, {argument}",
            "call {main}",
            "mov edi, eax",
            "mov eax, {exit}",
            "syscall",
            "ud2",
            "2:",
            argument = in(reg) argument,
            main = in(reg) main,
            exit = const libc::SYS_exit,
            inout("rax") libc::SYS_clone as isize => result,
            in("rdi") flags as usize,
            in("rsi") stack,
            in("rdx") 0usize,
            in("r10") 0usize,
            in("r8") 0usize,
            out("rcx") _,
            out("r11") _,
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
    // SAFETY: the kernel keeps all registers but rax, rcx and r11; the caller vouches for the rest.
    unsafe {
        core::arch::asm!(
            "syscall",
            inout("rax") number as isize => result,
            in("rdi") a,
            in("rsi") b,
            in("rdx") c,
            in("r10") d,
            out("rcx") _,
            out("r11") _,
            options(nostack),
        );
    }
    result
}
