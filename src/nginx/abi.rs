//! Whether the nginx that runs lays out its structures as the headers said that the module was built
//! with. nginx compares versions and a signature of the build options, but distributions patch their
//! nginx: Debian's 1.22.1 has a bit field in a connection that the plain 1.22.1 has not, and what is
//! written to one bit is read from its neighbour.

use core::mem::zeroed;

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

/// Lets nginx set two of the bits that come last in a connection, and looks for them where they
/// should be.
unsafe fn connection_fits(log: *mut ngx::ffi::ngx_log_t) -> bool {
    // SAFETY: zeros are how nginx makes a connection. It gets room beyond its end, in case that of
    // the running nginx is longer. The socket is closed before returning.
    unsafe {
        let mut room = zeroed::<(ngx_connection_t, [u64; 16])>();
        let mut event = zeroed::<ngx_event_t>();
        let connection = &mut room.0;
        let socket = libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
        if socket == -1 {
            // Nothing was learnt, which is no reason to keep nginx from starting.
            return true;
        }
        connection.fd = socket;
        connection.log = log;
        connection.read = &raw mut event;
        connection.write = &raw mut event;
        let set = ngx_tcp_nodelay(connection) == NGX_OK as isize;
        libc::close(socket);
        !set || (connection.tcp_nodelay() == 1
            && connection.tcp_nopush() == 0
            && connection.idle() == 0
            && connection.need_last_buf() == 0)
    }
}
