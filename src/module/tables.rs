//! What nginx looks for: the two modules, and in a shared object the tables of them.

use core::ffi::c_void;
use core::ptr;

use ngx::ffi::{
    ngx_command_t, ngx_conf_t, ngx_core_module_t, ngx_cycle_t, ngx_http_module_t, ngx_int_t,
    ngx_module_t, ngx_uint_t, NGX_CORE_MODULE, NGX_ERROR, NGX_HTTP_MODULE, NGX_OK,
};
use ngx::ngx_string;

use super::{conf, directives, hooks};
use crate::actions::detached;
use crate::http::{self, variables};
use crate::monitor;
use crate::nginx::module;

static mut CONTEXT: ngx_core_module_t = ngx_core_module_t {
    name: ngx_string!("worker_manager"),
    create_conf: Some(create_conf),
    init_conf: Some(conf::init),
};

/// nginx's `create_conf`, the first that it calls of a module.
unsafe extern "C" fn create_conf(cycle: *mut ngx_cycle_t) -> *mut c_void {
    // What lower folders call of higher ones.
    // SAFETY: the static below.
    unsafe { module::set(&raw mut ngx_worker_manager_module) };
    detached::set_wake(monitor::reap_later);
    monitor::drain::on_drain(http::drain);
    // SAFETY: nginx's cycle goes through as it is.
    unsafe { conf::create(cycle) }
}

/// The module.
// SAFETY: the name is the module's own.
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals)]
pub static mut ngx_worker_manager_module: ngx_module_t = ngx_module_t {
    ctx: (&raw mut CONTEXT).cast(),
    commands: (&raw mut directives::COMMANDS).cast::<ngx_command_t>(),
    type_: NGX_CORE_MODULE as _,
    init_module: Some(hooks::init_module),
    init_process: Some(hooks::init_process),
    exit_process: Some(hooks::exit_process),
    exit_master: Some(hooks::exit_master),
    name: ptr::null_mut(),
    ..ngx_module_t::default()
};

static mut HTTP_CONTEXT: ngx_http_module_t = ngx_http_module_t {
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
    ctx: (&raw mut HTTP_CONTEXT).cast::<c_void>(),
    commands: (&raw mut directives::HTTP_COMMANDS).cast::<ngx_command_t>(),
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

// What nginx looks for in a shared object. An nginx that is configured with the module generates
// these tables itself.
#[cfg(feature = "export-modules")]
#[allow(missing_docs)]
mod exported {
    use core::ffi::c_char;
    use core::ptr;

    use ngx::ffi::ngx_module_t;

    use super::{ngx_worker_manager_http_module, ngx_worker_manager_module};

    // SAFETY: nginx looks for the name in this library alone.
    #[unsafe(no_mangle)]
    #[allow(non_upper_case_globals)]
    pub static mut ngx_modules: [*const ngx_module_t; 3] = [
        &raw const ngx_worker_manager_module,
        &raw const ngx_worker_manager_http_module,
        ptr::null(),
    ];

    // SAFETY: nginx looks for the name in this library alone.
    #[unsafe(no_mangle)]
    #[allow(non_upper_case_globals)]
    pub static mut ngx_module_names: [*const c_char; 3] = [
        c"ngx_worker_manager_module".as_ptr(),
        c"ngx_worker_manager_http_module".as_ptr(),
        ptr::null(),
    ];

    // SAFETY: nginx looks for the name in this library alone.
    #[unsafe(no_mangle)]
    #[allow(non_upper_case_globals)]
    pub static mut ngx_module_order: [*const c_char; 1] = [ptr::null()];
}
