//! The node's lock: a robust mutex in the zone.
//!
//! nginx's own slab mutex is freed by a living master only, and never while that master waits for
//! it (`ngx_unlock_mutexes` runs from its SIGCHLD handler, which is blocked then). The kernel frees
//! a robust mutex at the moment its holder dies, whoever else lives.

use core::cell::UnsafeCell;
use core::mem::{size_of, MaybeUninit};
use core::time::Duration;

/// The mutex as it lies in the zone. Its place is larger than any libc's `pthread_mutex_t`.
#[repr(C, align(8))]
pub struct Lock(UnsafeCell<[u8; Lock::SIZE]>);

const _: () = assert!(size_of::<libc::pthread_mutex_t>() <= Lock::SIZE);

// SAFETY: the mutex is process-shared; all access goes through the pthread functions.
unsafe impl Sync for Lock {}

/// How the lock was found when it was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// Left in order.
    Clean,
    /// Its holder died holding it. Until [`Lock::mended`] is called, the next one learns it too.
    HolderDied,
}

impl Lock {
    const SIZE: usize = 64;
    /// How long a waiter sleeps at a time. A wake-up that got lost with a dying process delays
    /// nobody for longer.
    const SLICE: Duration = Duration::from_millis(50);

    fn mutex(&self) -> *mut libc::pthread_mutex_t {
        self.0.get().cast()
    }

    /// Makes the mutex, once, before anybody else knows of it. The error is an errno.
    pub fn create(&self) -> Result<(), i32> {
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
            made
        }
    }

    /// Takes the lock if it is free. The error is an errno, EBUSY if it is not.
    pub fn try_take(&self) -> Result<Taken, i32> {
        // SAFETY: `create` has made the mutex.
        taken(unsafe { libc::pthread_mutex_trylock(self.mutex()) })
    }

    /// Takes the lock, asleep until it is free. `waiting` is called about every 50 ms.
    pub fn take(&self, waiting: &mut dyn FnMut()) -> Result<Taken, i32> {
        match self.try_take() {
            Err(libc::EBUSY) => {}
            taken => return taken,
        }
        loop {
            let until = deadline(Self::SLICE);
            // SAFETY: `create` has made the mutex; the deadline is a valid time.
            match unsafe { libc::pthread_mutex_timedlock(self.mutex(), &until) } {
                libc::ETIMEDOUT => waiting(),
                result => return taken(result),
            }
        }
    }

    /// Says that what the lock guards is in order again, after [`Taken::HolderDied`].
    pub fn mended(&self) {
        // SAFETY: the caller holds the lock. It can only fail if there was nothing to mend.
        unsafe { libc::pthread_mutex_consistent(self.mutex()) };
    }

    /// Lets go.
    pub fn release(&self) {
        // SAFETY: the caller holds the lock; if it did not, an error-checking mutex says so and
        // nothing happens.
        unsafe { libc::pthread_mutex_unlock(self.mutex()) };
    }
}

fn check(result: i32) -> Result<(), i32> {
    if result == 0 {
        Ok(())
    } else {
        Err(result)
    }
}

fn taken(result: i32) -> Result<Taken, i32> {
    match result {
        0 => Ok(Taken::Clean),
        libc::EOWNERDEAD => Ok(Taken::HolderDied),
        errno => Err(errno),
    }
}

/// `pthread_mutex_timedlock` knows only the wall clock (the monotonic variant is not in musl). A
/// step of that clock makes one wait shorter or longer; the mutex itself wakes its waiters.
fn deadline(after: Duration) -> libc::timespec {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the structure is valid and the clock exists.
    unsafe { libc::clock_gettime(libc::CLOCK_REALTIME, &mut time) };
    let nanoseconds = time.tv_nsec as u64 + u64::from(after.subsec_nanos());
    time.tv_sec += after.as_secs() as libc::time_t + (nanoseconds / 1_000_000_000) as libc::time_t;
    time.tv_nsec = (nanoseconds % 1_000_000_000) as _;
    time
}
