//! A timer of nginx's event loop in a static.

use core::ffi::c_void;

use ngx::ffi::{
    ngx_add_timer, ngx_connection_t, ngx_current_msec, ngx_del_timer, ngx_event_t, ngx_msec_t,
};

use crate::log::Log;

/// A timer. nginx reads `data` as a connection when it logs at debug level.
pub struct Timer {
    event: ngx_event_t,
    connection: ngx_connection_t,
}

impl Timer {
    /// One that was never armed.
    pub const fn new() -> Timer {
        // SAFETY: an event and a connection are plain data, and all zeros is how nginx itself makes
        // them.
        unsafe { core::mem::zeroed() }
    }

    /// Lets the handler be called in `after` milliseconds, whatever was arranged before.
    ///
    /// # Safety
    /// `timer` points to a static, and this thread runs the event loop.
    pub unsafe fn arm(
        timer: *mut Timer,
        after: ngx_msec_t,
        handler: unsafe extern "C" fn(*mut ngx_event_t),
        log: Log,
    ) {
        // SAFETY: the caller vouches for the timer.
        unsafe {
            // nginx keeps an earlier setting that is near enough; here the new one counts.
            Timer::disarm(timer);
            let event = &raw mut (*timer).event;
            (*timer).connection.fd = -1;
            (*event).data = (&raw mut (*timer).connection).cast::<c_void>();
            (*event).handler = Some(handler);
            (*event).log = log.as_ptr();
            // A worker that shuts down gracefully does not wait for it: ngx_event_no_timers_left().
            (*event).set_cancelable(1);
            ngx_add_timer(event, after);
        }
    }

    /// The same, and a worker that shuts down gracefully waits for it.
    ///
    /// # Safety
    /// As for `arm`.
    pub unsafe fn arm_and_hold(
        timer: *mut Timer,
        after: ngx_msec_t,
        handler: unsafe extern "C" fn(*mut ngx_event_t),
        log: Log,
    ) {
        // SAFETY: the caller vouches for the timer.
        unsafe {
            Timer::arm(timer, after, handler, log);
            (*timer).event.set_cancelable(0);
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
            let key = ngx_current_msec.wrapping_add(after);
            (*timer).event.timer_set() != 0
                && (*timer).event.timer.key.wrapping_sub(key) as isize <= 0
        }
    }
}
