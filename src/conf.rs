//! The `worker_manager` block: what it holds once read. How it is read is in `conf/`.

use core::ffi::{c_char, c_void, CStr};
use core::{ptr, slice};
use std::cell::{Cell, OnceCell, RefCell};
use std::ffi::CString;
use std::iter;
use std::sync::atomic::{AtomicPtr, Ordering};

use ngx::ffi::{
    ngx_cycle, ngx_cycle_t, ngx_listening_t, ngx_module_t, ngx_msec_t, ngx_pool_cleanup_add,
    ngx_shm_zone_t,
};
use roster::Kind;

use crate::callback::Callback;
use crate::event_log::EventLog;
use crate::lifecycle;
use crate::lua::{self, Lua};
use crate::nginx::clock;
use crate::nginx::log::Log;
use crate::nginx::process;
use crate::watch;
use crate::zone;

mod block;
mod error;
mod on;

/// nginx's NGX_CONF_OK and NGX_CONF_ERROR.
const CONF_OK: *mut c_char = ptr::null_mut();
const CONF_ERROR: *mut c_char = usize::MAX as *mut c_char;

pub use block::{place, COMMANDS};
pub(crate) use error::ConfError;

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
    pub shm_zone: *mut ngx_shm_zone_t,
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
    /// The cycle it is the configuration of.
    pub cycle: *mut ngx_cycle_t,
    /// Whether the whole configuration file has been read.
    pub parsed: Cell<bool>,
    /// What Lua code adds.
    pub lua: Lua,
}

/// One callback and what it is for.
pub struct On {
    /// The event, none for all (`*`).
    pub kind: Option<Kind>,
    /// What to do.
    pub callback: Callback,
    /// File and line of the directive; empty if there is none.
    pub place: String,
    /// What to call it in the log: `exec announce (nginx.conf:14)`.
    pub label: String,
}

impl On {
    /// Whether it is to run for an event of this kind.
    pub fn matches(&self, kind: Kind) -> bool {
        self.kind.is_none_or(|own| own == kind)
    }
}

/// Callbacks in their order. The list only grows, so that one which runs may add others, and
/// reading it writes to no memory, which a worker that has just been forked would have to copy.
#[derive(Default)]
pub struct Callbacks(OnceCell<Box<Link>>);

struct Link {
    on: On,
    rest: Callbacks,
}

impl Callbacks {
    /// Adds one at the end.
    pub fn push(&self, on: On) {
        let mut end = self;
        while let Some(link) = end.0.get() {
            end = &link.rest;
        }
        end.0.get_or_init(|| Box::new(Link { on, rest: Callbacks::default() }));
    }

    /// Takes the first one off.
    pub fn pop(&mut self) -> Option<On> {
        let Link { on, rest } = *self.0.take()?;
        *self = rest;
        Some(on)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &On> {
        iter::successors(self.0.get(), |link| link.rest.0.get()).map(|link| &link.on)
    }
}

impl Drop for Callbacks {
    fn drop(&mut self) {
        // Link by link: a long list must not end in a deep recursion.
        let mut next = self.0.take();
        while let Some(mut link) = next {
            next = link.rest.0.take();
        }
    }
}

impl Conf {
    /// Name of the zone unless configured.
    pub const ZONE_NAME: &core::ffi::CStr = c"worker_manager";
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

    /// The configuration of a cycle; none if it has no `worker_manager` block.
    ///
    /// # Safety
    /// `cycle` is a live cycle whose modules include this one or which has no configuration yet.
    pub unsafe fn of<'a>(cycle: *const ngx_cycle_t) -> Option<&'a Conf> {
        // SAFETY: the caller vouches for the cycle.
        unsafe { Conf::of_module(cycle) }.filter(|conf| conf.enabled)
    }

    /// The configuration in force, for who is not called as a module of its cycle; see `of`.
    pub fn in_force<'a>() -> Option<&'a Conf> {
        // SAFETY: nginx's global cycle is live, and has its modules if it has a configuration.
        unsafe {
            let cycle: *const ngx_cycle_t = ngx_cycle.cast();
            let has = !cycle.is_null() && !(*cycle).conf_ctx.is_null() && has_module(cycle);
            has.then(|| Conf::of(cycle)).flatten()
        }
    }

    /// The configuration of a cycle, with a `worker_manager` block or without.
    ///
    /// # Safety
    /// As for `of`.
    pub unsafe fn of_module<'a>(cycle: *const ngx_cycle_t) -> Option<&'a Conf> {
        // SAFETY: conf_ctx has an entry for every module of the cycle; ours is what `create`
        // returned, and it lives as long as the cycle's pool.
        unsafe {
            if cycle.is_null() || (*cycle).conf_ctx.is_null() {
                return None;
            }
            let index = crate::ngx_worker_manager_module.index;
            (*(*cycle).conf_ctx.add(index)).cast::<Conf>().as_ref()
        }
    }

