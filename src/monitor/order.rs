//! Who told this worker to end: its master, since the node stops or reloads, or somebody who means this
//! worker alone and whom nginx starts a successor for.
//!
//! The master writes its orders into the worker's channel (`ngx_signal_worker_processes`); whoever else
//! has one sends a signal. What nginx makes of either is the same, `ngx_quit` or `ngx_terminate`. So
//! the reading of the channel is watched. Somebody who signals every process of a node, as `killall` or
//! Ctrl-C does, reaches the master too, and its order follows in a moment.

use core::ffi::{c_int, CStr};
use core::slice;
use core::sync::atomic::{AtomicI32, Ordering::Relaxed};
use std::cell::Cell;

use ngx::ffi::{
    ngx_channel, ngx_connection_t, ngx_cycle, ngx_event_handler_pt, ngx_event_t, ngx_new_binary,
    ngx_quit, ngx_terminate,
};
use roster::{Roster, WorkerView};

use linux::process::Stat;

use crate::nginx::clock;
use crate::nginx::cycle::Cycle;
use crate::nginx::main_thread::MainThreadCell;
use crate::nginx::process;

/// How long the order of the master may take to follow a signal to this worker, milliseconds. The
/// worker holds nobody up meanwhile.
pub const FOLLOWS: u64 = 100;

/// What the master has told this worker.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Order {
    Nothing,
    Quit,
    Terminate,
}

/// The connection that the channel is, and the handler that nginx gave it.
#[derive(Clone, Copy)]
struct Channel {
    connection: *mut ngx_connection_t,
    handler: ngx_event_handler_pt,
}

static CHANNEL: MainThreadCell<Cell<Option<Channel>>> = MainThreadCell::new(Cell::new(None));
static ORDER: MainThreadCell<Cell<Order>> = MainThreadCell::new(Cell::new(Order::Nothing));

fn channel() -> Option<Channel> {
    CHANNEL.get_or(None)
}

fn ordered() -> Order {
    ORDER.get_or(Order::Nothing)
}

/// Begins to watch the channel. nginx makes a connection of it after every `init_process`
/// (`ngx_worker_process_init`), so this is to be called in the first round of the event loop.
pub fn watch() {
    // SAFETY: the global cycle of a worker has connection_n connections, each with its read event. They
    // are taken in order, and none has been given back before the first round of the event loop, so
    // that those in use come first.
    let channel = unsafe {
        let cycle = ngx_cycle;
        let used = (*cycle).connection_n.saturating_sub((*cycle).free_connection_n);
        let connections = slice::from_raw_parts_mut((*cycle).connections, used);
        connections.iter_mut().find(|c| {
            c.fd == ngx_channel && c.read.as_ref().is_some_and(|read| read.channel() != 0)
        })
    };
    let Some(connection) = channel else {
        return;
    };
    // SAFETY: the read event of a connection in use. The handler is put back before the module may be
    // unloaded.
    unsafe {
        let handler = (*connection.read).handler.replace(on_channel);
        CHANNEL.set(Some(Channel { connection, handler }));
    }
    // What was read in this round was not watched.
    note(quit_flag().load(Relaxed), terminate_flag().load(Relaxed));
}

/// nginx's flag to quit, which its handler of signals sets at any moment.
fn quit_flag() -> &'static AtomicI32 {
    // SAFETY: a global of this process, of the same size and alignment, which this thread and signal handlers
    // on it alone write to.
    unsafe { AtomicI32::from_ptr(&raw mut ngx_quit) }
}

/// The same to terminate.
fn terminate_flag() -> &'static AtomicI32 {
    // SAFETY: as above.
    unsafe { AtomicI32::from_ptr(&raw mut ngx_terminate) }
}

fn note(quit: c_int, terminate: c_int) {
    let order = match (quit, terminate) {
        (0, 0) => Order::Nothing,
        (_, 0) => Order::Quit,
        _ => Order::Terminate,
    };
    ORDER.set(ordered().max(order));
}

/// nginx's handler of the channel, which sets a flag for each order, and what it sets.
unsafe extern "C" fn on_channel(event: *mut ngx_event_t) {
    let Some(Channel { handler: Some(handler), .. }) = channel() else {
        return;
    };
    let (quit, terminate) = (quit_flag(), terminate_flag());
    // A signal may have set them before. What is taken away is put back, whatever comes meanwhile.
    let before = (quit.swap(0, Relaxed), terminate.swap(0, Relaxed));
    // SAFETY: as nginx would call it.
    unsafe { handler(event) };
    note(quit.load(Relaxed), terminate.load(Relaxed));
    quit.fetch_or(before.0, Relaxed);
    terminate.fetch_or(before.1, Relaxed);
}

