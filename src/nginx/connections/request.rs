//! What a request is for, and where it is passed to.

use ngx::ffi::{
    ngx_connection_t, ngx_http_conf_ctx_t, ngx_http_core_module, ngx_http_core_srv_conf_t,
    ngx_http_request_t, ngx_http_upstream_t, ngx_peer_connection_t, NGX_HTTP_MODULE,
    NGX_HTTP_SWITCHING_PROTOCOLS, NGX_HTTP_VERSION_20,
};
use roster::held::{clean, path, Held, Protocol};

use super::values::{address, bytes, text, when, SHOWN};

/// Of nginx's `NGX_HTTP_VERSION_30`, which older ones do not have.
const HTTP_VERSION_30: u32 = 3000;

/// The request under way on a connection, if it is of HTTP/1 or a stream of HTTP/3, and `data` may
/// be anything of at least two words.
pub fn of(c: &ngx_connection_t) -> Option<&ngx_http_request_t> {
    let r = c.data.cast::<ngx_http_request_t>();
    if r.is_null() {
        return None;
    }
    // SAFETY: nginx keeps what `data` of an open connection points to until it points to another, and all
    // that HTTP has there is longer than two words. A request begins with its signature and connection, and
    // nothing else that HTTP has there has the connection second.
    unsafe {
        let is_request = (*r).signature == NGX_HTTP_MODULE && core::ptr::eq((*r).connection, c);
        is_request.then(|| &*r)
    }
}

/// Says what a request is for, of which nginx may have read a part only.
///
/// # Safety
/// The request is live.
pub unsafe fn see(active: &ngx_http_request_t, now: u64, held: &mut Held) -> u64 {
    // SAFETY: a live request has its main request, which is itself if there are no subrequests, and its
    // connection; its texts are in memory that it or its connection owns, and empty until they are read.
    unsafe {
        let Some(main) = active.main.as_ref() else { return 0 };
        held.protocol = protocol(main, held.protocol);
        held.request_since = when(now, main.start_sec, main.start_msec);
        held.method = text(&main.method_name);
        held.path = path(bytes(&main.unparsed_uri), SHOWN);
        if let Some(name) = server_of(main.srv_conf) {
            held.server = name;
        }
        if let Some(c) = main.connection.as_ref() {
            // Where the module realip says that it comes from.
            held.client = address(c.sockaddr, c.socklen);
        }
        let received = u64::try_from(main.request_length).unwrap_or(0);
        let upstream = upstream(active).or_else(|| upstream(main));
        let passed = upstream.map_or(0, |u| see_peer(&u.peer, held));
        received.wrapping_add(passed)
    }
}

unsafe fn protocol(r: &ngx_http_request_t, before: Protocol) -> Protocol {
    // SAFETY: as for `see`; a header that was read lives as long as its request.
    let is_websocket = || unsafe {
        let upgrade = r.headers_in.upgrade.as_ref();
        upgrade.is_some_and(|header| bytes(&header.value).eq_ignore_ascii_case(b"websocket"))
    };
    // SAFETY: as for `see`.
    let upgraded = unsafe { upstream(r) }.is_some_and(|u| u.upgrade() != 0)
        || r.headers_out.status == NGX_HTTP_SWITCHING_PROTOCOLS as usize;
    match u32::try_from(r.http_version).unwrap_or(0) {
        NGX_HTTP_VERSION_20 => Protocol::Http2,
        HTTP_VERSION_30 => Protocol::Http3,
        _ if upgraded && is_websocket() => Protocol::Websocket,
        _ if upgraded => Protocol::Upgraded,
        _ if r.method_name.len > 0 => Protocol::Http1,
        _ => before,
    }
}

/// The upstream of a request, while there is a connection to it.
///
/// # Safety
/// The request is live.
unsafe fn upstream(r: &ngx_http_request_t) -> Option<&ngx_http_upstream_t> {
    // SAFETY: it is in the request's memory.
    unsafe { r.upstream.as_ref() }.filter(|u| !u.peer.connection.is_null())
}

/// Says where requests are passed to. Returns how many bytes were.
///
/// # Safety
/// There is a connection to it.
pub unsafe fn see_peer(peer: &ngx_peer_connection_t, held: &mut Held) -> u64 {
    // SAFETY: nginx closes the connection to a peer before it frees the peer, whose name it has in its own
    // messages until then, and sets the pointer to null when it closes it.
    unsafe {
        if let Some(name) = peer.name.as_ref() {
            held.upstream = clean(bytes(name), SHOWN);
        }
        peer.connection.as_ref().map_or(0, |c| u64::try_from(c.sent).unwrap_or(0))
    }
}

/// The first name of a server, none if it has no name.
///
/// # Safety
/// It is the context of a server of the cycle's.
pub unsafe fn server(context: *const ngx_http_conf_ctx_t) -> Option<String> {
    // SAFETY: as the caller says.
    unsafe { server_of(context.as_ref()?.srv_conf) }
}

unsafe fn server_of(srv_conf: *mut *mut core::ffi::c_void) -> Option<String> {
    if srv_conf.is_null() {
        return None;
    }
    // SAFETY: each context of a server has the core module's configuration, which is complete once the
    // worker runs and lives as long as its cycle.
    unsafe {
        let core =
            (*srv_conf.add(ngx_http_core_module.ctx_index)).cast::<ngx_http_core_srv_conf_t>();
        core.as_ref().map(|core| text(&core.server_name)).filter(|name| !name.is_empty())
    }
}
