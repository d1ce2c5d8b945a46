//! What a connection of nginx's HTTP is for.

use ngx::ffi::{ngx_connection_t, ngx_http_connection_t, ngx_http_request_t};
use roster::held::{Held, Protocol};

#[cfg(ngx_feature = "http_v2")]
use super::http2;
use super::request;

/// What `data` of a connection of HTTP points to.
enum Data<'a> {
    Request(&'a ngx_http_request_t),
    /// Between requests, before the first, or while TLS or the PROXY protocol begin.
    Waiting(&'a ngx_http_connection_t),
    /// An `ngx_http_v2_connection_t`.
    Http2,
}

/// # Safety
/// It came in by a socket of HTTP, and is not one of QUIC's.
unsafe fn data(c: &ngx_connection_t) -> Option<Data<'_>> {
    if c.data.is_null() {
        return None;
    }
    if let Some(r) = request::of(c) {
        return Some(Data::Request(r));
    }
    // SAFETY: as for `request::of`. What HTTP/2 has there begins with the connection, and
    // ngx_http_connection_t with a pointer to the configuration of an address.
    unsafe {
        let first = *c.data.cast::<*const ngx_connection_t>();
        Some(match core::ptr::eq(first, c) {
            true => Data::Http2,
            false => Data::Waiting(&*c.data.cast()),
        })
    }
}

/// Says what a connection is for. Returns a number that is another one if a byte was received, or sent
/// to an upstream.
///
/// # Safety
/// It came in by a socket of HTTP, and is open.
pub unsafe fn see(c: &ngx_connection_t, now: u64, held: &mut Held) -> u64 {
    // SAFETY: as the caller says; a stream of QUIC's is only here with a request.
    match unsafe { data(c) } {
        Some(Data::Request(r)) => {
            held.requests = 1;
            held.protocol = if c.requests > 1 { Protocol::Http1 } else { Protocol::Http };
            // SAFETY: a request that a live connection points to is live.
            unsafe { request::see(r, now, held) }
        }
        Some(Data::Waiting(hc)) => {
            held.protocol = if c.requests > 0 { Protocol::Http1 } else { Protocol::Http };
            // SAFETY: it is part of the connection's memory; its configuration is the cycle's.
            held.server = unsafe { request::server(hc.conf_ctx) }.unwrap_or_default();
            0
        }
        Some(Data::Http2) => {
            held.protocol = Protocol::Http2;
            see_http2(c, now, held)
        }
        None => {
            held.protocol = Protocol::Http;
            0
        }
    }
}

#[cfg(ngx_feature = "http_v2")]
fn see_http2(c: &ngx_connection_t, now: u64, held: &mut Held) -> u64 {
    // SAFETY: `data` found what HTTP/2 has there.
    unsafe { http2::see(c, now, held) }
}

#[cfg(not(ngx_feature = "http_v2"))]
fn see_http2(_c: &ngx_connection_t, _now: u64, held: &mut Held) -> u64 {
    // The headers don't say what there is.
    held.server.clear();
    0
}
