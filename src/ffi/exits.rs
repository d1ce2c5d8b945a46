//! The exit callbacks of code written for the original library. There they run when a worker begins to
//! drain, in a timer, where they may open sockets and wait; so they do here. Nobody can hold the
//! node's lock while that lasts, so they take turns: one process at a time runs exit callbacks.
//!
//! What they are told counts the workers that have not had their turn yet, as the original does. Each of the
//! configuration's VMs counts for itself, by marks on workers and generations in the zone.

use core::ffi::c_int;
use core::mem::size_of;

use linux::process::is_gone;
use roster::Kind;

use super::api;
use super::lua::conf;
use crate::actions::VMS;
use crate::config::Conf;
use crate::delivery::{member, Member};
use crate::lifecycle::marks::{count, left};
use crate::monitor::order;
use crate::nginx::header::ngx_worker_manager_counts_t;
use crate::nginx::{clock, process};

/// How long a turn lasts at most, milliseconds, until others no longer wait for it: that of the
/// original's lock.
const TURN: u64 = 5000;

/// Whose turn it is: this process, in one of its VMs. A process's number has 22 bits at most.
fn token(vm: usize) -> u32 {
    (process::pid() as u32) << 1 | vm as u32
}

fn pid_of(token: u32) -> i32 {
    (token >> 1) as i32
}

fn vm_of(token: u32) -> usize {
    (token & 1) as usize
}

/// This process, if it is a registered worker, and the VM.
fn of_worker(vm: c_int) -> Option<(Member, usize)> {
    member().zip(usize::try_from(vm).ok().filter(|vm| *vm < VMS))
}

/// Whether this worker drains since its node stops.
fn is_stopping(member: &Member) -> bool {
    let roster = member.zone.roster();
    roster.worker(member.slot).is_some_and(|me| order::is_stopping(roster, &me))
}

/// Begins this worker's turn; see the header.
///
/// # Safety
/// `counts` points to a structure of which at least `size` bytes may be written, and so may
/// `stopping`.
// SAFETY: the name is the module's own.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ngx_worker_manager_lua_exit_begin(
    vm: c_int,
    counts: *mut ngx_worker_manager_counts_t,
    stopping: *mut c_int,
) -> c_int {
    let Some((member, vm)) = of_worker(vm) else {
        return -1;
    };
    let roster = member.zone.roster();
    // A process that has got the number of one which is gone is waited for no longer than a turn.
    let is_gone = |token| is_gone(pid_of(token), u64::MAX);
    let Some(before) = member.zone.take_turn(token(vm), clock::monotonic(), TURN, is_gone) else {
        return 1;
    };
    // A worker that did not end its turn has had it all the same, also if its death has not been told yet.
    if let Some(w) = roster.workers().find(|w| before != 0 && w.pid == pid_of(before)) {
        roster.mark(w.slot, left(vm_of(before)));
    }
    // SAFETY: the caller vouches for the size at least.
    if unsafe { (*counts).size } < size_of::<ngx_worker_manager_counts_t>() {
        return -1;
    }
    // SAFETY: the caller vouches for both, and the first is whole.
    let (counts, stopping) = unsafe { (&mut *counts, &mut *stopping) };
    // SAFETY: as above.
    if unsafe { api::ngx_worker_manager_counts(counts) } != 0 {
        return -1;
    }
    // This worker itself may just have been taken for hung.
    let n = count(roster, member.generation, left(vm), false);
    counts.n_mine = n.max(1).into();
    *stopping = is_stopping(&member).into();
    0
}

/// This worker's exit callback has run; see the header.
// SAFETY: the name is the module's own.
#[unsafe(no_mangle)]
pub extern "C" fn ngx_worker_manager_lua_exit_end(vm: c_int, succeeded: c_int) -> c_int {
    let Some((member, vm)) = of_worker(vm) else {
        return 0;
    };
    let roster = member.zone.roster();
    roster.mark(member.slot, left(vm));
    if succeeded == 0 {
        roster.callback_failed(Kind::WorkerExit);
    }
    let mut mine = roster.workers().filter(|w| w.generation == member.generation);
    let last = mine.all(|w| roster.marks(w.slot) & left(vm) != 0);
    // Otherwise another worker takes the place of this one.
    let retired = roster.generation(member.generation).is_some_and(|g| g.retired);
    // A worker that was told to end in the very first moment can't say by whom. What is not called now is called
    // at the real end.
    let over = retired || (order::is_known() && is_stopping(&member));
    (last && over && roster.mark_generation(member.generation, vm as u32)).into()
}

/// This worker's turn is over; see the header.
// SAFETY: the name is the module's own.
#[unsafe(no_mangle)]
pub extern "C" fn ngx_worker_manager_lua_exit_done(vm: c_int) {
    if let Some((member, vm)) = of_worker(vm) {
        member.zone.end_turn(token(vm));
    }
}

/// How many workers have not had their turn; see the header.
// SAFETY: the name is the module's own.
#[unsafe(no_mangle)]
pub extern "C" fn ngx_worker_manager_lua_staying(vm: c_int, generation: i64) -> c_int {
    // SAFETY: it is not kept.
    let zone = unsafe { conf() }.and_then(Conf::zone);
    let Some((zone, vm)) = zone.zip(usize::try_from(vm).ok().filter(|vm| *vm < VMS)) else {
        return 0;
    };
    let n = count(zone.roster(), generation as u64, left(vm), false);
    c_int::try_from(n).unwrap_or(c_int::MAX)
}

/// Whether the exit callback of a generation has run; see the header.
// SAFETY: the name is the module's own.
#[unsafe(no_mangle)]
pub extern "C" fn ngx_worker_manager_lua_exited(vm: c_int, generation: i64) -> c_int {
    // SAFETY: it is not kept.
    let marks = unsafe { conf() }
        .and_then(Conf::zone)
        .map_or(0, |zone| zone.roster().generation_marks(generation as u64));
    (marks >> vm & 1) as c_int
}
