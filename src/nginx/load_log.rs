//! Why a load fails: the first serious message that nginx logs while it reads a configuration.
//!
//! nginx says what is wrong by its error log alone: first by that of the cycle before, and once the new
//! configuration's logs are open by those (`ngx_init_cycle()` sets `cycle->log` to `new_log`). Each log is a
//! chain of entries, of which one may have a writer in place of a file, as that for syslog has. While a load
//! lasts, each of the two chains has such an entry more.

use core::cell::Cell;
use core::ptr;
use core::slice;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::cell::RefCell;

use ngx::ffi::{
    ngx_cached_err_log_time, ngx_cycle_t, ngx_log_t, ngx_pcalloc, ngx_uint_t, NGX_LOG_CRIT,
};
use roster::Message;

use super::cycle::Cycle;
use super::main_thread::MainThreadCell;

/// This module's entry in the chain of a log; null if there is none.
#[derive(Clone, Copy)]
struct Entry {
    log: *mut ngx_log_t,
    entry: *mut ngx_log_t,
}

const NO_ENTRY: Entry = Entry { log: ptr::null_mut(), entry: ptr::null_mut() };

/// The entries in the chain of the cycle in force and in that of the one that is being made.
static ENTRIES: MainThreadCell<Cell<[Entry; 2]>> = MainThreadCell::new(Cell::new([NO_ENTRY; 2]));

/// Whether a load lasts. Threads of nginx's pool look at it, too: they log by copies of the chain that
/// listening sockets and their connections have kept.
static LASTS: AtomicBool = AtomicBool::new(false);

/// The first message of the load.
static MESSAGE: MainThreadCell<RefCell<Option<Message>>> = MainThreadCell::new(RefCell::new(None));

/// A load begins while `old` is in force: from now on this module sees what its log gets.
///
/// # Safety
/// `cycle` is the one that is being made, with its pool.
pub unsafe fn begin(cycle: *mut ngx_cycle_t, old: Cycle<'_>) {
    end();
    // SAFETY: the log of a cycle lives as long as the cycle; the caller vouches for the other one.
    let entry = unsafe { Entry::insert(old.as_ref().log, cycle) };
    ENTRIES.set([entry, NO_ENTRY]);
    LASTS.store(true, Relaxed);
}

/// The configuration has been read: this module sees what its own log gets, too. nginx begins to use that
/// log after `init_conf`, and adds the default log to its chain if there is no other.
///
/// # Safety
/// As for `begin`.
pub unsafe fn follow(cycle: Cycle<'_>) {
    if !LASTS.load(Relaxed) {
        return;
    }
    let cycle = cycle.as_ptr();
    // SAFETY: the cycle's own log is a part of it.
    let entry = unsafe { Entry::insert(&raw mut (*cycle).new_log, cycle) };
    let [old, _] = ENTRIES.get_or([NO_ENTRY; 2]);
    ENTRIES.set([old, entry]);
}

/// The load has ended. The first message at crit or above that was logged in it.
pub fn end() -> Option<Message> {
    LASTS.store(false, Relaxed);
    for entry in ENTRIES.replace_or([NO_ENTRY; 2], [NO_ENTRY; 2]) {
        // SAFETY: nginx calls this module about the end of a load while both cycles are there.
        unsafe { entry.remove() };
    }
    MESSAGE.with(Option::take).flatten()
}

impl Entry {
    /// Puts an entry into a chain, where those for serious messages only are: nginx leaves a chain at the
    /// first entry whose level is too low. The entry's memory is the cycle's: listening sockets of the cycle
    /// have copies of its log (`ngx_configure_listening_sockets()`), which go on to the entry also when it
    /// has been taken out of the chain.
    ///
    /// # Safety
    /// `log` is the first entry of a chain that lives, or null, and `cycle` has its pool.
    unsafe fn insert(log: *mut ngx_log_t, cycle: *mut ngx_cycle_t) -> Entry {
        // SAFETY: the caller vouches for both; the entries of a chain are live logs.
        unsafe {
            let entry = ngx_pcalloc((*cycle).pool, size_of::<ngx_log_t>()).cast::<ngx_log_t>();
            if entry.is_null() || log.is_null() {
                return NO_ENTRY;
            }
            let level = NGX_LOG_CRIT as ngx_uint_t;
            let mut before = log;
            while !(*before).next.is_null() && (*(*before).next).log_level >= level {
                before = (*before).next;
            }
            (*entry).log_level = level;
            (*entry).writer = Some(write);
            (*entry).next = (*before).next;
            (*before).next = entry;
            Entry { log, entry }
        }
    }

    /// Takes it out of its chain. Copies of the chain still lead on over it.
    ///
    /// # Safety
    /// The chain lives.
    unsafe fn remove(self) {
        let mut before = self.log;
        // SAFETY: the entries of a chain are live logs.
        unsafe {
            while !before.is_null() {
                if (*before).next == self.entry {
                    (*before).next = (*self.entry).next;
                    return;
                }
                before = (*before).next;
            }
        }
    }
}

/// nginx's writer of an entry: gets the whole line.
unsafe extern "C" fn write(_log: *mut ngx_log_t, level: ngx_uint_t, line: *mut u8, length: usize) {
    if level > NGX_LOG_CRIT as ngx_uint_t || !LASTS.load(Relaxed) {
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
