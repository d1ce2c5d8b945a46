//! A mutex in shared memory that is free again when its holder dies, however it dies.
//!
//! The kernel frees a robust mutex of a process that dies: it walks through a list in the memory of that
//! process, `exit_robust_list` in kernel/futex. Nothing frees it if that memory is reaped before the
//! process gets there, by the kernel's OOM reaper or by `process_mrelease`. So a waiter looks whether the
//! holder still lives, and if not does what the kernel would have done, `handle_futex_death`.

use core::cell::UnsafeCell;
use core::mem::{size_of, MaybeUninit};
use core::ptr;
use core::sync::atomic::{
    fence, AtomicU32, AtomicU64,
    Ordering::{Acquire, Relaxed, SeqCst},
};
use core::time::Duration;
use std::io;

use thiserror::Error;

use crate::process;

/// The mutex as it lies in shared memory. All of it may be zeros before `create`.
#[derive(Debug)]
#[repr(C, align(8))]
pub struct RobustMutex {
    /// More than any libc's `pthread_mutex_t` takes.
    mutex: UnsafeCell<[u8; RobustMutex::SIZE]>,
    /// The holder and since when it holds the mutex, see `Holder::pack`; 0 without one, or not yet.
    holder: AtomicU64,
    /// Where in the mutex the word lies that the kernel knows, and 1; 0 if that is not known.
    word: AtomicU32,
    spare: AtomicU32,
}

const _: () = assert!(size_of::<libc::pthread_mutex_t>() <= RobustMutex::SIZE);
const _: () = assert!(size_of::<RobustMutex>() == 80);

// SAFETY: the mutex is process-shared; all access goes through the pthread functions and atomics.
unsafe impl Sync for RobustMutex {}

/// How the mutex was found when it was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// Left in order.
    Clean,
    /// Its holder died holding it. Until [`RobustMutex::mended`] is called, the next one learns it too.
    HolderDied,
}

/// Why the mutex was not taken.
#[derive(Debug, Error)]
pub enum MutexError {
    /// Another thread holds it.
    #[error("the mutex is held")]
    Busy,
    /// The caller did not want to wait any longer.
    #[error("the wait for the mutex was given up")]
    Cancelled,
    /// libc refuses, for instance because this thread holds it already (EDEADLK).
    #[error(transparent)]
    Os(io::Error),
}

impl MutexError {
    /// The errno that libc has for it.
    pub fn raw_os_error(&self) -> Option<i32> {
        match self {
            MutexError::Busy => Some(libc::EBUSY),
            MutexError::Cancelled => Some(libc::ECANCELED),
            MutexError::Os(error) => error.raw_os_error(),
        }
    }
}

/// The thread that holds the mutex.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The thread; of a process with one thread, the process.
    pub tid: i32,
    /// When it took the mutex, milliseconds since boot, sleep included.
    pub since_boot: u64,
}

impl Holder {
    /// The largest that a kernel can be set to give is 2^22.
    const TID_BITS: u32 = 23;

    fn pack(self) -> u64 {
        self.since_boot << Self::TID_BITS | u64::from(self.tid as u32)
    }

    fn unpack(word: u64) -> Option<Holder> {
        let tid = (word & ((1 << Self::TID_BITS) - 1)) as i32;
        (tid != 0).then_some(Holder { tid, since_boot: word >> Self::TID_BITS })
    }
}

/// What the kernel keeps for each thread, `struct robust_list_head`.
#[repr(C)]
struct RobustListHead {
    next: *const u8,
    futex_offset: libc::c_long,
    pending: *const u8,
}

impl RobustMutex {
    const SIZE: usize = 64;
    /// The size of a word, as which it is aligned, and where in the mutex one may lie at the furthest.
    const WORD: usize = size_of::<u32>();
    const LAST_WORD: usize = Self::SIZE - Self::WORD;
    /// How long a waiter sleeps at a time. A wake-up that got lost with a dying process, or a holder
    /// whose robust list did, delays no waiter for longer.
    pub const SLICE: Duration = Duration::from_millis(50);

    fn mutex(&self) -> *mut libc::pthread_mutex_t {
        self.mutex.get().cast()
    }

