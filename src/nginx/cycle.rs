//! A cycle: what nginx makes of one reading of its configuration.
//!
//! When `ngx_init_cycle()` has called every `init_module`, the cycle before is over: nginx unmaps those of its
//! zones that the new one does not have, and then destroys its pool, the configurations in it. With
//! `master_process off` the pool stays as long as connections refer to it, the zones do not. A worker
//! keeps its cycle until it exits.

use core::marker::PhantomData;
use core::ptr::NonNull;

use ngx::ffi::{ngx_core_conf_t, ngx_core_module, ngx_cycle, ngx_cycle_t, ngx_listening_t};

/// A cycle that is not over within `'a`.
#[derive(Clone, Copy)]
pub struct Cycle<'a>(NonNull<ngx_cycle_t>, PhantomData<&'a ngx_cycle_t>);

impl<'a> Cycle<'a> {
    /// None for null.
    ///
    /// # Safety
    /// `cycle` is null, or a cycle of nginx's that is not over within `'a`.
    pub unsafe fn from_ptr(cycle: *const ngx_cycle_t) -> Option<Cycle<'a>> {
        NonNull::new(cycle.cast_mut()).map(|cycle| Cycle(cycle, PhantomData))
    }

    /// The cycle in force; while nginx's Lua module runs init_by_lua, the one that is being loaded.
    ///
    /// # Safety
    /// Within `'a` this thread does not come back to nginx so far that it could replace the cycle; or what
    /// is kept is given up when `init_module` says that another one follows.
    pub unsafe fn current() -> Option<Cycle<'a>> {
        // SAFETY: nginx's global is null or a cycle at any time; the caller vouches for the rest.
        unsafe { Cycle::from_ptr(ngx_cycle.cast()) }
    }

    /// The C pointer.
    pub fn as_ptr(self) -> *mut ngx_cycle_t {
        self.0.as_ptr()
    }

    /// The structure. nginx changes it, so that the reference must not be kept.
    pub fn as_ref(&self) -> &ngx_cycle_t {
        // SAFETY: the cycle is there, by construction.
        unsafe { self.0.as_ref() }
    }

    /// Whether it has configurations: neither the cycle that `main()` makes to begin with nor the one of
    /// `ngx_master_process_exit()` has.
    pub fn is_configured(self) -> bool {
        !self.as_ref().conf_ctx.is_null()
    }

    /// The cycle before this one.
    ///
    /// # Safety
    /// This cycle is being loaded, or `init_module` is called with it.
    pub unsafe fn old(self) -> Option<Cycle<'a>> {
        // SAFETY: ngx_init_cycle() has set it, and the caller vouches that the function has not returned.
        unsafe { Cycle::from_ptr(self.as_ref().old_cycle) }
    }

    /// The core module's configuration, complete once `init_conf` has been called.
    pub fn core_conf(self) -> Option<&'a ngx_core_conf_t> {
        if !self.is_configured() {
            return None;
        }
        // SAFETY: conf_ctx has an entry for each module, and that of the core module is its configuration
        // from before any directive is read; it lies in the cycle's pool.
        unsafe {
            let core = *self.as_ref().conf_ctx.add(ngx_core_module.index);
            core.cast::<ngx_core_conf_t>().as_ref()
        }
    }

    /// Its listening sockets.
    pub fn listening(&self) -> &[ngx_listening_t] {
        // SAFETY: an array of that type, which ngx_init_cycle() has made before any configuration.
        unsafe { self.as_ref().listening.as_slice() }
    }
}
