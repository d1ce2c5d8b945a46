//! What a connection of the modules stream and mail is for. Either may be a shared object of its own, which
//! need not be there.

use core::ffi::CStr;

use ngx::ffi::ngx_connection_t;
use roster::held::{Held, Protocol};

#[cfg(ngx_feature = "stream")]
use super::request::see_peer;

/// What nginx calls for a connection that a listening socket has accepted.
pub type Handler = unsafe extern "C" fn(*mut ngx_connection_t);

/// Says what a connection is for that came in by a socket with this handler. Returns a number that is
/// another one if a byte was received, or sent to an upstream.
pub fn see(c: &ngx_connection_t, handler: Handler, now: u64, held: &mut Held) -> u64 {
    if is(handler, c"ngx_mail_init_connection") {
        held.protocol = Protocol::Mail;
        return 0;
    }
    if !is(handler, c"ngx_stream_init_connection") {
        return 0;
    }
    held.protocol = Protocol::Stream;
    see_session(c, now, held)
}

/// Whether a function is one of nginx's, or of a module that it has loaded.
fn is(handler: Handler, name: &CStr) -> bool {
    // SAFETY: the name is a C string; what is found is compared, not called.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    !found.is_null() && core::ptr::eq(found, handler as *const libc::c_void)
}

#[cfg(ngx_feature = "stream")]
fn see_session(c: &ngx_connection_t, _now: u64, held: &mut Held) -> u64 {
    use ngx::ffi::{ngx_stream_session_t, NGX_STREAM_MODULE};

    let session = c.data.cast::<ngx_stream_session_t>();
    if session.is_null() {
        return 0;
    }
    // SAFETY: the module stream has its session there while the connection is open, which begins with its
    // signature and the connection. The upstream is in the connection's memory.
    unsafe {
        let session = &*session;
        let is_session =
            session.signature == NGX_STREAM_MODULE && core::ptr::eq(session.connection, c);
        if !is_session {
            return 0;
        }
        let upstream = session.upstream.as_ref().filter(|u| !u.peer.connection.is_null());
        let passed = upstream.map_or(0, |u| see_peer(&u.peer, held));
        u64::try_from(session.received).unwrap_or(0).wrapping_add(passed)
    }
}

/// The headers of an nginx that has the module as a shared object do not say what there is.
#[cfg(not(ngx_feature = "stream"))]
fn see_session(_c: &ngx_connection_t, _now: u64, _held: &mut Held) -> u64 {
    0
}
