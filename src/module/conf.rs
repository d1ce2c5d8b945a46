//! nginx's `create_conf` and `init_conf`, and the end of a configuration.

use core::ffi::{c_char, c_void};
use core::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use ngx::ffi::{ngx_cycle_t, ngx_pool_cleanup_add};
use roster::Kind;
use thiserror::Error;

use crate::config::{Conf, On, CONF_ERROR, CONF_OK};
use crate::lifecycle;
use crate::monitor;
use crate::nginx::cycle::Cycle;
use crate::nginx::log::{Level, Log};
use crate::nginx::{load_log, module, process, zone};

/// nginx's `create_conf`: one configuration for a cycle, freed with the cycle's pool.
///
/// # Safety
/// Called by nginx with a cycle that has a pool.
pub unsafe extern "C" fn create(cycle: *mut ngx_cycle_t) -> *mut c_void {
    // SAFETY: a cycle has its pool from the beginning; size 0 asks for no memory of the cleanup's.
    let Some(cleanup) = (unsafe { ngx_pool_cleanup_add((*cycle).pool, 0).as_mut() }) else {
        return ptr::null_mut();
    };
    // SAFETY: the cleanup frees it.
    let conf = unsafe { Conf::new(cycle) };
    let conf = Box::into_raw(Box::new(conf)).cast::<c_void>();
    // SAFETY: as above.
    unsafe { lifecycle::load_begins(cycle) };
    cleanup.handler = Some(destroy);
    cleanup.data = conf;
    conf
}

/// nginx's `init_conf`: the configuration file has been read to its end.
///
/// # Safety
/// Called by nginx with the cycle and what `create` returned.
pub unsafe extern "C" fn init(cycle: *mut ngx_cycle_t, conf: *mut c_void) -> *mut c_char {
    // SAFETY: nothing else holds the configuration now; the cycle is being loaded.
    let (conf, cycle) = unsafe { (&mut *conf.cast::<Conf>(), Cycle::from_ptr(cycle)) };
    let Some(cycle) = cycle else {
        return CONF_ERROR;
    };
    // SAFETY: the cycle is the one that is being loaded.
    unsafe { load_log::follow(cycle) };
    let log = Log::of(cycle);
    conf.parsed.set(true);
    if let Some(place) = conf.status.get().filter(|_| !conf.enabled) {
        log.write(
            Level::Emerg,
            0,
            format_args!(
                "\"worker_manager_status\" directive needs a \"worker_manager\" block in {place}"
            ),
        );
        return CONF_ERROR;
    }
    // `nginx -s stop` reads the configuration too: it must not be refused.
    if conf.enabled && !process::is_signaller() {
        // SAFETY: the cycle is being loaded. The core module comes first in the table of modules, so its
        // init_conf has run.
        let workers = process::worker_processes(cycle, unsafe { process::load(cycle) });
        if let Some(shortage) = zone::shortage(conf.zone_size(), workers as usize) {
            let (name, place) = (conf.zone_name().to_string_lossy(), &conf.place);
            log.write(
                Level::Emerg,
                0,
                format_args!(
                    "zone \"{name}\" is too small for {workers} workers: {shortage} in {place}"
                ),
            );
            return CONF_ERROR;
        }
    }
    warn_of_stalls(cycle, conf, log);
    match parsed(conf) {
        Ok(()) => CONF_OK,
        Err(error) => {
            log!(log, Emerg, "{error}");
            CONF_ERROR
        }
    }
}

/// With `reuseport` each worker has sockets of its own, which exist before it does. nginx tells the old ones
/// to quit 100 ms after a reload has forked the new ones, so clients of one that still awaits a program
/// wait for that. The cycle's configuration has been read.
fn warn_of_stalls(cycle: Cycle<'_>, conf: &Conf, log: Log) {
    let reuseport = cycle.listening().iter().any(|ls| ls.reuseport() != 0);
    if !reuseport || process::is_signaller() {
        return;
    }
    let stalls = |on: &&On| on.matches(Kind::WorkerStart) && on.callback.is_awaited_program();
    for on in conf.callbacks.iter().filter(stalls) {
        log.write(
            Level::Warn,
            0,
            format_args!(
            "\"on\" directive makes clients of \"reuseport\" sockets wait for its program at every \
             reload, \"exec_nowait\" does not, in {}",
            on.place
        ),
        );
    }
}

/// The configuration that an exiting worker does not free. No code reads it, so the attribute has the
/// compiler keep it.
#[used]
static KEPT: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());

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
    // SAFETY: nothing of the cycle is kept.
    let now = unsafe { Cycle::current() };
    if now.is_some_and(|now| now.is_configured() && !module::is_in(now)) {
        monitor::end();
    }
}

/// What Lua code asks for that the configuration does not have.
#[derive(Debug, Error)]
enum ParseError {
    #[error("resty.worker.manager needs a \"worker_manager\" block")]
    NoBlock,
    #[error("unknown shm `{0}'")]
    UnknownZone(String),
}

/// The whole of the configuration has been read: what Lua code has said of a block that it came
/// before is checked.
fn parsed(conf: &mut Conf) -> Result<(), ParseError> {
    if conf.lua.vms.get(0).is_none() {
        return Ok(());
    }
    if !conf.enabled {
        return Err(ParseError::NoBlock);
    }
    for zone in conf.lua.zones.take() {
        if zone.as_c_str() != conf.zone_name() {
            return Err(ParseError::UnknownZone(zone.to_string_lossy().into_owned()));
        }
    }
    while let Some(on) = conf.lua.early.pop() {
        conf.callbacks.push(on);
    }
    Ok(())
}
