//! The clocks: wall for people, monotonic for heartbeats, since-boot to tell processes apart.

use core::mem::MaybeUninit;

use roster::Now;

fn milliseconds(clock: libc::clockid_t) -> i64 {
    let mut time = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: clock_gettime fills the structure; with these clocks and a valid pointer it can't
    // fail, and if it ever did, zero is a time too.
    let time = unsafe {
        if libc::clock_gettime(clock, time.as_mut_ptr()) != 0 {
            return 0;
        }
        time.assume_init()
    };
    time.tv_sec as i64 * 1000 + time.tv_nsec as i64 / 1_000_000
}

/// Milliseconds of the clock that no administrator sets and that stands still while the machine
/// sleeps.
pub fn monotonic() -> u64 {
    milliseconds(libc::CLOCK_MONOTONIC) as u64
}

/// The time of a transition, on all clocks.
pub fn now() -> Now {
    Now {
        wall: milliseconds(libc::CLOCK_REALTIME),
        monotonic: monotonic(),
        since_boot: milliseconds(libc::CLOCK_BOOTTIME) as u64,
    }
}
