//! A timer of nginx's event loop in a static.
//!
//! With `timer_resolution` nginx looks at its timers at the tick of a signal only. Who comes back to an
//! event that others wait for can't wait for that, so the time then comes from a descriptor, a timerfd of
//! the kernel's. Without, nginx's timers cost no system call and no descriptor.

use core::ffi::c_void;
use core::ptr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use ngx::ffi::{
    ngx_add_timer, ngx_connection_t, ngx_current_msec, ngx_del_timer, ngx_event_t, ngx_msec_t,
};

use super::descriptor::Descriptor;
use crate::nginx::clock;
use crate::nginx::failpoint::simulated;
use crate::nginx::log::Log;
use crate::nginx::process;

type Handler = unsafe extern "C" fn(*mut ngx_event_t);

/// A timer. nginx reads `data` as a connection when it logs at debug level.
pub struct Timer {
    event: ngx_event_t,
    connection: ngx_connection_t,
    /// The kernel's timer, and when it is due (monotonic clock, milliseconds; 0 for never).
    kernel: Descriptor,
    due: u64,
    handler: Option<Handler>,
}

/// How much later than it should the event loop may call a timer of this module, milliseconds: up to a tick
/// of `timer_resolution`, with another event method than epoll.
pub fn delay() -> u64 {
    if is_kernels_usable() {
        return 0;
    }
    process::timer_resolution()
}

/// Whether the event loop can wait for a timer of the kernel's.
fn is_kernels_usable() -> bool {
    Descriptor::is_supported() && !simulated("no-timerfd")
}

impl Timer {
    /// One that was never armed.
    pub const fn new() -> Timer {
        // SAFETY: an event and a connection are plain data, and all zeros is how nginx itself makes
        // them; zeros are also no descriptor and no handler.
        unsafe { core::mem::zeroed() }
    }

    /// Lets the handler be called in `after` milliseconds, whatever was arranged before. A worker that
    /// shuts down gracefully does not wait for it.
    ///
    /// # Safety
    /// `timer` points to a static, and this thread runs the event loop.
    pub unsafe fn arm(timer: *mut Timer, after: ngx_msec_t, handler: Handler, log: Log) {
        // SAFETY: the caller vouches for the timer.
        unsafe {
            // nginx keeps an earlier setting that is near enough; here the new one counts.
            Timer::disarm(timer);
            if Timer::arm_kernel(timer, after as u64, handler, log) {
                return;
            }
            Timer::add(timer, after, handler, log);
            // ngx_event_no_timers_left() passes over it.
            (*timer).event.set_cancelable(1);
        }
    }

    /// The same, by nginx's own timers, and a worker that shuts down gracefully waits for it.
    ///
    /// # Safety
    /// As for `arm`.
    pub unsafe fn arm_and_hold(timer: *mut Timer, after: ngx_msec_t, handler: Handler, log: Log) {
        // SAFETY: the caller vouches for the timer.
        unsafe {
            Timer::disarm(timer);
            Timer::add(timer, after, handler, log);
            (*timer).event.set_cancelable(0);
        }
    }

    /// # Safety
    /// As for `arm`.
    unsafe fn add(timer: *mut Timer, after: ngx_msec_t, handler: Handler, log: Log) {
        // SAFETY: the caller vouches for the timer, which is not in the tree.
        unsafe {
            let event = &raw mut (*timer).event;
            (*timer).connection.fd = -1;
            (*event).data = (&raw mut (*timer).connection).cast::<c_void>();
            (*event).handler = Some(handler);
            (*event).log = log.as_ptr();
            ngx_add_timer(event, after);
        }
    }

    /// Arms the kernel's timer, if that is needed and possible.
    ///
    /// # Safety
    /// As for `arm`.
    unsafe fn arm_kernel(timer: *mut Timer, after: u64, handler: Handler, log: Log) -> bool {
        if process::timer_resolution() == 0 || !is_kernels_usable() {
            return false;
        }
        // SAFETY: the caller vouches for the timer; timerfd_create has no preconditions, and what it
        // opens is this function's.
        unsafe {
            let kernel = &raw mut (*timer).kernel;
            if (*kernel).fd().is_none() {
                let flags = libc::TFD_CLOEXEC | libc::TFD_NONBLOCK;
                let fd = libc::timerfd_create(libc::CLOCK_MONOTONIC, flags);
                if fd < 0 {
                    return false;
                }
                let fd = OwnedFd::from_raw_fd(fd);
                if Descriptor::open(kernel, fd, on_expired, timer.cast(), log).is_err() {
                    return false;
                }
            }
            (*timer).handler = Some(handler);
            // 0 would disarm it.
            let after = after.max(1);
            if !Timer::set_kernel(timer, after) {
                return false;
            }
            (*timer).due = clock::monotonic().saturating_add(after);
        }
        true
    }

    /// Sets the kernel's timer, if there is one; 0 disarms it.
    ///
    /// # Safety
    /// As for `arm`.
    unsafe fn set_kernel(timer: *mut Timer, after: u64) -> bool {
        let never = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let once = libc::timespec {
            tv_sec: (after / 1000) as libc::time_t,
            tv_nsec: (after % 1000 * 1_000_000) as _,
        };
        let setting = libc::itimerspec { it_interval: never, it_value: once };
        // SAFETY: the caller vouches for the timer; the structure is valid.
        unsafe {
            (*timer).kernel.fd().is_some_and(|fd| {
                libc::timerfd_settime(fd.as_raw_fd(), 0, &setting, ptr::null_mut()) == 0
            })
        }
    }

    /// Takes it out of the event loop.
    ///
    /// # Safety
    /// As for `arm`.
    pub unsafe fn disarm(timer: *mut Timer) {
        // SAFETY: the caller vouches for the timer; timer_set says whether it is in the tree.
        unsafe {
            if (*timer).event.timer_set() != 0 {
                ngx_del_timer(&raw mut (*timer).event);
            }
            if core::mem::take(&mut (*timer).due) != 0 {
                Timer::set_kernel(timer, 0);
            }
        }
    }

    /// Whether it will be called in `after` milliseconds or earlier.
    ///
    /// # Safety
    /// As for `arm`.
    pub unsafe fn is_due_within(timer: *const Timer, after: ngx_msec_t) -> bool {
        // SAFETY: the caller vouches for the timer. The keys are times of nginx's clock, which may
        // wrap.
        unsafe {
            if (*timer).due != 0 {
                return (*timer).due <= clock::monotonic().saturating_add(after as u64);
            }
            let key = ngx_current_msec.wrapping_add(after);
            (*timer).event.timer_set() != 0
                && (*timer).event.timer.key.wrapping_sub(key) as isize <= 0
        }
    }
}

/// The kernel's timer has expired.
unsafe extern "C" fn on_expired(event: *mut ngx_event_t) {
    // SAFETY: the owner is the timer, a static.
    unsafe {
        let timer = Descriptor::owner(event).cast::<Timer>();
        let mut count = 0u64;
        let size = size_of::<u64>();
        let read = (*timer)
            .kernel
            .fd()
            .map(|fd| libc::read(fd.as_raw_fd(), (&raw mut count).cast(), size));
        // It was armed anew meanwhile, or disarmed.
        if read != Some(size as isize) || core::mem::take(&mut (*timer).due) == 0 {
            return;
        }
        if let Some(handler) = (*timer).handler {
            handler(event);
        }
    }
}
