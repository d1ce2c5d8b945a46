//! Noticing that this worker was told to quit gracefully. nginx has no hook for that, but the first
//! thing it then does, after closing the listening sockets, is to close idle connections
//! (`ngx_close_idle_connections`). So the worker has one that is never anything but idle.

use std::cell::Cell;

use ngx::ffi::{
    ngx_connection_t, ngx_cycle, ngx_event_t, ngx_free_connection, ngx_get_connection, ngx_msec_t,
};
use roster::{Transition, WorkerView};

use super::order;
use super::schedule::retry_after;
use crate::nginx::clock;
use crate::nginx::log::Log;
use crate::nginx::main_thread::MainThreadCell;
use crate::nginx::process;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Drain {
    No,
    Untold,
    Told,
}

static DRAIN: MainThreadCell<Cell<Drain>> = MainThreadCell::new(Cell::new(Drain::No));

fn drain() -> Drain {
    DRAIN.get_or(Drain::No)
}

/// When to tell, milliseconds of the monotonic clock.
static DUE: MainThreadCell<Cell<u64>> = MainThreadCell::new(Cell::new(0));

type Observer = Option<fn()>;

/// What else is called at the moment.
static OBSERVER: MainThreadCell<Cell<Observer>> = MainThreadCell::new(Cell::new(None));

/// Registers what else is called at the moment that this worker is to quit.
pub fn on_drain(observe: fn()) {
    OBSERVER.set(Some(observe));
}

/// Begins to wait for the moment. Takes one of the worker's connections.
pub fn expect(log: Log) {
    DRAIN.set(Drain::No);
    // SAFETY: plain members of the global cycle, whose connections the event module has made.
    let (free, files) = unsafe { ((*ngx_cycle).free_connection_n, (*ngx_cycle).files) };
    if free < 2 {
        // nginx itself is going to take the last one, for its channel, and would give up.
        return;
    }
    // ngx_get_connection enters the connection under its descriptor in `files`, which some event methods
    // have; there descriptor 0 is put back to what it was.
    // SAFETY: null, or a table with an entry for each descriptor.
    let saved = unsafe { files.as_ref() }.copied();
    // SAFETY: there are connections that are free.
    let connection = unsafe { ngx_get_connection(0, log.as_ptr()).as_mut() };
    if let Some(saved) = saved {
        // SAFETY: as above.
        unsafe { *files = saved };
    }
    let Some(connection) = connection else {
        return;
    };
    // Not -1, which marks a free one, and nothing that could be open.
    connection.fd = -2;
    connection.set_idle(1);
    // SAFETY: each connection has its read event, which nobody else uses now.
    let read = unsafe { &mut *connection.read };
    read.handler = Some(on_close);
    read.log = log.as_ptr();
}

/// nginx wants the connection closed.
unsafe extern "C" fn on_close(event: *mut ngx_event_t) {
    // SAFETY: the event is that of the connection taken above, which is its data.
    let connection = unsafe { &mut *(*event).data.cast::<ngx_connection_t>() };
    if connection.close() == 0 {
        return;
    }
    // SAFETY: each connection has both events.
    unsafe {
        (*connection.read).set_closed(1);
        (*connection.write).set_closed(1);
    }
    // It must be free again when the worker ends, or nginx logs it as left open; ngx_free_connection looks
    // up the descriptor.
    connection.fd = 0;
    // SAFETY: it was taken, and is given back once: nginx closes an idle connection once.
    unsafe { ngx_free_connection(connection) };
    connection.fd = -1;
    DRAIN.set(Drain::Untold);
    if let Some(observe) = OBSERVER.get_or(None) {
        observe();
    }
    // Not from here: nginx is still about to close the others. And a worker that was told by a signal is to know
    // whether the master's order follows.
    let wait = if order::may_follow() { order::FOLLOWS } else { 0 };
    DUE.set(clock::monotonic().saturating_add(wait));
    retry_after(wait as ngx_msec_t);
}

/// Whether this worker drains and nobody was told.
pub fn is_untold() -> bool {
    drain() == Drain::Untold
}

/// Whether this worker drains, nobody was told, and it is time to.
pub fn is_due(now: u64) -> bool {
    is_untold() && now >= DUE.get_or(0)
}

/// When it is time to tell that this worker drains, by the monotonic clock, milliseconds; 0 if that is
/// not to be told.
pub fn due_at() -> u64 {
    if is_untold() {
        DUE.get_or(0)
    } else {
        0
    }
}

/// Whether it was told that this worker drains.
pub fn is_told() -> bool {
    drain() == Drain::Told
}

/// Whether this worker drains.
pub fn is_draining() -> bool {
    drain() != Drain::No
}

/// It has to be told again.
pub fn not_told() {
    DRAIN.set(Drain::Untold);
}

/// From here on it is told.
pub fn told() {
    DRAIN.set(Drain::Told);
}

/// That this worker, which is about to end, drains, if nobody was told.
pub fn untold_draining(me: &WorkerView, stopping: bool) -> Option<Transition> {
    is_untold().then(|| {
        told();
        let connections = process::all_connections();
        Transition::WorkerDraining { slot: me.slot, connections, stopping }
    })
}
