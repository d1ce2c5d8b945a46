//! How many programs run at a time on the whole node. Of those that nobody waits for so many, and
//! some more wait for their turn: a storm of events must not become a storm of processes. Of those
//! that are awaited one: who holds the lock awaits it, and the next holder's must not begin before
//! that of one who died is gone.
//!
//! Slot, place and turn are record locks, each on one byte of a file that all processes of a node
//! inherit and nobody sees. The kernel hands them on when their holder ends, however that ends. If
//! there is no file, or the kernel knows no such locks, there is no limit.

use core::ffi::{c_int, c_short};
use core::ptr;
use std::cell::Cell;

use super::errno;
use crate::kill_point;
use crate::process::PerProcess;

/// How many programs run that nobody waits for.
const SLOTS: u32 = 16;

/// How many more wait. All workers of a node may die at once, some hundred even, and each be told. But
/// a crash loop with a program that hangs must not use up the processes that a service or a user may
/// have, mostly some thousands: where nginx can't fork, it goes without that worker for good.
const QUEUE: u32 = 256;

// The bytes of the file, after those of the slots.
/// Who has this one gets the next slot that is free.
const NEXT: u32 = SLOTS;
/// Who has this one runs the program that is awaited.
const TURN: u32 = SLOTS + 1;
/// The first place of the queue.
const PLACES: u32 = SLOTS + 2;

/// What is logged of a program that is turned away.
pub const TURNED_AWAY: &str = "not started, too many programs wait";

/// How long who waits sleeps until it looks again, where the kernel wakes nobody. One process of a
/// node waits so for a slot, and for a turn only whose predecessor was killed.
pub const LOOK_MS: u64 = 10;

static FILE: PerProcess<Cell<c_int>> = PerProcess(Cell::new(-1));

/// Makes the file, once in the life of a node: in the process that loads the first configuration
/// with a program in it.
pub fn prepare() {
    if FILE.get() == -1 {
        // SAFETY: the name is a C string.
        let fd = unsafe { libc::memfd_create(c"worker_manager".as_ptr(), libc::MFD_CLOEXEC) };
        FILE.set(fd);
    }
}

/// The file, for those who close all others; -1 if there is none.
pub fn file() -> c_int {
    FILE.get()
}

/// The place in the queue that a ticket leads to; none if that is taken. Programs begin in the order
/// of their tickets, so then the whole queue is.
pub fn place(ticket: u32) -> Option<u32> {
    let queue = kill_point::content("program_queue").and_then(|n| n.parse().ok()).unwrap_or(QUEUE);
    let place = PLACES + ticket % queue;
    holder(place).is_none().then_some(place)
}

/// Waits at this place until a slot is free, and takes that until this process ends. False if the
/// place was taken meanwhile.
pub fn take(place: u32) -> bool {
    if !try_lock(place) {
        return false;
    }
    // All signals are blocked here, so it returns with the lock, or at once if that can't be had.
    let _ = control(libc::F_SETLKW, libc::F_WRLCK, NEXT);
    while !(0..SLOTS).any(try_lock) {
        // SAFETY: nothing to poll, only time passes.
        unsafe { libc::poll(ptr::null_mut(), 0, LOOK_MS as c_int) };
    }
    for byte in [NEXT, place] {
        let _ = control(libc::F_SETLK, libc::F_UNLCK, byte);
    }
    true
}

/// Takes the turn of the awaited programs until this process ends, unless another has it.
pub fn try_turn() -> bool {
    try_lock(TURN)
}

/// Which process has the turn; 0 if none has.
pub fn turn_holder() -> libc::pid_t {
    holder(TURN).unwrap_or(0)
}

/// How many programs were turned away since one was last started. It stands in the file, since in a
/// crash loop each event is told by another process.
pub fn turned_away() -> u32 {
    let mut count = [0; 4];
    // SAFETY: room for four bytes. If there is no file, or nothing in it, nothing is read.
    unsafe { libc::pread(FILE.get(), count.as_mut_ptr().cast(), count.len(), 0) };
    u32::from_ne_bytes(count)
}

/// Notes it.
pub fn set_turned_away(count: u32) {
    let count = count.to_ne_bytes();
    // SAFETY: four bytes are there to be written. Without the file nothing is.
    unsafe { libc::pwrite(FILE.get(), count.as_ptr().cast(), count.len(), 0) };
}

fn try_lock(byte: u32) -> bool {
    // POSIX leaves open which of the two it is.
    !matches!(control(libc::F_SETLK, libc::F_WRLCK, byte), Err(libc::EAGAIN | libc::EACCES))
}

/// The process, other than this one, that has a byte.
fn holder(byte: u32) -> Option<libc::pid_t> {
    let lock = control(libc::F_GETLK, libc::F_WRLCK, byte).ok()?;
    (lock.l_type != libc::F_UNLCK as c_short).then_some(lock.l_pid)
}

fn control(command: c_int, kind: c_int, byte: u32) -> Result<libc::flock, i32> {
    // SAFETY: all zeros is a valid structure.
    let mut lock: libc::flock = unsafe { core::mem::zeroed() };
    lock.l_type = kind as _;
    lock.l_whence = libc::SEEK_SET as _;
    lock.l_start = byte.into();
    lock.l_len = 1;
    // SAFETY: a valid lock, for a command that takes one. It fails if there is no file.
    match unsafe { libc::fcntl(FILE.get(), command, &mut lock) } {
        -1 => Err(errno()),
        _ => Ok(lock),
    }
}
