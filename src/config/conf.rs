//! The `worker_manager` block: what it holds once read.

use std::cell::{Cell, OnceCell, RefCell};
use std::ffi::{CStr, CString};
use std::ptr;
use std::time::Duration;

use ngx::ffi::{
    ngx_conf_t, ngx_cycle_t, ngx_msec_t, ngx_shared_memory_add, ngx_shm_t, ngx_shm_zone_t,
    ngx_str_t,
};

use super::callbacks::Callbacks;
use super::lua::Lua;
use crate::actions::event_log::EventLog;
use crate::actions::ActionContext;
use crate::nginx::cycle::Cycle;
use crate::nginx::zone::{self, Zone};
use crate::nginx::{clock, module};

/// The configuration of one cycle.
pub struct Conf {
    /// Whether the block is there. Without it the module does nothing.
    pub enabled: bool,
    /// Name and size (bytes) of the zone.
    pub zone_name: Option<CString>,
    /// See `zone_name`.
    pub zone_size: Option<usize>,
    /// File and line of the directive `zone`, or of the block if there is none.
    pub place: String,
    /// Heartbeat interval, milliseconds.
    pub interval: Option<ngx_msec_t>,
    /// How far a heartbeat may overrun, milliseconds.
    pub failed: Option<ngx_msec_t>,
    /// How long a program may run, milliseconds.
    pub exec_timeout: Option<ngx_msec_t>,
    /// How long a worker may hold the lock in one callback while others wait, milliseconds; none for ever.
    pub callback_timeout: Option<ngx_msec_t>,
    /// How long a worker may drain until that is told, milliseconds; none for ever.
    pub draining_warn: Option<ngx_msec_t>,
    /// When this configuration began to be read, milliseconds of the monotonic clock.
    pub began: u64,
    /// Whether it got as far as `init_module`.
    pub loaded: Cell<bool>,
    /// The file that every event goes to.
    pub event_log: Option<EventLog>,
    /// The zone, once the block is read.
    shm_zone: *mut ngx_shm_zone_t,
    /// File and line of the first `worker_manager_status`, if there is one.
    pub status: OnceCell<String>,
    /// What runs for which event.
    pub callbacks: Callbacks,
    /// The helper executable that starts programs, if there are any.
    pub helper: OnceCell<CString>,
    /// What a program gets as its environment besides the event's own variables.
    pub environment: RefCell<Vec<CString>>,
    /// The generation that was committed with this configuration; 0 before.
    pub generation: Cell<u64>,
    /// The cycle it is the configuration of, which frees it.
    cycle: *mut ngx_cycle_t,
    /// Whether the whole configuration file has been read.
    pub parsed: Cell<bool>,
    /// What Lua code adds.
    pub lua: Lua,
}

impl Conf {
    /// Name of the zone unless configured.
    pub const ZONE_NAME: &CStr = c"worker_manager";
    /// Size of the zone unless configured, bytes.
    pub const ZONE_SIZE: usize = 256 * 1024;

    /// Name of the zone.
    pub fn zone_name(&self) -> &CStr {
        self.zone_name.as_deref().unwrap_or(Self::ZONE_NAME)
    }

    /// Size of the zone, bytes.
    pub fn zone_size(&self) -> usize {
        self.zone_size.unwrap_or(Self::ZONE_SIZE)
    }

