//! Starting the helper executable: `vfork()` and `execve()`, without what libc does around them.
//!
//! `execve()` gives a process SIGCHLD as its exit signal (the kernel's `begin_new_exec()`), so the helper
//! must not be nginx's child: its SIGCHLD handler reaps every child and logs those it does not know. So
//! nginx's process makes one that lives for a moment, has no exit signal, which `waitpid(-1)` passes over
//! without `__WALL`, and makes the helper. When that one ends, the helper gets another parent: init,
//! or the process that takes its place. All three share nginx's memory until `execve()`.
//!
//! A worker that serves does not stand still for that: the two run beside it. So what they need is memory of
//! their own, which is theirs until the one between has ended, and they make system calls of `raw` alone.

use core::ffi::{c_char, c_int, c_void};
use core::mem::zeroed;
use core::ptr;
use core::sync::atomic::{AtomicI32, Ordering};
use std::ffi::{CStr, CString};
use std::io;

use super::fd::errno;
use super::raw;
use crate::nginx::failpoint;

/// Bytes of a stack for what runs until `execve()`: some system calls.
const STACK: usize = 8 * 1024;

#[repr(align(16))]
struct Stack(#[allow(dead_code)] [u8; STACK]);

/// An executable to start.
pub struct Command {
    /// The executable, an absolute path.
    pub path: CString,
    /// Its arguments, its name first.
    pub argv: Vec<CString>,
    /// Its whole environment.
    pub envp: Vec<CString>,
    /// The descriptors that it gets.
    pub kept: Vec<c_int>,
    /// Where its pid is recorded.
    pub note: Option<Note>,
}

/// A place in a file: a word, which is written there again, and after it the pid, or 0 if nothing was
/// started.
#[derive(Clone, Copy)]
pub struct Note {
    pub file: c_int,
    pub at: libc::off_t,
    pub word: u32,
}

/// What the two have of nginx's memory.
struct Birth {
    command: Command,
    argv: Vec<*const c_char>,
    envp: Vec<*const c_char>,
    stacks: [Stack; 2],
    /// A pipe of a test's, of which the one between reads a byte first; -1 without.
    #[cfg_attr(not(feature = "failpoints"), allow(dead_code))]
    gate: c_int,
    /// The helper's pid; 0 if there is none.
    pid: AtomicI32,
    /// Why there is none.
    errno: AtomicI32,
}

/// A helper that is being started.
pub struct Launch {
    birth: *mut Birth,
    /// The process between; 0 once it has ended.
    between: libc::pid_t,
    was_killed: bool,
}

impl Command {
    /// Starts it, not as this process's child, with all signals blocked. Where `beside` says so, and this
    /// kind of processor allows it, without waiting until that is done.
    pub fn launch(self, beside: bool) -> io::Result<Launch> {
        let pointers = |strings: &[CString]| -> Vec<*const c_char> {
            strings.iter().map(|s| s.as_ptr()).chain([ptr::null()]).collect()
        };
        let gate = if beside { failpoint::gate() } else { -1 };
        let birth = Box::into_raw(Box::new(Birth {
            argv: pointers(&self.argv),
            envp: pointers(&self.envp),
            command: self,
            stacks: [const { Stack([0; STACK]) }; 2],
            gate,
            pid: AtomicI32::new(0),
            errno: AtomicI32::new(0),
        }));
        let mut flags = libc::CLONE_VM;
        if !(beside && raw::IS_RAW) {
            flags |= libc::CLONE_VFORK;
        }
        // nginx's handlers must not run in a process that shares its memory, and what is sent to all of
        // nginx is not meant for the helper.
        let mask = block_signals();
        // SAFETY: the stack and all that the function reads stay until the process has ended: `Launch`.
        let between = unsafe { raw::clone(flags, stack(birth, 0), go_between, birth.cast()) };
        // SAFETY: the mask is the one that this thread had; the descriptor is this function's.
        unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, &mask, ptr::null_mut());
            if gate != -1 {
                libc::close(gate);
            }
        }
        let launch = Launch { birth, between: between.max(0) as libc::pid_t, was_killed: false };
        if between < 0 {
            return Err(io::Error::from_raw_os_error(between.wrapping_neg() as i32));
        }
        Ok(launch)
    }
}

