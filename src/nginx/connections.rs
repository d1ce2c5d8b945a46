//! The oldest connections of this worker's clients, and what each of them is for.
//!
//! All of it is read by the worker itself, between two events, from what nginx keeps of live connections:
//! nothing can change or be freed meanwhile. Only the connections that are shown are looked into. What
//! `data` of one points to depends on the handler of the socket that it came in by, and in HTTP on what
//! stands at its beginning; of a handler that is not known nothing is followed.

use core::slice;

use ngx::ffi::{
    ngx_atomic_uint_t, ngx_connection_t, ngx_current_msec, ngx_cycle, ngx_http_init_connection,
    ngx_listening_t,
};
use roster::held::{Held, Protocol, HELD};

mod http;
#[cfg(ngx_feature = "http_v2")]
mod http2;
mod request;
mod stream;
mod values;

use values::{address, text};

/// A connection that was looked into.
pub struct Seen {
    /// What nginx calls it by in its log, which no other connection of the worker has.
    pub number: ngx_atomic_uint_t,
    /// Another number if a byte has moved.
    pub moved: u64,
    /// What is to be shown.
    pub held: Held,
}

/// What was seen of all.
pub struct Look {
    /// How many connections of clients there are.
    pub total: u32,
    /// The oldest of them, oldest first.
    pub oldest: Vec<Seen>,
}

/// Looks at the connections of this worker's clients at a moment of the monotonic clock, milliseconds.
///
/// Costs as much as `process::connections`, and stops where that does.
pub fn look(now: u64) -> Look {
    // SAFETY: a plain global of nginx's, which is single-threaded.
    let clock = unsafe { ngx_current_msec };
    let mut total = 0u32;
    let mut oldest: Vec<(u64, &ngx_connection_t)> = Vec::with_capacity(HELD.saturating_add(1));
    for c in clients() {
        total = total.saturating_add(1);
        let age = clock.wrapping_sub(c.start_time) as u64;
        if oldest.len() == HELD && oldest.last().is_some_and(|(least, _)| *least >= age) {
            continue;
        }
        let at = oldest.partition_point(|(other, _)| *other >= age);
        oldest.insert(at, (age, c));
        oldest.truncate(HELD);
    }
    let oldest = oldest.into_iter().map(|(age, c)| see(c, now.saturating_sub(age), now)).collect();
    Look { total, oldest }
}

/// The connections that came in by a listening socket. Of QUIC's streams those that have a request, and of
/// its connections those without any.
fn clients() -> impl Iterator<Item = &'static ngx_connection_t> {
    // SAFETY: the global cycle of a worker has connection_n connections, and keeps them until the worker
    // ends; a process that is not a worker has none.
    let (connections, mut unseen) = unsafe {
        let cycle = ngx_cycle;
        let n = if (*cycle).connections.is_null() { 0 } else { (*cycle).connection_n };
        let connections: &'static [ngx_connection_t] = match n {
            0 => &[],
            n => slice::from_raw_parts((*cycle).connections, n),
        };
        (connections, n.saturating_sub((*cycle).free_connection_n))
    };
    let used = connections.iter().take_while(move |c| {
        // As in `process::connections`.
        let more = unseen > 0;
        // SAFETY: each connection has its read event.
        let is_open = unsafe { c.read.as_ref() }
            .is_some_and(|read| c.fd != -1 || read.closed() == 0 && read.accept() == 0);
        unseen = unseen.saturating_sub(is_open.into());
        more
    });
    used.filter(|c| c.fd >= 0 && listening(c).is_some() && is_shown(c))
}

/// The listening socket that a connection came in by; none of the one that listens there.
fn listening(c: &ngx_connection_t) -> Option<&ngx_listening_t> {
    // SAFETY: each connection has its read event, and nginx sets `listening` to a socket of the cycle's,
    // which a worker keeps until it ends, or to null.
    let (listening, read) = unsafe { (c.listening.as_ref()?, c.read.as_ref()?) };
    (read.accept() == 0).then_some(listening)
}

fn is_shown(c: &ngx_connection_t) -> bool {
    let is_quic = c.shared() != 0 && c.type_ == libc::SOCK_STREAM;
    if is_quic {
        return request::of(c).is_some();
    }
    // With streams it is neither idle nor reusable (`ngx_reusable_connection`), and they are shown.
    !is_http3(c) || c.reusable() != 0
}

fn is_http(c: &ngx_connection_t) -> bool {
    let handler = listening(c).and_then(|listening| listening.handler);
    handler.is_some_and(|handler| core::ptr::fn_addr_eq(handler, HTTP))
}

fn is_http3(c: &ngx_connection_t) -> bool {
    c.type_ == libc::SOCK_DGRAM && is_http(c)
}

const HTTP: stream::Handler = ngx_http_init_connection;

fn see(c: &ngx_connection_t, since: u64, now: u64) -> Seen {
    let mut held = Held {
        since,
        sent: u64::try_from(c.sent).unwrap_or(0),
        client: address(c.sockaddr, c.socklen),
        // SAFETY: the text of a listening socket is the configuration's.
        server: listening(c).map_or_else(String::new, |l| unsafe { text(&l.addr_text) }),
        ..Held::default()
    };
    let mut moved = held.sent;
    if is_http3(c) {
        held.protocol = Protocol::Http3;
    } else if is_http(c) {
        // SAFETY: nginx's HTTP has it.
        moved = moved.wrapping_add(unsafe { http::see(c, now, &mut held) });
    } else if let Some(handler) = listening(c).and_then(|listening| listening.handler) {
        moved = moved.wrapping_add(stream::see(c, handler, now, &mut held));
    }
    Seen { number: c.number, moved, held }
}
