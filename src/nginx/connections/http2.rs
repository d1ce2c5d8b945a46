//! The streams of a connection of HTTP/2, which are not among the worker's connections.

use core::ffi::CStr;
use core::slice;

use ngx::ffi::{
    ngx_connection_t, ngx_http_conf_ctx_t, ngx_http_request_t, ngx_http_v2_connection_t,
    ngx_http_v2_node_t, ngx_module_t, ngx_uint_t,
};
use roster::held::Held;

use super::request::{self, server};

/// How many streams of a connection are looked at.
const STREAMS: usize = 1024;

/// Says what a connection is for: its oldest request. Returns a number that is another one if a byte was
/// received, or sent to the upstream of that.
///
/// # Safety
/// `data` points to the `ngx_http_v2_connection_t` of the connection, which is open.
pub unsafe fn see(c: &ngx_connection_t, now: u64, held: &mut Held) -> u64 {
    // SAFETY: it is part of the connection's memory, as is its part for all of HTTP.
    let (h2c, context) = unsafe {
        let h2c = &*c.data.cast::<ngx_http_v2_connection_t>();
        (h2c, h2c.http_connection.as_ref().map(|hc| hc.conf_ctx))
    };
    // SAFETY: the context is the cycle's.
    held.server = context.and_then(|context| unsafe { server(context) }).unwrap_or_default();
    held.requests = u32::try_from(h2c.processing).unwrap_or(u32::MAX);
    let received = u64::try_from(h2c.total_bytes).unwrap_or(0);
    // SAFETY: as above.
    let oldest = context.and_then(|context| unsafe { oldest(h2c, context) });
    // SAFETY: a request of a stream that the connection refers to is live.
    received.wrapping_add(oldest.map_or(0, |r| unsafe { request::see(r, now, held) }))
}

/// The request that is under way for longest.
///
/// # Safety
/// The connection is open, and the context that of its server.
unsafe fn oldest(
    h2c: &ngx_http_v2_connection_t,
    context: *const ngx_http_conf_ctx_t,
) -> Option<&ngx_http_request_t> {
    // Between requests nginx has freed what they had.
    if h2c.processing == 0 || h2c.streams_index.is_null() {
        return None;
    }
    // SAFETY: nginx made the index that long, see `index_size`; it and the nodes are in the connection's
    // memory. A node that has a stream has it until nginx sets that to null, before it frees it
    // (`ngx_http_v2_close_stream`).
    let requests = unsafe {
        let index = slice::from_raw_parts(h2c.streams_index, index_size(context)?);
        let nodes = index.iter().flat_map(|first| {
            let next = |node: &*mut ngx_http_v2_node_t| node.as_ref().map(|node| node.index);
            core::iter::successors(Some(*first), next)
        });
        nodes.take(STREAMS).filter_map(|node| node.as_ref()?.stream.as_ref()?.request.as_ref())
    };
    requests.min_by_key(|r| (r.start_sec, r.start_msec))
}

/// How many lists of streams there are for a connection of a server.
///
/// # Safety
/// The context is that of a server of the cycle's.
unsafe fn index_size(context: *const ngx_http_conf_ctx_t) -> Option<usize> {
    // By name: with --with-compat the nginx that runs may have been built without the module, and older ones
    // do not declare its configuration in what `ngx_http.h` includes. The table of its directives says where
    // in the configuration the number is.
    // SAFETY: looked up among what is loaded for good, it is nginx's module or null. Its directives end with
    // one without a name. The configuration of a server has the number at the offset of its directive, which
    // is a number of its slot (`ngx_conf_set_num_slot`).
    unsafe {
        let module = libc::dlsym(libc::RTLD_DEFAULT, c"ngx_http_v2_module".as_ptr());
        let module = module.cast::<ngx_module_t>().as_ref()?;
        let mut command = module.commands;
        while command.as_ref()?.name.len > 0 {
            if CStr::from_ptr((*command).name.data.cast()) == c"http2_streams_index_size" {
                let conf = *(*context).srv_conf.add(module.ctx_index);
                let mask = conf.cast::<u8>().add((*command).offset).cast::<ngx_uint_t>();
                return mask.as_ref()?.checked_add(1).filter(|size| size.is_power_of_two());
            }
            command = command.add(1);
        }
    }
    None
}