impl Launch {
    /// Whether it has come to its end, so that `result` is known. Does not wait.
    pub fn has_ended(&mut self) -> bool {
        self.reap(libc::WNOHANG)
    }

    /// Waits until it has come to its end. The helper's pid.
    pub fn wait(&mut self) -> io::Result<libc::pid_t> {
        self.reap(0);
        let (pid, errno) = self.result();
        if errno == 0 {
            Ok(pid)
        } else {
            Err(io::Error::from_raw_os_error(errno))
        }
    }

    /// The executable.
    pub fn path(&self) -> &CStr {
        // SAFETY: this is freed in `drop` alone, and nothing writes to the command.
        unsafe { &(*self.birth).command.path }
    }

    fn result(&self) -> (libc::pid_t, i32) {
        // SAFETY: as above; both words are atomic.
        unsafe {
            let load = |word: *const AtomicI32| (*word).load(Ordering::Acquire);
            (load(&raw const (*self.birth).pid), load(&raw const (*self.birth).errno))
        }
    }

    /// Reaps the process between, which has no exit signal, so that no other code does. True if it has ended.
    fn reap(&mut self, options: c_int) -> bool {
        while self.between != 0 {
            let mut status = 0;
            // SAFETY: a valid place for the status.
            match unsafe { libc::waitpid(self.between, &mut status, options | libc::__WALL) } {
                0 => return false,
                -1 if errno() == libc::EINTR => continue,
                _ => {
                    self.between = 0;
                    self.was_killed = libc::WIFSIGNALED(status);
                }
            }
        }
        true
    }
}

impl Drop for Launch {
    fn drop(&mut self) {
        self.reap(0);
        // If the one between was killed, the helper may still be on its stack for a moment: that
        // memory is never given back.
        if !self.was_killed {
            // SAFETY: made by Box::into_raw, and the processes that shared it have ended or become others.
            drop(unsafe { Box::from_raw(self.birth) });
        }
    }
}

/// The end of a stack, which grows down.
fn stack(birth: *mut Birth, index: usize) -> *mut c_void {
    // SAFETY: within the Birth, which lives; `index` is 0 or 1.
    unsafe { (&raw mut (*birth).stacks).cast::<Stack>().add(index.saturating_add(1)).cast() }
}

/// Makes the helper. Runs in the memory of nginx's process.
unsafe extern "C" fn go_between(birth: *mut c_void) -> c_int {
    let birth = birth.cast::<Birth>();
    // SAFETY: the Birth of `launch`, which stays until this process has ended; this process waits for the
    // next until `execve()`.
    unsafe {
        #[cfg(feature = "failpoints")]
        if (*birth).gate != -1 {
            raw::pass((*birth).gate);
        }
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_FILES | libc::CLONE_FS;
        let result = raw::clone(flags, stack(birth, 1), become_helper, birth.cast());
        let mut pid = 0;
        if result < 0 {
            (*birth).errno.store(result.wrapping_neg() as i32, Ordering::Release);
        } else if (*birth).errno.load(Ordering::Acquire) != 0 {
            raw::wait(result as i32);
        } else {
            pid = result as i32;
            (*birth).pid.store(pid, Ordering::Release);
        }
        if let Some(Note { file, at, word }) = (*birth).command.note {
            let words = [word, pid as u32];
            raw::pwrite(file, words.as_ptr().cast(), size_of_val(&words), at);
        }
    }
    0
}

/// Becomes the helper. Runs in the memory of nginx's process, with the descriptors of the one between.
unsafe extern "C" fn become_helper(birth: *mut c_void) -> c_int {
    let birth = birth.cast::<Birth>();
    // SAFETY: as above; the strings end with zero bytes and the lists with null.
    unsafe {
        let command = &raw const (*birth).command;
        for &fd in &(*command).kept {
            raw::keep(fd);
        }
        let (argv, envp) = ((*birth).argv.as_ptr(), (*birth).envp.as_ptr());
        let errno = raw::execve((*command).path.as_ptr(), argv, envp);
        (*birth).errno.store(errno, Ordering::Release);
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
