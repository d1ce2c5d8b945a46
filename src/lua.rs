//! What the exported C interface has for `lua/resty/worker/manager.lua`, as
//! `nginx/ngx_worker_manager.h` declares it.

use core::ffi::{c_char, c_int, c_void, CStr};
use core::mem::size_of;
use std::cell::{Cell, RefCell};
use std::ffi::CString;

use ngx::ffi::{ngx_cycle, ngx_msec_t};

use crate::api;
use crate::callback::{current_event, Callback, Handler};
use crate::conf::{Callbacks, Conf, On};
use crate::header::{ngx_worker_manager_event_t, ngx_worker_manager_lua_t};
use crate::lifecycle;
use crate::process::{self, Role};

/// What Lua code adds to a configuration.
#[derive(Default)]
pub struct Lua {
    /// The VM and how to enter it.
    vm: Cell<Option<ngx_worker_manager_lua_t>>,
    /// Milliseconds, see `Conf::interval`.
    pub interval: Cell<Option<ngx_msec_t>>,
    /// Milliseconds, see `Conf::failed`.
    pub failed: Cell<Option<ngx_msec_t>>,
    /// The name that the zone has to have, where the block was not read yet.
    zone: RefCell<Option<CString>>,
    /// What was registered before the block was read: `on` lines come first.
    early: Callbacks,
}

impl Lua {
    /// The VM and how to enter it.
    pub fn vm(&self) -> Option<ngx_worker_manager_lua_t> {
        self.vm.get()
    }
}

/// The whole of the configuration has been read: what Lua code has said of a block that it came
/// before is checked. The error is a message for the log.
pub fn parsed(conf: &mut Conf) -> Result<(), String> {
    if conf.lua.vm().is_none() {
        return Ok(());
    }
    if !conf.enabled {
        return Err(NO_BLOCK.to_string());
    }
    if let Some(zone) = conf.lua.zone.take() {
        if zone.as_c_str() != conf.zone_name() {
            return Err(format!("unknown shm `{}'", zone.to_string_lossy()));
        }
    }
    while let Some(on) = conf.lua.early.pop() {
        conf.callbacks.push(on);
    }
    Ok(())
}

const NO_BLOCK: &str = "resty.worker.manager needs a \"worker_manager\" block";

/// The configuration that this process runs, or that is being loaded: nginx's Lua module makes
/// ngx_cycle the new cycle while it runs init_by_lua.
fn conf<'a>() -> Option<&'a Conf> {
    // SAFETY: nginx's global cycle is live.
    unsafe { Conf::of_module(ngx_cycle.cast()) }.filter(|conf| conf.enabled || !conf.parsed.get())
}

/// Makes a VM known; see the header.
///
/// # Safety
/// `lua` is what the header says.
#[no_mangle]
pub unsafe extern "C" fn ngx_worker_manager_lua_enter(
    lua: *const ngx_worker_manager_lua_t,
    init: c_int,
) -> c_int {
    let Some(conf) = conf() else {
        return -1;
    };
    // Init runs once more, in a new VM, for each request and timer if `lua_code_cache` is off. That
    // VM goes away with them.
    if init != 0 && conf.loaded.get() {
        return 1;
    }
    // SAFETY: the caller vouches for it; the size is checked before anything else is read.
    let lua = unsafe {
        if (*lua).size != size_of::<ngx_worker_manager_lua_t>() {
            return -3;
        }
        *lua
    };
    if conf.lua.vm().is_some_and(|known| known.state != lua.state) {
        return -2;
    }
    conf.lua.vm.set(Some(lua));
    0
}

/// Sets options; see the header.
///
/// # Safety
/// `zone` is null or a C string.
#[no_mangle]
pub unsafe extern "C" fn ngx_worker_manager_lua_options(
    zone: *const c_char,
    interval: i64,
    failed: i64,
) -> c_int {
    let Some(conf) = conf() else {
        return -1;
    };
    if !zone.is_null() {
        // SAFETY: the caller vouches for the string.
        let zone = unsafe { CStr::from_ptr(zone) };
        if !conf.enabled {
            conf.lua.zone.replace(Some(zone.to_owned()));
        } else if zone != conf.zone_name() {
            return -1;
        }
    }
    let given = |time| ngx_msec_t::try_from(time).ok().filter(|time| *time != 0);
    conf.lua.interval.set(given(interval));
    conf.lua.failed.set(given(failed));
    0
}

/// Registers a handler; see the header.
///
/// # Safety
/// `event` is a C string.
#[no_mangle]
pub unsafe extern "C" fn ngx_worker_manager_lua_on(
    event: *const c_char,
    number: c_int,
    details: c_int,
) -> c_int {
    let Some(conf) = conf() else {
        return -1;
    };
    // SAFETY: the caller vouches for the string.
    let Some(kind) = api::kind_from_name(unsafe { CStr::from_ptr(event) }) else {
        return -2;
    };
    let callbacks = if conf.parsed.get() { &conf.callbacks } else { &conf.lua.early };
    let handler = Handler { number, details: details != 0 };
    callbacks.push(On { kind, callback: Callback::Lua(handler) });
    0
}

/// The event that a handler is called for; see the header.
#[no_mangle]
pub extern "C" fn ngx_worker_manager_lua_event() -> *const ngx_worker_manager_event_t {
    current_event()
}

/// Registers this worker; see the header.
///
/// # Safety
/// `request` is the request of the phase init_worker.
#[no_mangle]
pub unsafe extern "C" fn ngx_worker_manager_lua_start(request: *mut c_void) -> c_int {
    if process::role() != Role::Worker {
        return 1;
    }
    let Some(conf) = conf() else {
        return -1;
    };
    if lifecycle::member().is_some() {
        return -2;
    }
    // What Lua calls from the thread that handlers run in is told its phase by the request.
    let vm = conf.lua.vm();
    let set_request = |request| {
        if let Some((vm, setexdata)) = vm.and_then(|vm| Some((vm, vm.setexdata?))) {
            // SAFETY: the VM is open, since it calls this function.
            unsafe { setexdata(vm.state, request) };
        }
    };
    set_request(request);
    // SAFETY: the global cycle of a worker is the one nginx calls init_process with.
    unsafe { lifecycle::worker_started(ngx_cycle.cast()) };
    set_request(core::ptr::null_mut());
    if lifecycle::member().is_some() {
        0
    } else {
        -1
    }
}