/// Whether the order of the master may still follow a signal.
pub fn may_follow() -> bool {
    channel().is_some() && ordered() == Order::Nothing
}

/// Whether it is known that the master has told this worker to end.
pub fn is_known() -> bool {
    ordered() != Order::Nothing
}

/// This worker ends: if it was told so by a signal, waits a moment for the order of the master. To be
/// called without the lock. `draining` says that it was told some time ago that this worker drains.
pub fn await_master(draining: bool) {
    let quits = terminate_flag().load(Relaxed) == 0;
    // A worker that drains was told so a while ago.
    let grace = if quits && draining { 0 } else { FOLLOWS };
    let until = clock::monotonic().saturating_add(grace);
    while may_follow() && !process::is_orphan() {
        let Some(Channel { connection, .. }) = channel() else {
            return;
        };
        let left = until.saturating_sub(clock::monotonic());
        // SAFETY: poll gets one valid structure. The connection is in the cycle's array; its
        // descriptor is -1 once nginx has closed the channel, and then poll ignores it.
        let readable = unsafe {
            let mut channel =
                libc::pollfd { fd: (*connection).fd, events: libc::POLLIN, revents: 0 };
            libc::poll(&mut channel, 1, left as c_int) > 0
        };
        if readable {
            // SAFETY: the read event of that connection, which is open.
            unsafe { on_channel((*connection).read) };
        }
        if left == 0 {
            return;
        }
    }
}

/// The module may be unloaded from here on.
pub fn end() {
    if let Some(Channel { connection, handler }) = CHANNEL.replace_or(None, None) {
        // SAFETY: the connection is in the array of the cycle, which lives until the process ends, and
        // has a read event for as long. If the master is gone, nginx has closed the channel
        // (`ngx_channel_handler`), and the connection may be a client's by now.
        unsafe {
            let read = (*connection).read;
            if (*read).channel() != 0 {
                (*read).handler = handler;
            }
        }
    }
}

/// Whether a worker that ends, or begins to drain, does so since its node stops. The caller holds the
/// lock.
pub fn is_stopping(roster: Roster<'_>, me: &WorkerView) -> bool {
    let order = match ordered() {
        // With `master_process off` it is the end of everything; and a worker that has not begun to watch, or
        // can't, was most likely told by the master.
        Order::Nothing if channel().is_none() => Order::Quit,
        order => order,
    };
    let stops = match order {
        Order::Nothing => false,
        // A retired generation makes way for the next.
        Order::Quit => roster.generation(me.generation).is_some_and(|g| !g.retired),
        // The master terminates its workers for no other reason.
        Order::Terminate => true,
    };
    stops && !has_other_binary()
}

/// Whether the node goes on with another binary: this is the old one or the new one of an upgrade, and the
/// other lives. The pid file of the old master has another name while the new one lives
/// (`ngx_exec_new_binary`, `ngx_reap_children`), and the new one is its child. A master that exits has
/// removed its file by now, but knows of the new one.
pub fn has_other_binary() -> bool {
    // SAFETY: a plain global, which in a worker is as it was at the fork.
    if !process::is_worker() && unsafe { ngx_new_binary } > 0 {
        return true;
    }
    // SAFETY: nothing of the cycle is kept.
    let core = unsafe { Cycle::current() }.and_then(Cycle::core_conf);
    let Some(oldpid) = core.map(|core| core.oldpid).filter(|oldpid| !oldpid.data.is_null()) else {
        return false;
    };
    // SAFETY: it ends with a zero byte, which its length leaves out here and counts there.
    let name = unsafe { CStr::from_ptr(oldpid.data.cast()) };
    let text = std::fs::read_to_string(String::from_utf8_lossy(name.to_bytes()).as_ref());
    let Some(old) = text.ok().and_then(|text| text.trim().parse::<i32>().ok()) else {
        return false;
    };
    let master = if process::is_worker() { process::master() } else { process::pid() };
    old == master || Stat::of(master).is_some_and(|stat| stat.parent == old)
}
