//! Whether the nginx that runs lays out its structures as the headers said that the module was built
//! with. nginx compares versions and a signature of the build options, but distributions patch their
//! nginx: Debian's 1.22.1 has a bit field in a connection that the plain 1.22.1 has not, and what is
//! written to one bit is read from its neighbour.

use core::mem::{offset_of, zeroed};

use ngx::ffi::{
    ngx_connection_t, ngx_core_conf_t, ngx_core_module, ngx_cycle_t, ngx_event_t, ngx_str_t,
    ngx_tcp_nodelay, NGX_OK,
};

/// Tries what can be tried without harm.
///
/// # Safety
/// `cycle` is the one whose configuration is being read.
pub unsafe fn fit(cycle: *const ngx_cycle_t) -> bool {
    // SAFETY: the caller vouches for the cycle.
    unsafe { core_conf_fits(cycle) && connection_fits((*cycle).log) }
}

/// The core module makes its list of `env` before any directive is read. OpenResty, for one, has
/// another member before it.
unsafe fn core_conf_fits(cycle: *const ngx_cycle_t) -> bool {
    // SAFETY: conf_ctx has the core module's configuration from the beginning. Should the members be
    // others, what is read is still memory of nginx's: the structure is longer than what comes up
    // to `env` by more than that.
    unsafe {
        let core = (*(*cycle).conf_ctx.add(ngx_core_module.index)).cast::<ngx_core_conf_t>();
        (*core).env.size == size_of::<ngx_str_t>() && (*core).env.nalloc >= 1
    }
}

/// A connection, and room beyond its end.
#[repr(C)]
struct Room {
    connection: ngx_connection_t,
    _beyond: [u64; 16],
}

const _: () = assert!(offset_of!(Room, _beyond) >= size_of::<ngx_connection_t>());

/// Lets nginx set two of the bits that come last in a connection, and looks for them where they
/// should be.
unsafe fn connection_fits(log: *mut ngx::ffi::ngx_log_t) -> bool {
    // SAFETY: zeros are how nginx makes both.
    let (mut room, mut event) = unsafe { (zeroed::<Room>(), zeroed::<ngx_event_t>()) };
    // SAFETY: the call has no preconditions.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    if socket == -1 {
        // Nothing was learnt, which is no reason to keep nginx from starting.
        return true;
    }
    room.connection.fd = socket;
    room.connection.log = log;
    room.connection.read = &raw mut event;
    room.connection.write = &raw mut event;
    // SAFETY: a connection with its socket, its events and a live log, and room beyond its end, in case that
    // of the running nginx is longer.
    let set = unsafe { ngx_tcp_nodelay((&raw mut room).cast()) } == NGX_OK as isize;
    // SAFETY: the socket was made above.
    unsafe { libc::close(socket) };
    let connection = &room.connection;
    !set || (connection.tcp_nodelay() == 1
        && connection.tcp_nopush() == 0
        && connection.idle() == 0
        && connection.need_last_buf() == 0)
}