    fn new(cycle: *mut ngx_cycle_t) -> Conf {
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

/// nginx's `create_conf`: one configuration for a cycle, freed with the cycle's pool.
///
/// # Safety
/// Called by nginx with a cycle that has a pool.
pub unsafe extern "C" fn create(cycle: *mut ngx_cycle_t) -> *mut c_void {
    // SAFETY: a cycle has its pool from the beginning; size 0 asks for no memory of the cleanup's.
    unsafe {
        let cleanup = ngx_pool_cleanup_add((*cycle).pool, 0);
        if cleanup.is_null() {
            return ptr::null_mut();
        }
        let conf = Box::into_raw(Box::new(Conf::new(cycle))).cast::<c_void>();
        lifecycle::load_begins();
        (*cleanup).handler = Some(destroy);
        (*cleanup).data = conf;
        conf
    }
}

/// nginx's `init_conf`: the configuration file has been read to its end.
///
/// # Safety
/// Called by nginx with the cycle and what `create` returned.
pub unsafe extern "C" fn init(cycle: *mut ngx_cycle_t, conf: *mut c_void) -> *mut c_char {
    // SAFETY: nothing else holds the configuration now; the cycle has its log.
    let (conf, log) = unsafe { (&mut *conf.cast::<Conf>(), Log::of(cycle)) };
    conf.parsed.set(true);
    if let Some(place) = conf.status.get().filter(|_| !conf.enabled) {
        log!(
            log,
            Emerg,
            "\"worker_manager_status\" directive needs a \"worker_manager\" block in {place}"
        );
        return CONF_ERROR;
    }
    // `nginx -s stop` reads the configuration too: it must not be refused.
    if conf.enabled && !process::is_signaller() {
        // SAFETY: the core module comes first in the table of modules, so its init_conf has run.
        let workers = unsafe { process::worker_processes(cycle, process::load(cycle)) };
        if let Some(shortage) = zone::shortage(conf.zone_size(), workers as usize) {
            let (name, place) = (conf.zone_name().to_string_lossy(), &conf.place);
            log!(
                log,
                Emerg,
                "zone \"{name}\" is too small for {workers} workers: {shortage} in {place}"
            );
            return CONF_ERROR;
        }
    }
    // SAFETY: nginx has read the whole configuration, so the cycle has its listening sockets.
    unsafe { warn_of_stalls(cycle, conf, log) };
    match lua::parsed(conf) {
        Ok(()) => CONF_OK,
        Err(message) => {
            log!(log, Emerg, "worker_manager: {message}");
            CONF_ERROR
        }
    }
}

/// With `reuseport` each worker has sockets of its own, which exist before it does. nginx tells the old ones
/// to quit 100 ms after a reload has forked the new ones, so clients of one that still awaits a program
/// wait for that.
///
/// # Safety
/// The cycle's configuration has been read.
unsafe fn warn_of_stalls(cycle: *const ngx_cycle_t, conf: &Conf, log: Log) {
    // SAFETY: the caller vouches for the cycle; `listening` is an array of ngx_listening_t.
    let reuseport = unsafe {
        (*cycle).listening.as_slice::<ngx_listening_t>().iter().any(|ls| ls.reuseport() != 0)
    };
    if !reuseport || process::is_signaller() {
        return;
    }
    let stalls = |on: &&On| on.matches(Kind::WorkerStart) && on.callback.is_awaited_program();
    for on in conf.callbacks.iter().filter(stalls) {
        log!(
            log,
            Warn,
            "\"on\" directive makes clients of \"reuseport\" sockets wait for its program at every \
             reload, \"exec_nowait\" does not, in {}",
            on.place
        );
    }
}

/// The configuration that an exiting worker does not free. Nobody reads it, so that the compiler has to
/// be told to keep it.
#[used]
static KEPT: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());

/// Whether a cycle has this module. A reload may take the `load_module` line away, and give the index
/// to another module.
///
/// # Safety
/// The cycle is live and its modules are known.
unsafe fn has_module(cycle: *const ngx_cycle_t) -> bool {
    // SAFETY: the caller vouches for the cycle, which has so many modules, in an order of their own.
    unsafe {
        let module = (&raw mut crate::ngx_worker_manager_module).cast();
        slice::from_raw_parts((*cycle).modules, (*cycle).modules_n).contains(&module)
    }
}

unsafe extern "C" fn destroy(conf: *mut c_void) {
    // A worker destroys its cycle's pool as the last thing before exit(). Threads that hook libraries
    // have started may still read the texts of `call`. The configuration stays within reach, or it
    // would look like a leak.
    if process::is_worker() {
        KEPT.store(conf, Ordering::Relaxed);
        return;
    }
    // SAFETY: this is the pointer that `create` took from its Box, and pools clean up once.
    let conf = unsafe { Box::from_raw(conf.cast::<Conf>()) };
    if !conf.loaded.get() {
        // ngx_init_cycle() destroys the pool of a cycle that came to nothing.
        lifecycle::load_failed(conf.began);
    }
    // With `master_process off` the event loop goes on, and what the pool cleans up next may be the
    // module itself.
    // SAFETY: nginx's global cycle is live, but for that of ngx_master_process_exit(), which has
    // nothing in it.
    unsafe {
        let now: *const ngx_cycle_t = ngx_cycle.cast();
        if !now.is_null() && !(*now).conf_ctx.is_null() && !has_module(now) {
            watch::end();
        }
    }
}

/// Type that a zone's memory belongs to: nginx reuses a zone only for the same tag.
pub(crate) fn zone_tag() -> *mut c_void {
    (&raw mut crate::ngx_worker_manager_module).cast::<ngx_module_t>().cast()
}
