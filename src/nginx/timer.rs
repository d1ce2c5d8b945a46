//! A timer of nginx's event loop.
//!
//! With `timer_resolution` nginx looks at its timers at the tick of a signal only. A process
//! that comes back to an event which others wait for can't wait for that, so the time then comes from a
//! descriptor, a timerfd of the kernel's. Without, nginx's timers cost no system call and no descriptor.

use core::cell::UnsafeCell;
use core::ptr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use ngx::ffi::{
    ngx_add_timer, ngx_connection_t, ngx_current_msec, ngx_del_timer, ngx_event_t,
    ngx_event_timer_rbtree, ngx_msec_t,
};

use super::descriptor::Descriptor;
use crate::nginx::clock;
use crate::nginx::failpoint::simulated;
use crate::nginx::log::Log;
use crate::nginx::main_thread::MainThreadCell;
use crate::nginx::process;

/// A timer, in a static. It does nothing in a process without event loop.
pub struct Timer(UnsafeCell<State>);

/// What nginx has pointers to. It reads `data` of an event as a connection when it logs at debug level; that
/// of the connection is the timer, as for a descriptor.
struct State {
    event: ngx_event_t,
    connection: ngx_connection_t,
    /// The kernel's timer, and when it is due (monotonic clock, milliseconds; 0 for never).
    kernel: Descriptor,
    due: u64,
    handler: Option<fn()>,
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

/// Whether this process has an event loop: `ngx_event_process_init` makes the tree of timers.
pub fn has_event_loop() -> bool {
    // SAFETY: a plain global, which this thread alone writes to.
    unsafe { !ngx_event_timer_rbtree.root.is_null() }
}

impl MainThreadCell<Timer> {
    /// Lets the handler be called in `after` milliseconds, whatever was arranged before. A worker that
    /// shuts down gracefully does not wait for it.
    pub fn arm(&'static self, after: ngx_msec_t, handler: fn(), log: Log) {
        if let Some(timer) = self.here() {
            // nginx keeps an earlier setting that is near enough; here the new one counts.
            timer.disarm();
            if !timer.arm_kernel(after as u64, handler, log) {
                timer.add(after, handler, log, true);
            }
        }
    }

    /// The same, by nginx's own timers, and a worker that shuts down gracefully waits for it.
    pub fn arm_and_hold(&'static self, after: ngx_msec_t, handler: fn(), log: Log) {
        if let Some(timer) = self.here() {
            timer.disarm();
            timer.add(after, handler, log, false);
        }
    }

    /// Takes it out of the event loop.
    pub fn disarm(&'static self) {
        if let Some(timer) = self.here() {
            timer.disarm();
        }
    }

    /// Whether it will be called in `after` milliseconds or earlier.
    pub fn is_due_within(&'static self, after: ngx_msec_t) -> bool {
        self.here().is_some_and(|timer| timer.is_due_within(after))
    }
}

impl Timer {
    /// One that was never armed.
    pub const fn new() -> Timer {
        // SAFETY: an event and a connection are plain data, and all zeros is how nginx itself makes
        // them; zeros are also no descriptor and no handler.
        Timer(UnsafeCell::new(unsafe { core::mem::zeroed() }))
    }

    /// By nginx's own timers.
    fn add(&'static self, after: ngx_msec_t, handler: fn(), log: Log, cancelable: bool) {
        if !has_event_loop() {
            return;
        }
        let state = self.0.get();
        // SAFETY: the main thread's, and nothing refers to the state while this runs. The event is not in
        // nginx's tree, and stays where it is when it is, since it is a static's.
        unsafe {
            (*state).handler = Some(handler);
            (*state).connection.fd = -1;
            (*state).connection.data = ptr::from_ref(self).cast_mut().cast();
            let event = &raw mut (*state).event;
            (*event).data = (&raw mut (*state).connection).cast();
            (*event).handler = Some(on_timer);
            (*event).log = log.as_ptr();
            // ngx_event_no_timers_left() passes over one that is cancelable.
            (*event).set_cancelable(cancelable.into());
            ngx_add_timer(event, after);
        }
    }

