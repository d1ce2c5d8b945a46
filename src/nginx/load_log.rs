//! Why a load fails: the first serious message that nginx logs while it reads a configuration.
//!
//! nginx says what is wrong by its error log alone: first by that of the cycle before, and once the new
//! configuration's logs are open by those (`ngx_init_cycle()` sets `cycle->log` to `new_log`). Each log is a
//! chain of entries, of which one may have a writer in place of a file, as that for syslog has. While a load
//! lasts, each of the two chains has such an entry more.

use core::cell::Cell;
use core::ptr;
use core::slice;
use std::cell::RefCell;

use ngx::ffi::{
    ngx_cached_err_log_time, ngx_cycle_t, ngx_log_t, ngx_pcalloc, ngx_uint_t, NGX_LOG_CRIT,
};
use roster::Message;

use super::cycle::Cycle;
use super::main_thread::MainThreadCell;

/// A load that lasts: the log of the cycle that is in force, and this module's entry in its chain.
#[derive(Clone, Copy)]
struct Load {
    log: *mut ngx_log_t,
    entry: *mut ngx_log_t,
}

static LOAD: MainThreadCell<Cell<Option<Load>>> = MainThreadCell::new(Cell::new(None));

/// The first message of the load.
static MESSAGE: MainThreadCell<RefCell<Option<Message>>> = MainThreadCell::new(RefCell::new(None));

/// A load begins while `old` is in force: from now on this module sees what its log gets.
///
/// # Safety
/// `cycle` is the one that is being made, with its pool.
pub unsafe fn begin(cycle: *mut ngx_cycle_t, old: Cycle<'_>) {
    end();
    let log = old.as_ref().log;
    // SAFETY: the log of a cycle lives as long as the cycle; the caller vouches for the other one.
    let entry = unsafe { insert(log, cycle) };
    LOAD.set(Some(Load { log, entry }));
}

/// The configuration has been read: this module sees what its own log gets, too. nginx begins to use that
/// log after `init_conf`, and adds the default log to its chain if there is no other.
///
/// # Safety
/// As for `begin`.
pub unsafe fn follow(cycle: Cycle<'_>) {
    if LOAD.get_or(None).is_none() {
        return;
    }
    let cycle = cycle.as_ptr();
    // SAFETY: the cycle's own log is a part of it.
    unsafe { insert(&raw mut (*cycle).new_log, cycle) };
}

/// The load has ended. The first message at crit or above that was logged in it.
pub fn end() -> Option<Message> {
    if let Some(Load { log, entry }) = LOAD.replace_or(None, None) {
        // SAFETY: `begin` has put the entry into this chain. The cycle in force, and the one that was being
        // made, live at least as long as nginx calls this module about the load. The entry in the new cycle's
        // own chain stays and does nothing: listening sockets have copies of that log
        // (`ngx_configure_listening_sockets()`).
        unsafe { remove(log, entry) };
    }
    MESSAGE.with(Option::take).flatten()
}

/// Puts an entry into a chain, where those for serious messages only are: nginx leaves a chain at the first
/// entry whose level is too low. The entry's memory is the cycle's. Null if there is none.
///
/// # Safety
/// `head` is the first entry of a chain that lives, and `cycle` has its pool.
unsafe fn insert(head: *mut ngx_log_t, cycle: *mut ngx_cycle_t) -> *mut ngx_log_t {
    // SAFETY: the caller vouches for both; the entries of a chain are live logs.
    unsafe {
        let entry = ngx_pcalloc((*cycle).pool, size_of::<ngx_log_t>()).cast::<ngx_log_t>();
        if entry.is_null() || head.is_null() {
            return ptr::null_mut();
        }
        let level = NGX_LOG_CRIT as ngx_uint_t;
        let mut before = head;
        while !(*before).next.is_null() && (*(*before).next).log_level >= level {
            before = (*before).next;
        }
        (*entry).log_level = level;
        (*entry).writer = Some(write);
        (*entry).next = (*before).next;
        (*before).next = entry;
        entry
    }
}

/// # Safety
/// `head` is the first entry of a chain that lives.
unsafe fn remove(head: *mut ngx_log_t, entry: *mut ngx_log_t) {
    if entry.is_null() {
        return;
    }
    let mut before = head;
    // SAFETY: the entries of a chain are live logs.
    unsafe {
        while !before.is_null() {
            if (*before).next == entry {
                (*before).next = (*entry).next;
                return;
            }
            before = (*before).next;
        }
    }
}

/// nginx's writer of an entry: gets the whole line.
unsafe extern "C" fn write(_log: *mut ngx_log_t, level: ngx_uint_t, line: *mut u8, length: usize) {
    if level > NGX_LOG_CRIT as ngx_uint_t || LOAD.get_or(None).is_none() {
        return;
    }
    // SAFETY: nginx passes the line and its length.
    let line = unsafe { slice::from_raw_parts(line, length) };
    // SAFETY: nginx has put this time before the line, and changes it on this thread alone.
    let time = unsafe { ngx_cached_err_log_time.len };
    // Nothing that is called here logs.
    MESSAGE.with(|message| {
        message.get_or_insert_with(|| Message::new(text(line, time)));
    });
}

/// What a line says, without the time, ` [emerg] `, `12#12: ` and the number of a connection.
fn text(line: &[u8], time: usize) -> &[u8] {
    let rest = line.get(time..).unwrap_or(line);
    let rest = after(rest, b"] ");
    let rest = after(rest, b": ");
    let rest = if rest.first() == Some(&b'*') { after(rest, b" ") } else { rest };
    rest.trim_ascii()
}

/// What follows the first of some bytes; all if they are not there.
fn after<'a>(bytes: &'a [u8], end: &[u8]) -> &'a [u8] {
    let at = bytes.windows(end.len()).position(|window| window == end);
    at.and_then(|at| bytes.get(at.saturating_add(end.len())..)).unwrap_or(bytes)
}
