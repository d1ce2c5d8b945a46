//! nginx's hooks. None of them ever fails: an error from `init_module` ends the master of a
//! running node, one from `init_process` keeps a worker from being started again.

use ngx::ffi::{ngx_cycle_t, ngx_int_t, NGX_OK};

use crate::actions::detached;
use crate::lifecycle;
use crate::nginx::cycle::Cycle;
use crate::nginx::process::{self, Role};

/// A configuration was loaded.
///
/// # Safety
/// Called by nginx.
pub unsafe extern "C" fn init_module(cycle: *mut ngx_cycle_t) -> ngx_int_t {
    // SAFETY: see `of_hook`.
    if let Some(cycle) = unsafe { of_hook(cycle) } {
        // SAFETY: this is init_module.
        unsafe { lifecycle::loaded(cycle) };
    }
    NGX_OK as ngx_int_t
}

/// A process begins.
///
/// # Safety
/// Called by nginx.
pub unsafe extern "C" fn init_process(cycle: *mut ngx_cycle_t) -> ngx_int_t {
    if process::role() == Role::Worker {
        // SAFETY: see `of_hook`.
        if let Some(cycle) = unsafe { of_hook(cycle) } {
            lifecycle::worker_started(cycle);
        }
    }
    NGX_OK as ngx_int_t
}

/// A process ends. Helpers of some builds come here too; they are nobody in the roster.
///
/// # Safety
/// Called by nginx.
pub unsafe extern "C" fn exit_process(cycle: *mut ngx_cycle_t) {
    // SAFETY: see `of_hook`.
    if let Some(cycle) = unsafe { of_hook(cycle) } {
        lifecycle::worker_exited(cycle);
    }
    detached::settle();
}

/// The node stops.
///
/// # Safety
/// Called by nginx.
pub unsafe extern "C" fn exit_master(cycle: *mut ngx_cycle_t) {
    // SAFETY: see `of_hook`.
    if let Some(cycle) = unsafe { of_hook(cycle) } {
        lifecycle::node_exited(cycle);
    }
}

/// The cycle that nginx calls a hook with. What is kept of a cycle that another one follows is given up in
/// `lifecycle::loaded`; a worker keeps its cycle until it exits.
///
/// # Safety
/// `cycle` is what nginx calls a hook with.
unsafe fn of_hook(cycle: *mut ngx_cycle_t) -> Option<Cycle<'static>> {
    // SAFETY: the caller vouches for it.
    unsafe { Cycle::from_ptr(cycle) }
}