    /// Arms the kernel's timer, if that is needed and possible.
    fn arm_kernel(&'static self, after: u64, handler: fn(), log: Log) -> bool {
        if process::timer_resolution() == 0 || !is_kernels_usable() || !self.has_kernel(log) {
            return false;
        }
        // 0 would disarm it.
        let after = after.max(1);
        if !self.set_kernel(after) {
            return false;
        }
        let state = self.0.get();
        // SAFETY: the main thread's, and nothing refers to the state while this runs.
        unsafe {
            (*state).handler = Some(handler);
            (*state).due = clock::monotonic().saturating_add(after);
        }
        true
    }

    /// Whether it has a timer of the kernel's, which is made if need be.
    fn has_kernel(&'static self, log: Log) -> bool {
        if self.kernel().is_some() {
            return true;
        }
        let flags = libc::TFD_CLOEXEC | libc::TFD_NONBLOCK;
        // SAFETY: timerfd_create has no preconditions.
        let fd = unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, flags) };
        if fd < 0 {
            return false;
        }
        // SAFETY: it was just made, and is nobody else's.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let owner = ptr::from_ref(self).cast_mut().cast();
        // SAFETY: the descriptor of a static, which has none, on the main thread, whose event loop uses
        // epoll.
        unsafe {
            let kernel = &raw mut (*self.0.get()).kernel;
            Descriptor::open(kernel, fd, on_expired, owner, log).is_ok()
        }
    }

    fn kernel(&self) -> Option<BorrowedFd<'_>> {
        // SAFETY: the main thread's, and nobody writes to it meanwhile.
        unsafe { (*self.0.get()).kernel.fd() }
    }

    /// Sets the kernel's timer, if there is one; 0 disarms it.
    fn set_kernel(&self, after: u64) -> bool {
        let never = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let after = core::time::Duration::from_millis(after);
        let once = libc::timespec {
            tv_sec: after.as_secs() as libc::time_t,
            tv_nsec: after.subsec_nanos() as _,
        };
        let setting = libc::itimerspec { it_interval: never, it_value: once };
        self.kernel().is_some_and(|fd| {
            // SAFETY: the structure is valid, and the old setting is not asked for.
            unsafe { libc::timerfd_settime(fd.as_raw_fd(), 0, &setting, ptr::null_mut()) == 0 }
        })
    }

    fn disarm(&self) {
        let state = self.0.get();
        // SAFETY: the main thread's; timer_set says whether the event is in the tree.
        let due = unsafe {
            if (*state).event.timer_set() != 0 {
                ngx_del_timer(&raw mut (*state).event);
            }
            core::mem::take(&mut (*state).due)
        };
        if due != 0 {
            self.set_kernel(0);
        }
    }

    fn is_due_within(&self, after: ngx_msec_t) -> bool {
        // SAFETY: the main thread's, and nobody writes to it meanwhile.
        let state = unsafe { &*self.0.get() };
        if state.due != 0 {
            return state.due <= clock::monotonic().saturating_add(after as u64);
        }
        // SAFETY: a plain global, which this thread alone writes to.
        let now = unsafe { ngx_current_msec };
        // The keys are times of nginx's clock, which may wrap.
        let left = state.event.timer.key.wrapping_sub(now.wrapping_add(after)) as isize;
        state.event.timer_set() != 0 && left <= 0
    }

    /// Calls the handler, which may arm it anew.
    fn call(&self) {
        // SAFETY: the main thread's, and nobody writes to it meanwhile.
        if let Some(handler) = unsafe { (*self.0.get()).handler } {
            handler();
        }
    }
}

/// nginx's timer has expired.
unsafe extern "C" fn on_timer(event: *mut ngx_event_t) {
    // SAFETY: nginx calls this with the event of `add`, whose owner is the timer, a static.
    let timer = unsafe { &*Descriptor::owner(event).cast::<Timer>() };
    timer.call();
}

/// The kernel's timer has expired.
unsafe extern "C" fn on_expired(event: *mut ngx_event_t) {
    // SAFETY: the owner that was given to `open` is the timer, a static.
    let timer = unsafe { &*Descriptor::owner(event).cast::<Timer>() };
    let mut count = [0u8; size_of::<u64>()];
    let read = timer.kernel().map(|fd| {
        // SAFETY: there is room for what is asked for.
        unsafe { libc::read(fd.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) }
    });
    // SAFETY: the main thread's, and nothing refers to it meanwhile.
    let due = || unsafe { core::mem::take(&mut (*timer.0.get()).due) };
    // Otherwise it was armed anew meanwhile, or disarmed.
    if read == Some(size_of::<u64>() as isize) && due() != 0 {
        timer.call();
    }
}
