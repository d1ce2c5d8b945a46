//! Starting the helper executable: `vfork()` and `execve()`, without what libc does around them.
//!
//! `execve()` gives a process SIGCHLD as its exit signal (the kernel's `begin_new_exec()`), so the helper
//! must not be nginx's child: its SIGCHLD handler reaps every child and logs those it does not know. So
//! nginx's process makes one that lives for a moment, has no exit signal, which `waitpid(-1)` passes over
//! without `__WALL`, and makes the helper. When that one ends, the helper gets another parent: init,
//! or who takes its place. All three share nginx's memory until `execve()`, and run one after the other.

use core::ffi::{c_char, c_int, c_void, CStr};
use core::mem::zeroed;
use core::ptr;
use std::cell::UnsafeCell;
use std::ffi::CString;

use super::fd::errno;
use crate::nginx::process::PerProcess;

/// Bytes of a stack for what runs until `execve()`: some system calls.
const STACK: usize = 16 * 1024;

#[repr(align(16))]
struct Stacks(#[allow(dead_code)] [u8; 2 * STACK]);

/// The stacks of the two. Not on the heap: if the one between is killed, the helper may still be on its own
/// for a moment.
static STACKS: PerProcess<UnsafeCell<Stacks>> = PerProcess(UnsafeCell::new(Stacks([0; 2 * STACK])));

/// What the two have in common with nginx's process.
struct Birth {
    path: *const c_char,
    argv: *const *const c_char,
    envp: *const *const c_char,
    kept: *const c_int,
    kept_count: usize,
    stack: *mut c_void,
    /// The helper's pid; 0 if there is none.
    pid: libc::pid_t,
    /// Why there is none.
    errno: c_int,
}

/// Starts an executable that is not this process's child, with all signals blocked, and with the
/// descriptors in `kept`. Its pid; 0 if it is not known. The error is an errno.
pub fn spawn(
    path: &CStr,
    argv: &[CString],
    envp: &[CString],
    kept: &[c_int],
) -> Result<libc::pid_t, i32> {
    let pointers = |strings: &[CString]| -> Vec<*const c_char> {
        strings.iter().map(|s| s.as_ptr()).chain([ptr::null()]).collect()
    };
    let (argv, envp) = (pointers(argv), pointers(envp));
    let stacks = STACKS.0.get().cast::<u8>();
    // SAFETY: both are within the statics; a stack grows down.
    let (first, second) = unsafe { (stacks.add(STACK), stacks.add(2 * STACK)) };
    let mut birth = Birth {
        path: path.as_ptr(),
        argv: argv.as_ptr(),
        envp: envp.as_ptr(),
        kept: kept.as_ptr(),
        kept_count: kept.len(),
        stack: second.cast(),
        pid: 0,
        errno: 0,
    };
    // nginx's handlers must not run in a process that shares its memory, and what is sent to all of
    // nginx is not meant for the helper.
    let mask = block_signals();
    // It may share the descriptors, since it leaves them as they are.
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_FILES | libc::CLONE_FS;
    // SAFETY: this thread stands still until the new process, on a stack of its own, has ended.
    let between = unsafe { libc::clone(go_between, first.cast(), flags, (&raw mut birth).cast()) };
    if between == -1 {
        birth.errno = errno();
    } else {
        // SAFETY: the child has no exit signal, so nobody else reaps it.
        unsafe { libc::waitpid(between, ptr::null_mut(), libc::__WALL) };
    }
    // SAFETY: the mask is the one that this thread had.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &mask, ptr::null_mut()) };
    // SAFETY: values of this function, which the others have written to.
    let (pid, errno) = unsafe {
        ((&raw const birth.pid).read_volatile(), (&raw const birth.errno).read_volatile())
    };
    if errno == 0 {
        Ok(pid)
    } else {
        Err(errno)
    }
}

/// Makes the helper. Runs in the memory of nginx's process: system calls only.
extern "C" fn go_between(birth: *mut c_void) -> c_int {
    let birth = birth.cast::<Birth>();
    // SAFETY: the Birth of `spawn`, which waits; this process waits for the next until `execve()`.
    unsafe {
        let flags = libc::CLONE_VM | libc::CLONE_VFORK;
        let pid = libc::clone(become_helper, (*birth).stack, flags, birth.cast());
        if pid == -1 {
            (*birth).errno = errno();
        } else if (&raw const (*birth).errno).read_volatile() != 0 {
            libc::waitpid(pid, ptr::null_mut(), libc::__WALL);
        } else {
            (*birth).pid = pid;
        }
    }
    // Not _exit(): libc's clone() makes that system call of the result.
    0
}

/// Becomes the helper. Runs in the memory of nginx's process too, with descriptors of its own.
extern "C" fn become_helper(birth: *mut c_void) -> c_int {
    let birth = birth.cast::<Birth>();
    // SAFETY: as above; the strings end with zero bytes and the lists with null.
    unsafe {
        for n in 0..(*birth).kept_count {
            libc::fcntl(*(*birth).kept.add(n), libc::F_SETFD, 0);
        }
        libc::execve((*birth).path, (*birth).argv, (*birth).envp);
        (*birth).errno = errno();
    }
    127
}

/// Blocks all signals in this thread; what was blocked before.
fn block_signals() -> libc::sigset_t {
    // SAFETY: sigset_t is plain data; both sets are valid, and the call can't fail with them.
    unsafe {
        let (mut all, mut old) = (zeroed(), zeroed());
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut old);
        old
    }
}
