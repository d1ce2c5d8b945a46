//! What the exported C interface has for `lua/resty/worker/manager.lua`, as
//! `nginx/ngx_worker_manager_lua.h` declares it.

use core::ffi::{c_char, c_int, c_void, CStr};
use core::mem::size_of;

use ngx::ffi::ngx_msec_t;

use super::api;
use crate::actions::{current_event, Callback, Handler};
use crate::config::{Conf, On};
use crate::delivery::member;
use crate::lifecycle;
use crate::nginx::cycle::Cycle;
use crate::nginx::header::{
    ngx_worker_manager_event_t, ngx_worker_manager_lua_t, ngx_worker_manager_worker_t,
};
use crate::nginx::process::{self, Load, Role};
use crate::nginx::zone;

/// The configuration that this process runs, or that is being loaded: nginx's Lua module makes
/// ngx_cycle the new cycle while it runs init_by_lua.
///
/// # Safety
/// It is not kept when the function that C has called returns.
pub unsafe fn conf<'a>() -> Option<&'a Conf> {
    // SAFETY: the caller vouches for it.
    let conf = unsafe { Cycle::current() }.and_then(Conf::of_module);
    conf.filter(|conf| conf.enabled || !conf.parsed.get())
}

/// Makes a VM known; see the header.
///
/// # Safety
/// `lua` is what the header says.
// SAFETY: the name is the module's own.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ngx_worker_manager_lua_enter(
    lua: *const ngx_worker_manager_lua_t,
    init: c_int,
) -> c_int {
    // SAFETY: it is not kept.
    let Some(conf) = (unsafe { conf() }) else {
        return -1;
    };
    // Init runs once more, in a new VM, for each request and timer if `lua_code_cache` is off. That
    // VM goes away with them.
    if init != 0 && conf.loaded.get() {
        return -4;
    }
    // SAFETY: the caller vouches for it; the size is checked before anything else is read.
    let lua = unsafe {
        if (*lua).size != size_of::<ngx_worker_manager_lua_t>() {
            return -3;
        }
        *lua
    };
    conf.lua.vms.set(lua).map_or(-2, |number| number as c_int)
}

/// Sets options; see the header.
///
/// # Safety
/// `zone` is null or a C string.
// SAFETY: the name is the module's own.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ngx_worker_manager_lua_options(
    zone: *const c_char,
    interval: i64,
    failed: i64,
) -> c_int {
    // SAFETY: it is not kept.
    let Some(conf) = (unsafe { conf() }) else {
        return -1;
    };
    if !zone.is_null() {
        // SAFETY: the caller vouches for the string.
        let zone = unsafe { CStr::from_ptr(zone) };
        if !conf.enabled {
            let Ok(mut zones) = conf.lua.zones.try_borrow_mut() else {
                return -1;
            };
            zones.push(zone.to_owned());
        } else if zone != conf.zone_name() {
            return -1;
        }
    }
    for (option, time) in [(&conf.lua.interval, interval), (&conf.lua.failed, failed)] {
        if let Some(time) = ngx_msec_t::try_from(time).ok().filter(|time| *time != 0) {
            option.set(Some(time));
        }
    }
    0
}

/// Registers a handler; see the header.
///
/// # Safety
/// `event` is a C string.
// SAFETY: the name is the module's own.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ngx_worker_manager_lua_on(
    vm: c_int,
    event: *const c_char,
    number: c_int,
    details: c_int,
) -> c_int {
    // SAFETY: it is not kept.
    let Some(conf) = (unsafe { conf() }) else {
        return -1;
    };
    // SAFETY: the caller vouches for the string.
    let Some(kind) = api::kind_from_name(unsafe { CStr::from_ptr(event) }) else {
        return -2;
    };
    let callbacks = if conf.parsed.get() { &conf.callbacks } else { &conf.lua.early };
    let handler = Handler { vm: vm as usize, number, details: details != 0 };
    callbacks.push(On {
        kind,
        callback: Callback::Lua(handler),
        place: String::new(),
        label: "a function in Lua".to_string(),
    });
    0
}

/// The event that a handler is called for; see the header.
// SAFETY: the name is the module's own.
#[unsafe(no_mangle)]
pub extern "C" fn ngx_worker_manager_lua_event() -> *const ngx_worker_manager_event_t {
    current_event()
}

/// The generation of this process; see the header.
///
/// # Safety
/// `registered` may be written.
// SAFETY: the name is the module's own.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ngx_worker_manager_lua_generation(registered: *mut c_int) -> i64 {
    // SAFETY: the caller vouches for it.
    unsafe { *registered = member().is_some().into() };
    // SAFETY: the zone is not kept.
    unsafe { api::place() }.map_or(0, |(_, generation)| generation as i64)
}

/// The running workers; see the header.
///
/// # Safety
/// `workers` has room for so many.
// SAFETY: the name is the module's own.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ngx_worker_manager_lua_workers(
    workers: *mut ngx_worker_manager_worker_t,
    room: c_int,
) -> c_int {
    // SAFETY: the zone is not kept.
    let Some((zone, _)) = (unsafe { api::place() }) else {
        return -1;
    };
    let mut n: c_int = 0;
    for w in zone.roster().workers() {
        if n < room {
            let worker = ngx_worker_manager_worker_t {
                generation: w.generation as i64,
                pid: w.pid.into(),
                worker: w.index.into(),
                draining: w.draining_since.is_some().into(),
                hung: w.hung.into(),
            };
            // SAFETY: the caller vouches for the room.
            unsafe { workers.add(n as usize).write(worker) };
        }
        n = n.saturating_add(1);
    }
    n
}

/// The generation that a start of nginx is going to be; see the header.
// SAFETY: the name is the module's own.
#[unsafe(no_mangle)]
pub extern "C" fn ngx_worker_manager_lua_starting() -> i64 {
    // SAFETY: it is not kept.
    let conf = unsafe { conf() }.filter(|conf| !conf.loaded.get());
    let Some(cycle) = conf.and_then(Conf::cycle) else {
        return 0;
    };
    // SAFETY: the configuration is of a cycle that is being loaded.
    match unsafe { process::load(cycle) } {
        Load::Cold => (zone::last_generation() as i64).saturating_add(1),
        _ => 0,
    }
}

/// Registers this worker; see the header.
///
/// # Safety
/// `request` is the request of the phase init_worker.
// SAFETY: the name is the module's own.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ngx_worker_manager_lua_start(
    vm: c_int,
    number: c_int,
    request: *mut c_void,
) -> c_int {
    if process::role() != Role::Worker {
        return 1;
    }
    // SAFETY: it is not kept.
    let Some(conf) = (unsafe { conf() }) else {
        return -1;
    };
    let handler = Handler { vm: vm as usize, number, details: false };
    // What Lua calls from the thread that handlers run in is told its phase by the request.
    handler.set_request(&conf.lua.vms, request);
    if member().is_none() {
        // SAFETY: the global cycle of a worker is the one nginx calls init_process with.
        if let Some(cycle) = unsafe { Cycle::current() } {
            lifecycle::worker_started(cycle);
        }
    } else {
        // That was another VM, or a module that nginx called before this VM's.
        lifecycle::tell_start_to(&handler, conf);
    }
    handler.set_request(&conf.lua.vms, core::ptr::null_mut());
    if member().is_some() {
        0
    } else {
        -1
    }
}
