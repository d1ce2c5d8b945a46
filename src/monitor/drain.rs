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

/// Who else is told at the moment.
static OBSERVER: MainThreadCell<Cell<Observer>> = MainThreadCell::new(Cell::new(None));

/// Registers who else is told at the moment that this worker is to quit.
pub fn on_drain(observe: fn()) {
    OBSERVER.set(Some(observe));
}

/// Begins to wait for the moment. Takes one of the worker's connections.
pub fn expect(log: Log) {
    DRAIN.set(Drain::No);
    // SAFETY: the event module has made the connections of this worker's cycle. ngx_get_connection
    // enters the connection under its descriptor in `files`, which some event methods have; there
    // descriptor 0 is put back to what it was.
    unsafe {
        let cycle = ngx_cycle;
        if (*cycle).free_connection_n < 2 {
            // nginx itself is going to take the last one, for its channel, and would give up.
            return;
        }
        let files = (*cycle).files;
        let saved = if files.is_null() { core::ptr::null_mut() } else { *files };
        let connection: *mut ngx_connection_t = ngx_get_connection(0, log.as_ptr());
        if !files.is_null() {
            *files = saved;
        }
        if connection.is_null() {
            return;
        }
        // Not -1, which marks a free one, and nothing that could be open.
        (*connection).fd = -2;
        (*connection).set_idle(1);
        (*(*connection).read).handler = Some(on_close);
        (*(*connection).read).log = log.as_ptr();
    }
}

/// nginx wants the connection closed.
unsafe extern "C" fn on_close(event: *mut ngx_event_t) {
    // SAFETY: the event is that of the connection taken above. It must be free again when the
    // worker ends, or nginx logs it as left open; ngx_free_connection looks up the descriptor.
    unsafe {
        let connection = (*event).data.cast::<ngx_connection_t>();
        if (*connection).close() == 0 {
            return;
        }
        (*(*connection).read).set_closed(1);
        (*(*connection).write).set_closed(1);
        (*connection).fd = 0;
        ngx_free_connection(connection);
        (*connection).fd = -1;
    }
    DRAIN.set(Drain::Untold);
    if let Some(observe) = OBSERVER.get_or(None) {
        observe();
    }
    // Not from here: nginx is still about to close the others. And who was told by a signal is to know
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