    /// Its zone, if that can be read: it has been initialized.
    pub fn zone(&self) -> Option<Zone<'_>> {
        if self.shm_zone.is_null() {
            return None;
        }
        // SAFETY: the zone that `register` got, whose data is null or what `init` left. nginx keeps it mapped
        // until the cycle is over, and nobody borrows a configuration for longer, see `Cycle`.
        unsafe { Zone::of(self.shm_zone) }
    }

    /// Where nginx has mapped its zone, and how large it is.
    pub fn mapping(&self) -> Option<(*mut u8, usize)> {
        // SAFETY: null, or the zone that `register` got, an entry of the cycle's list.
        let ngx_shm_t { addr, size, .. } = unsafe { self.shm_zone.as_ref() }?.shm;
        Some((addr, size))
    }

    /// Registers its zone; false if that can't be.
    ///
    /// # Safety
    /// `cf` is what nginx passed to a directive's handler, and reads the cycle of this configuration.
    pub unsafe fn register_zone(&mut self, cf: *mut ngx_conf_t) -> bool {
        let name = self.zone_name();
        let mut name = ngx_str_t { len: name.count_bytes(), data: name.as_ptr().cast_mut().cast() };
        // SAFETY: the name lives as long as the configuration, which lives as long as the cycle; nginx logs
        // what is wrong with a name that another module uses.
        let zone = unsafe {
            ngx_shared_memory_add(cf, &mut name, self.zone_size(), module::tag()).as_mut()
        };
        let Some(zone) = zone else {
            return false;
        };
        zone.init = Some(zone::init);
        zone.data = ptr::null_mut();
        self.shm_zone = zone;
        true
    }

    /// The same in C.
    pub fn cycle_ptr(&self) -> *mut ngx_cycle_t {
        self.cycle
    }

    /// The cycle it is the configuration of.
    pub fn cycle(&self) -> Option<Cycle<'_>> {
        // SAFETY: the configuration lies in the cycle's pool, by its cleanup, and nobody borrows it for
        // longer than the cycle is not over.
        unsafe { Cycle::from_ptr(self.cycle) }
    }

    /// Heartbeat interval, milliseconds.
    pub fn interval(&self) -> ngx_msec_t {
        self.lua.interval.get().or(self.interval).unwrap_or(10_000)
    }

    /// How far a heartbeat may overrun, milliseconds.
    pub fn failed(&self) -> ngx_msec_t {
        self.lua.failed.get().or(self.failed).unwrap_or(5_000)
    }

    /// How long a program may run, milliseconds.
    pub fn exec_timeout(&self) -> ngx_msec_t {
        self.exec_timeout.unwrap_or(10_000)
    }

    /// What its actions need of it.
    pub fn action_context(&self) -> ActionContext<'_> {
        ActionContext {
            cycle: self.cycle,
            helper: self.helper.get(),
            environment: &self.environment,
            timeout: Duration::from_millis(self.exec_timeout() as u64),
            vms: &self.lua.vms,
        }
    }

    /// The configuration of a cycle; none if it has no `worker_manager` block.
    pub fn of(cycle: Cycle<'_>) -> Option<&Conf> {
        Conf::of_module(cycle).filter(|conf| conf.enabled)
    }

    /// The configuration in force.
    ///
    /// # Safety
    /// As for [`Cycle::current`].
    pub unsafe fn in_force<'a>() -> Option<&'a Conf> {
        // SAFETY: the caller vouches for it.
        unsafe { Cycle::current() }.and_then(Conf::of)
    }

    /// The configuration of a cycle, with a `worker_manager` block or without.
    pub fn of_module(cycle: Cycle<'_>) -> Option<&Conf> {
        // SAFETY: the module's configuration is what `create_conf` returned, and it lives as long as the
        // cycle's pool.
        unsafe { module::configuration(cycle).cast::<Conf>().as_ref() }
    }

    /// That of a cycle, with nothing in it yet.
    ///
    /// # Safety
    /// The cycle's pool frees it.
    pub unsafe fn new(cycle: *mut ngx_cycle_t) -> Conf {
        Conf {
            enabled: false,
            zone_name: None,
            zone_size: None,
            place: String::new(),
            interval: None,
            failed: None,
            exec_timeout: None,
            callback_timeout: None,
            draining_warn: None,
            event_log: None,
            began: clock::monotonic(),
            loaded: Cell::new(false),
            shm_zone: ptr::null_mut(),
            status: OnceCell::new(),
            callbacks: Callbacks::default(),
            helper: OnceCell::new(),
            environment: RefCell::new(Vec::new()),
            generation: Cell::new(0),
            cycle,
            parsed: Cell::new(false),
            lua: Lua::default(),
        }
    }
}
