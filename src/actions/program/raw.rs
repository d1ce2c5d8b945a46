//! System calls of a process that shares the memory of a thread of nginx's which goes on running. libc would
//! leave their errors in `errno`, which is that thread's.

use core::ffi::{c_char, c_int, c_long, c_void};

/// Whether that holds here. On other processors libc makes the calls, and nginx's thread has to stand still.
pub const IS_RAW: bool = cfg!(any(target_arch = "x86_64", target_arch = "aarch64"));

/// What a new process runs; its exit code.
pub type Main = unsafe extern "C" fn(*mut c_void) -> c_int;

/// Makes a process that runs `main(argument)` on a stack of its own and exits with what that returns. Its
/// pid, or an errno as a negative number.
///
/// # Safety
/// `stack` is the end of enough memory, 16 bytes aligned, that is nobody else's as long as the process lives.
/// With CLONE_VM `main` makes system calls of this file alone.
pub unsafe fn clone(flags: c_int, stack: *mut c_void, main: Main, argument: *mut c_void) -> isize {
    #[cfg(target_arch = "x86_64")]
    {
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
    #[cfg(target_arch = "aarch64")]
    {
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
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    {
        // libc's type says that the function is safe to call, which it leaves to this function's caller.
        // SAFETY: the two types of functions differ in nothing else.
        let main: extern "C" fn(*mut c_void) -> c_int = unsafe { core::mem::transmute(main) };
        // SAFETY: the caller vouches for the stack and the function.
        match unsafe { libc::clone(main, stack, flags, argument) } {
            -1 => -(super::fd::errno() as isize),
            pid => pid as isize,
        }
    }
}

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
    unsafe { -call(libc::SYS_execve, [path as usize, argv as usize, envp as usize, 0]) as i32 }
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

/// Writes to a file at a place.
///
/// # Safety
/// As for libc's function.
pub unsafe fn pwrite(fd: c_int, bytes: *const u8, count: usize, at: libc::off_t) {
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    // SAFETY: the caller vouches for the bytes.
    unsafe {
        call(libc::SYS_pwrite64, [fd as usize, bytes as usize, count, at as usize]);
    }
    // Elsewhere the kernel may want the offset in two parts.
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    // SAFETY: the caller vouches for the bytes.
    unsafe {
        libc::pwrite(fd, bytes.cast(), count, at);
    }
}

/// A system call; an error is a negative number.
///
/// # Safety
/// As for that call.
unsafe fn call(number: c_long, arguments: [usize; 4]) -> isize {
    let [a, b, c, d] = arguments;
    #[cfg(target_arch = "x86_64")]
    {
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
    #[cfg(target_arch = "aarch64")]
    {
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
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    {
        // SAFETY: the caller vouches for it.
        match unsafe { libc::syscall(number, a, b, c, d) } {
            -1 => -(super::fd::errno() as isize),
            result => result as isize,
        }
    }
}
