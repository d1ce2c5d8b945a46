//! The clocks: wall for people, monotonic for heartbeats, since-boot to tell processes apart.

use core::mem::MaybeUninit;
use core::time::Duration;

use roster::Now;

fn read(clock: libc::clockid_t) -> Duration {
    let mut time = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: clock_gettime fills the structure; with these clocks and a valid pointer it can't
    // fail, and if it ever did, zero is a time too.
    let time = unsafe {
        if libc::clock_gettime(clock, time.as_mut_ptr()) != 0 {
            return Duration::ZERO;
        }
        time.assume_init()
    };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Milliseconds of the clock that no administrator sets and that stands still while the machine
/// sleeps.
pub fn monotonic() -> u64 {
    read(libc::CLOCK_MONOTONIC).as_millis() as u64
}

/// Microseconds of the same clock, to measure how long something takes.
pub fn microseconds() -> u64 {
    read(libc::CLOCK_MONOTONIC).as_micros() as u64
}

/// The time of a transition, on all clocks.
pub fn now() -> Now {
    Now {
        wall: read(libc::CLOCK_REALTIME).as_millis() as i64,
        monotonic: monotonic(),
        since_boot: read(libc::CLOCK_BOOTTIME).as_millis() as u64,
    }
}
