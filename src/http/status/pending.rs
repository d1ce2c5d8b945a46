//! Requests that are answered later, or bit by bit: those who wait and the event streams. One timer
//! for all of them looks, ten times a second, whether anything has moved; it runs only while there
//! are such requests.

use core::ffi::c_void;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use ngx::ffi::{
    ngx_handle_read_event, ngx_http_finalize_request, ngx_http_request_t,
    ngx_http_run_posted_requests, ngx_http_test_reading, ngx_int_t, ngx_msec_t,
    ngx_pool_cleanup_add, NGX_OK,
};

use super::live::Live;
use super::tick::Tick;
use crate::config::Conf;
use crate::nginx::clock;
use crate::nginx::log::Log;
use crate::nginx::main_thread::MainThreadCell;
use crate::nginx::process;
use crate::nginx::timer::Timer;
use crate::nginx::zone::Zone;

/// How often to look, milliseconds.
const TICK: ngx_msec_t = 100;

/// A request that is answered later, or bit by bit.
pub trait PendingRequest {
    /// Whether there may be something to do at this tick.
    fn is_due(&self, tick: &Tick) -> bool;

    /// Goes on. What to finalize the request with, if that was all.
    fn go_on(&mut self, r: &mut Live, tick: &mut Tick) -> Option<ngx_int_t>;

    /// Goes on when the client has read what it was sent, as above.
    fn on_writable(&mut self, r: &mut Live, zone: Option<Zone>) -> Option<ngx_int_t> {
        let _ = (r, zone);
        None
    }
}

/// A request that is under way, or finalized: nginx may still be sending what is kept with it.
struct Entry {
    /// None while it goes on.
    request: Option<Box<dyn PendingRequest>>,
    over: bool,
}

/// By the address of the request.
type Requests = BTreeMap<usize, Entry>;

static REQUESTS: MainThreadCell<RefCell<Requests>> =
    MainThreadCell::new(RefCell::new(Requests::new()));
/// The epoch and the newest event told, as of the last look.
static SEEN: MainThreadCell<Cell<(u64, u64)>> = MainThreadCell::new(Cell::new((0, 0)));
static TICKER: MainThreadCell<Timer> = MainThreadCell::new(Timer::new());

/// Takes a request in, until its pool is destroyed. False if there is no memory.
pub fn add(r: &Live, request: Box<dyn PendingRequest>) -> bool {
    let r = r.as_ptr();
    // SAFETY: a request has a pool; size 0 asks for no memory of the cleanup's.
    let Some(cleanup) = (unsafe { ngx_pool_cleanup_add((*r).pool, 0).as_mut() }) else {
        return false;
    };
    cleanup.handler = Some(forget);
    cleanup.data = r.cast();
    let entry = Entry { request: Some(request), over: false };
    REQUESTS.with(|requests| requests.insert(r as usize, entry)).is_some()
}

unsafe extern "C" fn forget(r: *mut c_void) {
    REQUESTS.with(|requests| requests.remove(&(r as usize)));
}

/// The request at an address, if one is in the table.
fn live<'a>(key: usize) -> Option<Live<'a>> {
    REQUESTS.with(|requests| requests.contains_key(&key)).filter(|is_there| *is_there)?;
    // SAFETY: nginx destroys a request with its pool, and `forget` takes it out of the table then.
    unsafe { Live::from_ptr(key as *mut ngx_http_request_t) }
}

/// Keeps a request that was added from ending with its content handler. False if nginx can't watch
/// its connection.
pub fn keep(r: &Live) -> bool {
    let (r, connection) = (r.as_ptr(), r.connection());
    // SAFETY: the request is there, and so are its connection and the event of that.
    let watched = unsafe {
        (*r).read_event_handler = Some(ngx_http_test_reading);
        ngx_handle_read_event((*connection).read, 0)
    };
    if watched != NGX_OK as ngx_int_t {
        return false;
    }
    // SAFETY: a request has a main one. nginx counts its users, and ends it if the client goes.
    unsafe {
        let main = (*r).main;
        (*main).set_count((*main).count().wrapping_add(1));
    }
    if !TICKER.is_due_within(TICK) {
        TICKER.arm_and_hold(TICK, on_tick, Log::current());
    }
    true
}

/// Lets a request do something that is under way. It is not in the table meanwhile, since nginx may call
/// this module from there.
pub fn with<T>(
    r: &mut Live,
    go_on: impl FnOnce(&mut dyn PendingRequest, &mut Live) -> T,
) -> Option<T> {
    let take = |entry: &mut Entry| if entry.over { None } else { entry.request.take() };
    let key = r.as_ptr() as usize;
    let taken = REQUESTS.with(|requests| requests.get_mut(&key).and_then(take));
    let mut request = taken.flatten()?;
    let result = go_on(&mut *request, r);
    REQUESTS.with(|requests| {
        if let Some(entry) = requests.get_mut(&key) {
            entry.request = Some(request);
        }
    });
    Some(result)
}

/// Ends a request as a content handler that returns `rc` would.
pub fn finalize(r: Live, rc: ngx_int_t) {
    let (r, connection) = (r.as_ptr(), r.connection());
    REQUESTS.with(|requests| {
        if let Some(entry) = requests.get_mut(&(r as usize)) {
            entry.over = true;
        }
    });
    // SAFETY: the request is there until it is finalized, its connection stays where it is. Whoever
    // finalizes outside the handlers of http has to run what that leaves to be run.
    unsafe {
        ngx_http_finalize_request(r, rc);
        ngx_http_run_posted_requests(connection);
    }
}

/// The zone of the configuration in force.
///
/// # Safety
/// It is not kept when the handler returns to nginx.
pub unsafe fn current_zone<'a>() -> Option<Zone<'a>> {
    // SAFETY: the caller vouches for it.
    unsafe { Conf::in_force() }.and_then(Conf::zone)
}

/// Lets the requests end now: this worker is to quit.
pub fn drain() {
    if !REQUESTS.with(|requests| !requests.is_empty()).unwrap_or(false) {
        return;
    }
    // Not from here: nginx is closing connections one by one.
    TICKER.arm_and_hold(0, on_tick, Log::current());
}

fn on_tick() {
    // SAFETY: it is not kept beyond this tick.
    let zone = unsafe { current_zone() };
    let seen = zone.map_or((0, 0), |z| (z.roster().epoch(), z.roster().last_delivered()));
    let moved = SEEN.replace_or(seen, seen) != seen;
    let mut tick = Tick::new(zone, process::is_exiting(), clock::monotonic(), moved);
    let is_due = |entry: &Entry| {
        !entry.over && entry.request.as_ref().is_some_and(|request| request.is_due(&tick))
    };
    let due = REQUESTS.with(|requests| -> Vec<_> {
        let due = requests.iter().filter(|(_, entry)| is_due(entry));
        due.map(|(key, _)| *key).collect()
    });
    for key in due.unwrap_or_default() {
        // The end of one may be that of others, on the same connection.
        let Some(mut r) = live(key) else {
            continue;
        };
        let rc = with(&mut r, |request, r| request.go_on(r, &mut tick)).flatten();
        if let Some(rc) = rc {
            finalize(r, rc);
        }
    }

    let are_left = |requests: &mut Requests| requests.values().any(|entry| !entry.over);
    if REQUESTS.with(are_left).unwrap_or(false) {
        // It holds a worker that shuts down for one more tick, in which all of them end.
        TICKER.arm_and_hold(TICK, on_tick, Log::current());
    }
}
