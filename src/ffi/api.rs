//! The exported C interface, as `nginx/ngx_worker_manager.h` declares it.

use core::ffi::{c_char, c_int, c_void, CStr};
use core::mem::size_of;
use core::ptr;

use memoffset::span_of;
use ngx::ffi::ngx_cycle_t;
use roster::Kind;

use crate::actions::{with_event_for_c, Call, Callback, CallbackPt};
use crate::config::{Conf, On};
use crate::delivery::member;
use crate::nginx::cycle::Cycle;
use crate::nginx::header::{ngx_worker_manager_counts_t, NGX_WORKER_MANAGER_NIL};
use crate::nginx::zone::Zone;

/// Registers a callback for the configuration of a cycle; see the header.
///
/// # Safety
/// `cycle` is live, `event` a C string, and `callback` may be called for as long as the cycle
/// lives.
// SAFETY: the name is the module's own.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ngx_worker_manager_on(
    cycle: *const ngx_cycle_t,
    event: *const c_char,
    callback: Option<CallbackPt>,
    data: *mut c_void,
) -> c_int {
    // SAFETY: the caller vouches for the cycle and the name.
    let (cycle, event) = unsafe { (Cycle::from_ptr(cycle), CStr::from_ptr(event)) };
    let Some(conf) = cycle.and_then(Conf::of) else {
        return -1;
    };
    let Some((kind, callback)) = kind_from_name(event).zip(callback) else {
        return -2;
    };
    let callback = Callback::Call(Call::registered(callback, data));
    conf.callbacks.push(On {
        kind,
        callback,
        place: String::new(),
        label: "a registered function".to_string(),
    });
    0
}

/// An event's name as programs give it, `*` for all. None if it is unknown.
pub fn kind_from_name(name: &CStr) -> Option<Option<Kind>> {
    match name.to_str().ok()? {
        "*" => Some(None),
        name => Kind::from_name(name).map(Some),
    }
}

/// The zone, and the generation this process belongs to.
///
/// # Safety
/// The zone is not kept when the function that C has called returns.
pub unsafe fn place<'a>() -> Option<(Zone<'a>, u64)> {
    member().map(|member| (member.zone, member.generation)).or_else(|| {
        // The master, which is no member, has the generation it committed last. nginx's Lua module
        // makes ngx_cycle the new cycle while it runs init_by_lua, before that is committed.
        // SAFETY: the caller vouches for it.
        let cycle = unsafe { Cycle::current() }?;
        let is_loading = Conf::of_module(cycle).is_some_and(|conf| !conf.loaded.get());
        // SAFETY: the cycle is being loaded then.
        let cycle = if is_loading { unsafe { cycle.old() }? } else { cycle };
        let conf = Conf::of(cycle)?;
        let generation = conf.generation.get();
        (generation != 0).then_some((conf.zone()?, generation))
    })
}

/// Reads the history; see the header.
///
/// # Safety
/// `callback` may be called with `data`.
// SAFETY: the name is the module's own.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ngx_worker_manager_history(
    seq: u64,
    callback: Option<CallbackPt>,
    data: *mut c_void,
) -> c_int {
    // SAFETY: the zone is not kept.
    let Some(((zone, _), callback)) = unsafe { place() }.zip(callback) else {
        return -1;
    };
    for (event, took) in zone.roster().history().filter(|(event, _)| event.seq > seq) {
        let error = zone.roster().error_of(&event);
        // SAFETY: the caller vouches for the function.
        let rc = with_event_for_c(&event, took, error, |event| unsafe { callback(event, data) });
        if rc != 0 {
            return rc;
        }
    }
    0
}

/// Reads the counts; see the header.
///
/// # Safety
/// `counts` points to a structure of which at least `size` bytes may be written.
// SAFETY: the name is the module's own.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ngx_worker_manager_counts(
    counts: *mut ngx_worker_manager_counts_t,
) -> c_int {
    // What the structure had when it was first published.
    let least = span_of!(ngx_worker_manager_counts_t, ..=n_older).end;
    // SAFETY: the caller vouches for the size at least.
    let size = unsafe { (*counts).size };
    if size < least {
        return -2;
    }
    // SAFETY: the zone is not kept.
    let Some((zone, generation)) = (unsafe { place() }) else {
        return -1;
    };
    let roster = zone.roster();
    let seen = roster.counts(generation);
    let reloads = roster.reloads();
    let nil = i64::from(NGX_WORKER_MANAGER_NIL);
    let number = |n: Option<u32>| n.map_or(nil, i64::from);
    let attempts = reloads.succeeded.saturating_add(reloads.failed);
    let known = ngx_worker_manager_counts_t {
        size,
        generation: generation as i64,
        n_prev: number(seen.n_prev),
        n_mine: seen.n_mine.into(),
        n_next: number(seen.n_next),
        n_older: seen.n_older.into(),
        reloads: reloads.succeeded as i64,
        reloads_failed: reloads.failed as i64,
        reloaded_at: reloads.succeeded_at.unwrap_or(nil),
        failed_at: reloads.failed_at.unwrap_or(nil),
        reload_duration: if attempts == 0 { nil } else { reloads.duration as i64 },
    };
    // SAFETY: not more than the caller's structure has room for, and not more than there is.
    unsafe {
        let bytes = size.min(size_of::<ngx_worker_manager_counts_t>());
        ptr::copy_nonoverlapping((&raw const known).cast::<u8>(), counts.cast(), bytes);
    }
    0
}
