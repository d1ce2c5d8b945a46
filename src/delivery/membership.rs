//! This process's place in the roster.

use std::cell::Cell;

use roster::WorkerView;

use crate::nginx::clock;
use crate::nginx::main_thread::MainThreadCell;
use crate::nginx::process;
use crate::nginx::zone::Zone;

/// A worker's place in the roster.
#[derive(Clone, Copy)]
pub struct Member {
    /// The zone it is registered in.
    pub zone: Zone<'static>,
    /// Its generation.
    pub generation: u64,
    /// Its slot.
    pub slot: u32,
    /// The number of its `worker_start`: a slot is given to others.
    pub registration: u64,
    /// The slot of its generation.
    pub generation_slot: u32,
    /// Its process. A child that a callback forks has the parent's memory, but is not the worker.
    pub(super) pid: i32,
}

static MEMBER: MainThreadCell<Cell<Option<Member>>> = MainThreadCell::new(Cell::new(None));

impl Member {
    /// Its record, unless the slot is no longer its own.
    pub fn view(&self) -> Option<WorkerView> {
        self.zone.roster().registered(self.slot, self.registration)
    }
}

/// This process's place in the roster, if it is a registered worker.
pub fn member() -> Option<Member> {
    MEMBER.get_or(None).filter(|member| member.pid == process::pid())
}

/// This worker's heartbeat, if it is one: one store.
pub fn beat() {
    if let Some(member) = MEMBER.get_or(None) {
        member.zone.roster().beat(member.slot, member.registration, clock::monotonic());
    }
}

/// This process has this place from here on, or none.
pub fn set_member(member: Option<Member>) {
    MEMBER.set(member);
}
