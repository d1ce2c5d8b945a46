//! The exported C interface, as `nginx/ngx_worker_manager.h` declares it.

use core::ffi::{c_char, c_int, c_void, CStr};
use core::mem::{offset_of, size_of};

use ngx::ffi::{ngx_cycle, ngx_cycle_t};
use roster::Kind;

use crate::callback::{Call, Callback, CallbackPt};
use crate::conf::{Conf, On};
use crate::header::{ngx_worker_manager_counts_t, NGX_WORKER_MANAGER_NIL};
use crate::lifecycle;
use crate::zone;

/// Registers a callback for the configuration of a cycle; see the header.
///
/// # Safety
/// `cycle` is live, `event` a C string, and `callback` may be called for as long as the cycle
/// lives.
#[no_mangle]
pub unsafe extern "C" fn ngx_worker_manager_on(
    cycle: *const ngx_cycle_t,
    event: *const c_char,
    callback: Option<CallbackPt>,
    data: *mut c_void,
) -> c_int {
    // SAFETY: the caller vouches for the cycle and the name.
    let (conf, event) = unsafe { (Conf::of(cycle), CStr::from_ptr(event)) };
    let Some(conf) = conf else {
        return -1;
    };
    let kind = match event.to_str() {
        Ok("*") => None,
        Ok(name) => match Kind::from_name(name) {
            Some(kind) => Some(kind),
            None => return -2,
        },
        Err(_) => return -2,
    };
    let Some(callback) = callback else {
        return -2;
    };
    let callback = Callback::Call(Call::registered(callback, data));
    conf.callbacks.push(On { kind, callback });
    0
}

/// Reads the counts; see the header.
///
/// # Safety
/// `counts` points to a structure of which at least `size` bytes may be written.
#[no_mangle]
pub unsafe extern "C" fn ngx_worker_manager_counts(
    counts: *mut ngx_worker_manager_counts_t,
) -> c_int {
    const LEAST: usize = offset_of!(ngx_worker_manager_counts_t, n_older) + size_of::<i64>();
    // SAFETY: the caller vouches for the size at least.
    if unsafe { (*counts).size } < LEAST {
        return -2;
    }
    let place = lifecycle::member().map(|member| (member.zone, member.generation)).or_else(|| {
        // The master, which is no member, has the generation it committed last.
        // SAFETY: nginx's global cycle is live.
        let conf = unsafe { Conf::of(ngx_cycle.cast()) }?;
        let generation = conf.generation.get();
        (generation != 0).then_some((zone::of_conf(conf)?, generation))
    });
    let Some((zone, generation)) = place else {
        return -1;
    };
    let seen = zone.roster().counts(generation);
    let number = |n: Option<u32>| n.map_or(i64::from(NGX_WORKER_MANAGER_NIL), i64::from);
    // SAFETY: the size covers all fields written here.
    unsafe {
        (*counts).generation = generation as i64;
        (*counts).n_prev = number(seen.n_prev);
        (*counts).n_mine = seen.n_mine.into();
        (*counts).n_next = number(seen.n_next);
        (*counts).n_older = seen.n_older.into();
    }
    0
}
