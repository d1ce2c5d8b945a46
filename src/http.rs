//! The half of the module that http knows.

use core::ffi::c_void;
use core::ptr;

use ngx::ffi::{
    ngx_command_t, ngx_conf_t, ngx_http_module_t, ngx_int_t, ngx_module_t, ngx_uint_t, NGX_ERROR,
    NGX_HTTP_MODULE, NGX_OK,
};

use crate::status;
use crate::variables;

static mut CONTEXT: ngx_http_module_t = ngx_http_module_t {
    preconfiguration: Some(preconfiguration),
    postconfiguration: None,
    create_main_conf: None,
    init_main_conf: None,
    create_srv_conf: None,
    merge_srv_conf: None,
    create_loc_conf: None,
    merge_loc_conf: None,
};

/// The second of the two modules.
// SAFETY: the name is the module's own.
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals)]
pub static mut ngx_worker_manager_http_module: ngx_module_t = ngx_module_t {
    ctx: (&raw mut CONTEXT).cast::<c_void>(),
    commands: (&raw mut status::COMMANDS).cast::<ngx_command_t>(),
    type_: NGX_HTTP_MODULE as ngx_uint_t,
    name: ptr::null_mut(),
    ..ngx_module_t::default()
};

/// nginx's `preconfiguration`: what is used in the http block has to be known before it is read.
unsafe extern "C" fn preconfiguration(cf: *mut ngx_conf_t) -> ngx_int_t {
    // SAFETY: nginx's argument goes through as it is.
    let added = unsafe { variables::add(cf) };
    (if added { NGX_OK as i32 } else { NGX_ERROR }) as ngx_int_t
}
