//! Handlers in Lua, registered by `lua/resty/worker/manager.lua`.
//!
//! They are entered with the functions of the Lua library, on a thread that is kept for that, and
//! not with callbacks of LuaJIT's FFI: those run on the thread of the last FFI operation
//! (`lj_ccallback_enter`), which may have been collected when the caller is nginx.

use core::cell::Cell;
use core::ffi::{c_void, CStr};
use core::ptr;

use ngx::ffi::{ngx_cycle, ngx_cycle_t};
use roster::{Event, Roster};

use super::call::with_event_for_c;
use crate::nginx::header::{
    ngx_worker_manager_event_t, ngx_worker_manager_lua_t, NGX_WORKER_MANAGER_NIL,
};
use crate::nginx::log::Log;
use crate::nginx::main_thread::MainThreadCell;

/// How many Lua VMs of a configuration there can be: nginx's Lua modules, for http and for stream,
/// have one each.
pub const VMS: usize = 2;

/// The VMs of a configuration and how to enter them, in the order in which they came. Reading a cell
/// writes to no memory, which a worker that has just been forked would have to copy.
#[derive(Default)]
pub struct Vms([Cell<Option<ngx_worker_manager_lua_t>>; VMS]);

impl Vms {
    /// A VM and how to enter it.
    pub fn get(&self, number: usize) -> Option<ngx_worker_manager_lua_t> {
        self.0.get(number)?.get()
    }

    /// Makes a VM known, or known anew. Its number; none if there are too many.
    pub fn set(&self, lua: ngx_worker_manager_lua_t) -> Option<usize> {
        let is_its = |vm: &Cell<Option<ngx_worker_manager_lua_t>>| {
            vm.get().is_none_or(|known| known.state == lua.state)
        };
        let number = self.0.iter().position(is_its)?;
        self.0.get(number)?.set(Some(lua));
        Some(number)
    }
}

/// A handler in Lua.
pub struct Handler {
    /// In which of the configuration's VMs.
    pub vm: usize,
    /// How the Lua side knows it.
    pub number: i32,
    /// Whether it asks for the whole event. What it gets anyway are numbers: a worker that has just
    /// been forked pays for each page it writes to, and Lua's strings and objects are on many.
    pub details: bool,
}

static EVENT: MainThreadCell<Cell<*const ngx_worker_manager_event_t>> =
    MainThreadCell::new(Cell::new(ptr::null()));

/// The event that a handler is called for which asks for it.
pub fn current_event() -> *const ngx_worker_manager_event_t {
    EVENT.get_or(ptr::null())
}

impl Handler {
    /// Calls it. The Lua side catches and logs what goes wrong in it.
    pub fn run(
        &self,
        event: &Event,
        cycle: *mut ngx_cycle_t,
        vms: &Vms,
        roster: Roster<'_>,
        log: Log,
    ) {
        let Some(vm) = vms.get(self.vm) else {
            return;
        };
        // What Lua logs goes to ngx_cycle's log. In init_module that is still the cycle before,
        // which at a cold start has only the log that nginx was built with.
        let before = set_cycle(cycle);
        let succeeded = if self.details {
            with_event_for_c(event, None, roster.error_of(event), |for_c| {
                EVENT.set(for_c);
                let succeeded = self.call(&vm, event, log);
                EVENT.set(ptr::null());
                succeeded
            })
        } else {
            self.call(&vm, event, log)
        };
        set_cycle(before);
        if !succeeded {
            roster.callback_failed(event.kind);
        }
    }

    /// Sets the request that Lua code of its VM's handlers runs for, null for none.
    pub fn set_request(&self, vms: &Vms, request: *mut c_void) {
        let vm = vms.get(self.vm);
        if let Some((vm, setexdata)) = vm.and_then(|vm| Some((vm, vm.setexdata?))) {
            // SAFETY: the VM is open as long as its configuration is in force.
            unsafe { setexdata(vm.state, request) };
        }
    }

    /// Whether it succeeded. Everything that could allocate memory, and so fail, happens inside of
    /// `pcall`.
    fn call(&self, vm: &ngx_worker_manager_lua_t, event: &Event, log: Log) -> bool {
        let enter = (vm.pushvalue, vm.pushinteger, vm.pcall);
        let leave = (vm.toboolean, vm.tolstring, vm.settop);
        let (Some(pushvalue), Some(pushinteger), Some(pcall)) = enter else {
            return false;
        };
        let (Some(toboolean), Some(tolstring), Some(settop)) = leave else {
            return false;
        };
        let nil = NGX_WORKER_MANAGER_NIL as isize;
        let count = |n: Option<u32>| n.map_or(nil, |n| n as isize);
        let pid = if event.kind.is_about_master() { nil } else { event.pid as isize };
        let arguments = [
            self.number as isize,
            event.generation as isize,
            pid,
            count(event.n_prev),
            event.n_mine as isize,
            count(event.n_next),
        ];
        // nginx's Lua module closes the VM with the pool of the cycle, after the last hook of this
        // module. A new thread has room for more values than are pushed here.
        // SAFETY: the VM is open as long as its configuration's callbacks run, the functions are those
        // of the library it runs in, and the thread has the function at the bottom of its stack.
        unsafe {
            pushvalue(vm.state, 1);
            for argument in arguments {
                pushinteger(vm.state, argument as _);
            }
            let status = pcall(vm.state, arguments.len() as _, 1, 0);
            if status != 0 {
                let text = tolstring(vm.state, -1, ptr::null_mut());
                let text = if text.is_null() { c"unknown error" } else { CStr::from_ptr(text) };
                log!(
                    log,
                    Error,
                    "{} {}: {}",
                    event.kind.name(),
                    event.id(),
                    text.to_string_lossy()
                );
            }
            let succeeded = status == 0 && toboolean(vm.state, -1) != 0;
            settop(vm.state, 1);
            succeeded
        }
    }
}

fn set_cycle(cycle: *mut ngx_cycle_t) -> *mut ngx_cycle_t {
    // SAFETY: nginx's one thread. Both cycles are live: that of a configuration whose callbacks run,
    // and the one that is put back.
    unsafe {
        let before = ngx_cycle;
        ngx_cycle = cycle;
        before
    }
}