    /// Makes the mutex, once, before any other thread knows of it.
    pub fn create(&self) -> io::Result<()> {
        let mut attributes = MaybeUninit::<libc::pthread_mutexattr_t>::uninit();
        // SAFETY: init fills the attributes before any other call reads them; the mutex lies in
        // memory that is shared and large enough (asserted above).
        unsafe {
            check(libc::pthread_mutexattr_init(attributes.as_mut_ptr()))?;
            let attributes = attributes.as_mut_ptr();
            let made =
                check(libc::pthread_mutexattr_setpshared(attributes, libc::PTHREAD_PROCESS_SHARED))
                    .and_then(|()| {
                        check(libc::pthread_mutexattr_setrobust(
                            attributes,
                            libc::PTHREAD_MUTEX_ROBUST,
                        ))
                    })
                    // A callback that takes the lock again gets an error instead of hanging.
                    .and_then(|()| {
                        check(libc::pthread_mutexattr_settype(
                            attributes,
                            libc::PTHREAD_MUTEX_ERRORCHECK,
                        ))
                    })
                    .and_then(|()| check(libc::pthread_mutex_init(self.mutex(), attributes)));
            libc::pthread_mutexattr_destroy(attributes);
            made?;
        }
        self.word.store(self.find_word(), Relaxed);
        Ok(())
    }

    /// Where the word lies that the kernel knows, and 1: at the start in glibc, 4 bytes further in musl.
    /// Taken from the robust list, which libc gives to the kernel, and believed only if the word behaves so;
    /// otherwise 0.
    fn find_word(&self) -> u32 {
        let mut head: *const RobustListHead = ptr::null();
        let mut length = 0usize;
        // SAFETY: the mutex was made and no other thread knows of it. The kernel fills both places, and the
        // list is this thread's own, whose first entry is the mutex taken last.
        unsafe {
            if libc::pthread_mutex_trylock(self.mutex()) != 0 {
                return 0;
            }
            let asked = libc::syscall(libc::SYS_get_robust_list, 0, &raw mut head, &raw mut length);
            let mut offset = usize::MAX;
            if asked == 0 && length == size_of::<RobustListHead>() && !head.is_null() {
                // The lowest bit of an entry says that the mutex inherits priorities.
                let entry = ((*head).next as usize) & !1;
                let word = entry.wrapping_add_signed((*head).futex_offset as isize);
                offset = word.wrapping_sub(self.mutex() as usize);
            }
            let fits = offset <= Self::LAST_WORD && offset % Self::WORD == 0;
            let held = fits && self.word_at(offset).load(Acquire) == tid() as u32;
            libc::pthread_mutex_unlock(self.mutex());
            if held && self.word_at(offset).load(Acquire) == 0 {
                (offset as u32).saturating_add(1)
            } else {
                0
            }
        }
    }

    /// # Safety
    /// The offset is that of an aligned word inside the mutex.
    unsafe fn word_at(&self, offset: usize) -> &AtomicU32 {
        // SAFETY: the caller vouches for the offset; libc uses the word as an atomic, too.
        unsafe { AtomicU32::from_ptr(self.mutex.get().cast::<u8>().add(offset).cast()) }
    }

    fn word(&self) -> Option<&AtomicU32> {
        let offset = self.word.load(Relaxed).checked_sub(1)? as usize;
        // SAFETY: `find_word` has found it there.
        (offset <= Self::LAST_WORD).then(|| unsafe { self.word_at(offset) })
    }

    /// Whether a mutex whose holder's robust list is lost can be freed: where the word lies that the
    /// kernel knows could be found out.
    pub fn is_repairable(&self) -> bool {
        self.word().is_some()
    }

    /// The holder of the mutex, as far as it has had the time to write that down.
    pub fn holder(&self) -> Option<Holder> {
        Holder::unpack(self.holder.load(Acquire))
    }

    /// Takes the mutex if it is free.
    pub fn try_take(&self) -> Result<Taken, MutexError> {
        self.forget_namesake();
        // SAFETY: `create` has made the mutex.
        let try_lock = || unsafe { libc::pthread_mutex_trylock(self.mutex()) };
        match try_lock() {
            // Deadlock: its holder died and had the id that this thread has now.
            libc::EBUSY | libc::EDEADLK if self.repair() => self.taken(try_lock()),
            result => self.taken(result),
        }
    }

    /// Takes the mutex, asleep until it is free. `go_on` is called about every 50 ms and says whether to
    /// wait on.
    pub fn take(&self, go_on: &mut dyn FnMut() -> bool) -> Result<Taken, MutexError> {
        match self.try_take() {
            Err(MutexError::Busy) => {}
            taken => return taken,
        }
        loop {
            let until = deadline(Self::SLICE);
            // SAFETY: `create` has made the mutex; the deadline is a valid time.
            match unsafe { libc::pthread_mutex_timedlock(self.mutex(), &until) } {
                libc::ETIMEDOUT => {
                    if !go_on() {
                        return Err(MutexError::Cancelled);
                    }
                    self.repair();
                }
                result => return self.taken(result),
            }
        }
    }

