//! This module among those of a cycle.

use core::ffi::c_void;
use core::{ptr, slice};
use std::cell::Cell;

use ngx::ffi::{ngx_cycle_t, ngx_module_t};

use super::main_thread::MainThreadCell;

/// The module as nginx knows it. Its table names the hooks, so it lies above all that is called from there.
static MODULE: MainThreadCell<Cell<*mut ngx_module_t>> =
    MainThreadCell::new(Cell::new(ptr::null_mut()));

/// Makes the module known, before a first configuration is read.
pub fn set(module: *mut ngx_module_t) {
    MODULE.set(module);
}

/// The module; null if it is not known yet.
fn known() -> *mut ngx_module_t {
    MODULE.get_or(ptr::null_mut())
}

/// Type that a zone's memory belongs to: nginx reuses a zone only for the same tag.
pub fn tag() -> *mut c_void {
    known().cast()
}

/// Whether a cycle has this module. A reload may take the `load_module` line away, and give the index
/// to another module.
///
/// # Safety
/// The cycle is live and its modules are known.
pub unsafe fn is_in(cycle: *const ngx_cycle_t) -> bool {
    // SAFETY: the caller vouches for the cycle, which has so many modules, in an order of their own.
    unsafe { slice::from_raw_parts((*cycle).modules, (*cycle).modules_n).contains(&known()) }
}

/// This module's configuration in a cycle; null if there is none.
///
/// # Safety
/// `cycle` is null, or a live cycle whose modules include this one or which has no configuration yet.
pub unsafe fn configuration(cycle: *const ngx_cycle_t) -> *mut c_void {
    let module = known();
    // SAFETY: the caller vouches for the cycle; conf_ctx has an entry for every module of the cycle. The
    // module is known since its configuration was made, and is a static.
    unsafe {
        if module.is_null() || cycle.is_null() || (*cycle).conf_ctx.is_null() {
            return ptr::null_mut();
        }
        (*(*cycle).conf_ctx.add((*module).index)).cast()
    }
}
