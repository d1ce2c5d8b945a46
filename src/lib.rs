//! ngx-worker-manager: an nginx module that knows which masters and workers of a node are alive and
//! runs what its user configured as they come and go. This file is what nginx looks for.

use core::ptr;

use ngx::ffi::{ngx_command_t, ngx_core_module_t, ngx_module_t, NGX_CORE_MODULE};
use ngx::ngx_string;

#[macro_use]
mod log;

mod api;
mod callback;
mod clock;
mod conf;
mod event_log;
mod former;
mod header;
mod hold;
mod hooks;
mod http;
mod kill_point;
mod lifecycle;
mod losses;
mod lua;
mod oom;
mod order;
mod process;
mod status;
mod uncounted;
mod variables;
mod watch;
mod zone;

static mut CONTEXT: ngx_core_module_t = ngx_core_module_t {
    name: ngx_string!("worker_manager"),
    create_conf: Some(conf::create),
    init_conf: Some(conf::init),
};

/// The module.
// SAFETY: the name is the module's own.
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals)]
pub static mut ngx_worker_manager_module: ngx_module_t = ngx_module_t {
    ctx: (&raw mut CONTEXT).cast(),
    commands: (&raw mut conf::COMMANDS).cast::<ngx_command_t>(),
    type_: NGX_CORE_MODULE as _,
    init_module: Some(hooks::init_module),
    init_process: Some(hooks::init_process),
    exit_process: Some(hooks::exit_process),
    exit_master: Some(hooks::exit_master),
    name: ptr::null_mut(),
    ..ngx_module_t::default()
};

// What nginx looks for in a shared object. An nginx that is configured with the module generates
// these tables itself.
#[cfg(feature = "export-modules")]
#[allow(missing_docs)]
mod tables {
    use core::ffi::c_char;
    use core::ptr;

    use ngx::ffi::ngx_module_t;

    use super::http::ngx_worker_manager_http_module;
    use super::ngx_worker_manager_module;

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
