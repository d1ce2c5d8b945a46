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
use crate::header::{
    ngx_worker_manager_event_t, ngx_worker_manager_lua_t, ngx_worker_manager_worker_t,
};
use crate::lifecycle;
use crate::process::{self, Load, Role};
use crate::zone;

pub mod exits;

/// How many Lua VMs of a configuration there can be: nginx's Lua modules, for http and for stream,
/// have one each.
const VMS: usize = 2;

/// What Lua code adds to a configuration.
#[derive(Default)]
pub struct Lua {
    /// The VMs and how to enter them, in the order in which they came. Reading a cell writes to no
    /// memory, which a worker that has just been forked would have to copy.
    vms: [Cell<Option<ngx_worker_manager_lua_t>>; VMS],
    /// Milliseconds, see `Conf::interval`.
    pub interval: Cell<Option<ngx_msec_t>>,
    /// Milliseconds, see `Conf::failed`.
    pub failed: Cell<Option<ngx_msec_t>>,
    /// The names that the zone has to have, where the block was not read yet.
    zones: RefCell<Vec<CString>>,
    /// What was registered before the block was read: `on` lines come first.
    early: Callbacks,
}

impl Lua {
    /// A VM and how to enter it.
    pub fn vm(&self, number: usize) -> Option<ngx_worker_manager_lua_t> {
        self.vms.get(number)?.get()
    }

    /// The number of a VM, which is one more if it is not known yet. None if there are too many.
    fn number_of(&self, lua: &ngx_worker_manager_lua_t) -> Option<usize> {
        self.vms.iter().position(|vm| vm.get().is_none_or(|known| known.state == lua.state))
    }
}

/// The whole of the configuration has been read: what Lua code has said of a block that it came
/// before is checked. The error is a message for the log.
pub fn parsed(conf: &mut Conf) -> Result<(), String> {
    if conf.lua.vm(0).is_none() {
        return Ok(());
    }
    if !conf.enabled {
        return Err(NO_BLOCK.to_string());
    }
    for zone in conf.lua.zones.take() {
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
// SAFETY: the name is the module's own.
#[unsafe(no_mangle)]
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
        return -4;
    }
    // SAFETY: the caller vouches for it; the size is checked before anything else is read.
    let lua = unsafe {
        if (*lua).size != size_of::<ngx_worker_manager_lua_t>() {
            return -3;
        }
        *lua
    };
    let Some(number) = conf.lua.number_of(&lua) else {
        return -2;
    };
    conf.lua.vms[number].set(Some(lua));
    number as c_int
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
    let Some(conf) = conf() else {
        return -1;
    };
    if !zone.is_null() {
        // SAFETY: the caller vouches for the string.
        let zone = unsafe { CStr::from_ptr(zone) };
        if !conf.enabled {
            conf.lua.zones.borrow_mut().push(zone.to_owned());
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
    let Some(conf) = conf() else {
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
    unsafe { *registered = lifecycle::member().is_some().into() };
    api::place().map_or(0, |(_, generation)| generation as i64)
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
    let Some((zone, _)) = api::place() else {
        return -1;
    };
    let mut n = 0;
    for w in zone.roster().workers() {
        if n < room {
            let worker = ngx_worker_manager_worker_t {
                generation: w.generation as i64,
                pid: w.pid.into(),
                worker: w.index.into(),
                draining: (w.draining_since != 0).into(),
                hung: w.hung.into(),
            };
            // SAFETY: the caller vouches for the room.
            unsafe { workers.add(n as usize).write(worker) };
        }
        n += 1;
    }
    n
}

/// The generation that a start of nginx is going to be; see the header.
// SAFETY: the name is the module's own.
#[unsafe(no_mangle)]
pub extern "C" fn ngx_worker_manager_lua_starting() -> i64 {
    let Some(conf) = conf().filter(|conf| !conf.loaded.get()) else {
        return 0;
    };
    // SAFETY: the configuration is of a cycle that is being loaded.
    match unsafe { process::load(conf.cycle) } {
        Load::Cold => zone::last_generation() as i64 + 1,
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
    let Some(conf) = conf() else {
        return -1;
    };
    let handler = Handler { vm: vm as usize, number, details: false };
    // What Lua calls from the thread that handlers run in is told its phase by the request.
    handler.set_request(conf, request);
    if lifecycle::member().is_none() {
        // SAFETY: the global cycle of a worker is the one nginx calls init_process with.
        unsafe { lifecycle::worker_started(ngx_cycle.cast()) };
    } else {
        // That was another VM, or a module that nginx called before this VM's.
        lifecycle::tell_start_to(&handler, conf);
    }
    handler.set_request(conf, core::ptr::null_mut());
    if lifecycle::member().is_some() {
        0
    } else {
        -1
    }
}
