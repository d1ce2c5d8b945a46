//! stub
use ngx::ffi::*;
#[macro_use]
mod log;
use core::ptr;
struct Ctx(ngx_core_module_t);
unsafe impl Sync for Ctx {}
static CTX: Ctx = Ctx(ngx_core_module_t {
    name: ngx_str_t { len: 14, data: c"worker_manager".as_ptr().cast_mut().cast() },
    create_conf: None,
    init_conf: None,
});
static mut CMDS: [ngx_command_t; 1] = [ngx_command_t::empty()];
#[no_mangle]
pub static mut ngx_worker_manager_module: ngx_module_t = ngx_module_t {
    ctx: ptr::addr_of!(CTX).cast_mut().cast(),
    commands: unsafe { ptr::addr_of_mut!(CMDS).cast() },
    type_: NGX_CORE_MODULE as _,
    ..ngx_module_t::default()
};
#[cfg(feature = "export-modules")]
ngx::ngx_modules!(ngx_worker_manager_module);
