//! nginx's `create_conf` and `init_conf`, and the end of a configuration.

use core::ffi::{c_char, c_void};
use core::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use ngx::ffi::{ngx_cycle, ngx_cycle_t, ngx_listening_t, ngx_pool_cleanup_add};
use roster::Kind;
use thiserror::Error;

use crate::config::{Conf, On, CONF_ERROR, CONF_OK};
use crate::lifecycle;
use crate::monitor;
use crate::nginx::log::{Level, Log};
use crate::nginx::{module, process, zone};

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
        // SAFETY: the core module comes first in the table of modules, so its init_conf has run.
        let workers = unsafe { process::worker_processes(cycle, process::load(cycle)) };
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
    // SAFETY: nginx has read the whole configuration, so the cycle has its listening sockets.
    unsafe { warn_of_stalls(cycle, conf, log) };
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
    // SAFETY: nginx's global cycle is live, but for that of ngx_master_process_exit(), which has
    // nothing in it.
    unsafe {
        let now: *const ngx_cycle_t = ngx_cycle.cast();
        if !now.is_null() && !(*now).conf_ctx.is_null() && !module::is_in(now) {
            monitor::end();
        }
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
