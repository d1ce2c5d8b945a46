//! Requests that are answered later, or bit by bit: those who wait and the event streams. One timer
//! for all of them looks, ten times a second, whether anything has moved; it runs only while there
//! are such requests.

use core::ffi::c_void;
use core::mem::take;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use ngx::ffi::{
    ngx_event_t, ngx_handle_read_event, ngx_http_finalize_request, ngx_http_request_t,
    ngx_http_run_posted_requests, ngx_http_test_reading, ngx_int_t, ngx_msec_t,
    ngx_pool_cleanup_add, NGX_OK,
};

use super::stream::{self, Stream};
use super::wait::{self, Pending};
use crate::config::Conf;
use crate::nginx::clock;
use crate::nginx::log::Log;
use crate::nginx::process::{self, PerProcess};
use crate::nginx::timer::Timer;
use crate::nginx::zone::Zone;

/// How often to look, milliseconds.
const TICK: ngx_msec_t = 100;

/// A request that is under way.
pub enum Live {
    /// It is sent events.
    Stream(Stream),
    /// It waits.
    Wait(Pending),
    /// It is finalized; nginx may still be sending this.
    Over { _bytes: Vec<u8> },
}

/// By the address of the request.
type Requests = BTreeMap<usize, Live>;

static REQUESTS: PerProcess<RefCell<Requests>> = PerProcess(RefCell::new(Requests::new()));
/// The epoch and the newest event told, as of the last look.
static SEEN: PerProcess<Cell<(u64, u64)>> = PerProcess(Cell::new((0, 0)));
static mut TICKER: Timer = Timer::new();

/// Takes a request in, until its pool is destroyed. False if there is no memory.
pub fn add(r: *mut ngx_http_request_t, live: Live) -> bool {
    // SAFETY: the request is live and has a pool; size 0 asks for no memory of the cleanup's.
    unsafe {
        let cleanup = ngx_pool_cleanup_add((*r).pool, 0);
        if cleanup.is_null() {
            return false;
        }
        (*cleanup).handler = Some(forget);
        (*cleanup).data = r.cast();
    }
    REQUESTS.borrow_mut().insert(r as usize, live);
    true
}

unsafe extern "C" fn forget(r: *mut c_void) {
    REQUESTS.borrow_mut().remove(&(r as usize));
}

/// Keeps a request that was added from ending with its content handler. False if nginx can't watch
/// its connection.
pub fn keep(r: *mut ngx_http_request_t) -> bool {
    // SAFETY: the request is live. nginx counts who uses it, and ends it if the client goes.
    unsafe {
        (*r).read_event_handler = Some(ngx_http_test_reading);
        if ngx_handle_read_event((*(*r).connection).read, 0) != NGX_OK as ngx_int_t {
            return false;
        }
        let main = (*r).main;
        (*main).set_count((*main).count() + 1);
        if !Timer::is_due_within(&raw const TICKER, TICK) {
            Timer::arm_and_hold(&raw mut TICKER, TICK, on_tick, Log::current());
        }
    }
    true
}

/// Looks at a request that is under way.
pub fn with<T>(r: *mut ngx_http_request_t, look: impl FnOnce(&mut Live) -> T) -> Option<T> {
    REQUESTS.borrow_mut().get_mut(&(r as usize)).map(look)
}

/// Ends a request as a content handler that returns `rc` would.
pub fn finalize(r: *mut ngx_http_request_t, rc: ngx_int_t) {
    with(r, |live| {
        let bytes = match live {
            Live::Stream(stream) => take(stream.bytes_mut()),
            _ => Vec::new(),
        };
        *live = Live::Over { _bytes: bytes };
    });
    // SAFETY: the request is live until it is finalized, its connection stays where it is. Whoever
    // finalizes outside the handlers of http has to run what that leaves to be run.
    unsafe {
        let connection = (*r).connection;
        ngx_http_finalize_request(r, rc);
        ngx_http_run_posted_requests(connection);
    }
}

/// The zone of the configuration in force.
pub fn current_zone() -> Option<Zone> {
    Conf::in_force().and_then(Conf::zone)
}

/// Lets the requests end now: this worker is to quit.
pub fn drain() {
    if REQUESTS.borrow().is_empty() {
        return;
    }
    // Not from here: nginx is closing connections one by one.
    // SAFETY: a static, and the event loop is this thread's.
    unsafe { Timer::arm_and_hold(&raw mut TICKER, 0, on_tick, Log::current()) };
}

unsafe extern "C" fn on_tick(_event: *mut ngx_event_t) {
    let exiting = process::is_exiting();
    let zone = current_zone();
    let now = clock::monotonic();
    let seen = zone.map_or((0, 0), |z| (z.roster().epoch(), z.roster().last_delivered()));
    let moved = SEEN.replace(seen) != seen;

    let mut streams = Vec::new();
    let mut waits = Vec::new();
    for (r, live) in REQUESTS.borrow().iter() {
        let r = *r as *mut ngx_http_request_t;
        match live {
            Live::Stream(stream) if moved || exiting || stream.is_due(now) => streams.push(r),
            Live::Wait(_) => waits.push(r),
            _ => {}
        }
    }
    let mut lines = stream::Lines::default();
    for r in streams {
        match zone.filter(|_| !exiting) {
            Some(zone) => stream::go_on(r, zone, &mut lines),
            None => stream::end(r),
        }
    }
    if !waits.is_empty() {
        wait::look(&waits, zone, exiting, now);
    }

    let under_way = |live: &Live| !matches!(live, Live::Over { .. });
    if REQUESTS.borrow().values().any(under_way) {
        // SAFETY: as in `drain`. It holds a worker that shuts down for one more tick, in which all
        // of them end.
        unsafe { Timer::arm_and_hold(&raw mut TICKER, TICK, on_tick, Log::current()) };
    }
}
