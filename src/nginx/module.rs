//! This module among those of a cycle.

use core::ffi::c_void;
use core::{ptr, slice};
use std::cell::Cell;

use ngx::ffi::ngx_module_t;

use super::cycle::Cycle;
use super::main_thread::MainThreadCell;

/// The module as nginx knows it. Its table names the hooks, so it lies above all that is called from there.
static MODULE: MainThreadCell<Cell<*mut ngx_module_t>> =
    MainThreadCell::new(Cell::new(ptr::null_mut()));

/// Makes the module known, before a first configuration is read.
///
/// # Safety
/// `module` is a static, and this module's.
pub unsafe fn set(module: *mut ngx_module_t) {
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

/// This module's configuration in a cycle; null if there is none. A reload may take the `load_module` line
/// away, and give the index to another module.
pub fn configuration(cycle: Cycle<'_>) -> *mut c_void {
    let module = known();
    if module.is_null() || !cycle.is_configured() || !is_in(cycle) {
        return ptr::null_mut();
    }
    // SAFETY: conf_ctx has an entry for every module of the cycle. The module is known since its
    // configuration was made, and is a static.
    unsafe { (*cycle.as_ref().conf_ctx.add((*module).index)).cast() }
}

/// Whether a cycle that is configured has this module.
pub fn is_in(cycle: Cycle<'_>) -> bool {
    let cycle = cycle.as_ref();
    // SAFETY: a cycle that is configured has so many modules, in an order of their own.
    unsafe { slice::from_raw_parts(cycle.modules, cycle.modules_n).contains(&known()) }
}