    /// What an attempt has come to, by what libc returned.
    fn taken(&self, result: i32) -> Result<Taken, MutexError> {
        let taken = match result {
            0 => Taken::Clean,
            libc::EOWNERDEAD => Taken::HolderDied,
            libc::EBUSY => return Err(MutexError::Busy),
            errno => return Err(MutexError::Os(io::Error::from_raw_os_error(errno))),
        };
        let me = Holder { tid: tid(), since_boot: now() };
        self.holder.store(me.pack(), SeqCst);
        Ok(taken)
    }

    /// Makes known that what the mutex guards is in order again, after [`Taken::HolderDied`].
    pub fn mended(&self) {
        // SAFETY: the caller holds the mutex. It can only fail if there was nothing to mend.
        unsafe { libc::pthread_mutex_consistent(self.mutex()) };
    }

    /// Lets go.
    pub fn release(&self) {
        self.holder.store(0, SeqCst);
        // SAFETY: the caller holds the mutex; if it did not, an error-checking mutex says so and
        // nothing happens.
        unsafe { libc::pthread_mutex_unlock(self.mutex()) };
    }

    /// Clears what a dead holder of this thread's id has left: this thread, once it holds the mutex, would
    /// seem to have begun after it took it, until it has written down when that was.
    fn forget_namesake(&self) {
        let left = self.holder.load(Acquire);
        let Some(holder) = Holder::unpack(left).filter(|holder| holder.tid == tid()) else {
            return;
        };
        if process::is_gone(holder.tid, holder.since_boot) {
            self.free(holder.tid);
            let _ = self.holder.compare_exchange(left, 0, SeqCst, Relaxed);
        }
        fence(SeqCst);
    }

    /// If the holder is gone and the kernel has not freed the mutex, does that. True if so.
    ///
    /// The kernel walks the robust list before a dead process is a zombie (`exit_mm_release` comes before
    /// `exit_notify`), so it will not any more; if it does all the same, or another waiter does, only one
    /// of them finds the word as it was.
    fn repair(&self) -> bool {
        let Some(word) = self.word() else {
            return false;
        };
        let owner = (word.load(SeqCst) & libc::FUTEX_TID_MASK) as i32;
        if owner == 0 {
            return false;
        }
        fence(SeqCst);
        // An owner that has not written down yet when it took the mutex is judged by its id alone.
        let said = self.holder().filter(|holder| holder.tid == owner);
        let since_boot = said.map_or(u64::MAX, |holder| holder.since_boot);
        process::is_gone(owner, since_boot) && self.free(owner)
    }

    /// What the kernel does for a thread that died holding the mutex, `handle_futex_death`. True if the
    /// mutex was still held by it.
    fn free(&self, owner: i32) -> bool {
        let Some(word) = self.word() else {
            return false;
        };
        let freed = word.fetch_update(SeqCst, Acquire, |held| {
            (held & libc::FUTEX_TID_MASK == owner as u32)
                .then_some(held & libc::FUTEX_WAITERS | libc::FUTEX_OWNER_DIED)
        });
        match freed {
            Ok(held) if held & libc::FUTEX_WAITERS != 0 => {
                // SAFETY: the word is a futex that processes share; one waiter is woken.
                unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, 1) };
                true
            }
            freed => freed.is_ok(),
        }
    }
}

/// The pthread functions return an errno, 0 for success.
fn check(result: i32) -> io::Result<()> {
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(result))
    }
}

fn tid() -> i32 {
    // SAFETY: gettid has no preconditions and can't fail.
    unsafe { libc::syscall(libc::SYS_gettid) as i32 }
}

fn clock(id: libc::clockid_t) -> libc::timespec {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the structure is valid and the clock exists.
    unsafe { libc::clock_gettime(id, &mut time) };
    time
}

/// Milliseconds since boot, sleep included, as the start times in /proc.
fn now() -> u64 {
    let time = clock(libc::CLOCK_BOOTTIME);
    (time.tv_sec as u64).saturating_mul(1000).saturating_add(time.tv_nsec as u64 / 1_000_000)
}

/// `pthread_mutex_timedlock` knows only the wall clock (the monotonic variant is not in musl). A
/// step of that clock makes one wait shorter or longer; the mutex itself wakes its waiters.
fn deadline(after: Duration) -> libc::timespec {
    let mut time = clock(libc::CLOCK_REALTIME);
    let nanoseconds = (time.tv_nsec as u64).saturating_add(u64::from(after.subsec_nanos()));
    let seconds = after.as_secs().saturating_add(nanoseconds / 1_000_000_000);
    time.tv_sec = time.tv_sec.saturating_add(seconds as libc::time_t);
    time.tv_nsec = (nanoseconds % 1_000_000_000) as _;
    time
}

#[cfg(test)]
mod tests;
