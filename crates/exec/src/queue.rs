//! How many programs run at a time on the whole node. Of those that no process awaits so many, and some more
//! wait, in the order in which they were started: a storm of events must not become a storm of processes.
//! Of those that are awaited one: the holder of the node's lock awaits it, and the next holder's must not
//! begin before that of a holder that died is gone.
//!
//! Slot, place and turn are record locks, each on one byte of a file that all processes of a node
//! inherit and that has no name. The kernel hands them on when their holder ends, however that ends. If
//! there is no file, or the kernel knows no such locks, there is no limit.

use std::ffi::{c_int, c_short};
use std::io;
use std::mem::size_of;

use crate::job::Ticket;
use crate::sys::{errno, monotonic, number, poll, pollfd};

/// How many programs run that no process awaits.
const SLOTS: u32 = 16;

/// How many more wait. All workers of a node may die at once, some hundred even, and each death be dispatched. But
/// a crash loop with a program that hangs must not use up the processes that a service or a user may
/// have, mostly some thousands: where nginx can't fork, it goes without that worker for good.
pub const PLACES: u32 = 256;

// The bytes of the file that are locked, after those of the slots.
/// The helper that has this one runs the program that is awaited.
const TURN: u32 = SLOTS;
/// The first place of the queue: taken, the queue is full.
const FIRST_PLACE: u32 = SLOTS + 1;
/// For each place another byte, which the next in the queue waits for. Not the same one: it would look taken.
const FIRST_ORDER: u32 = FIRST_PLACE + PLACES;

/// How long a helper sleeps until it looks again, where the kernel does not wake it, milliseconds. One
/// process of a node waits so for a slot, and for a turn only whose predecessor was killed.
pub const LOOK: u64 = 10;

/// How long a helper may take from its start until it has its place, milliseconds. Then others begin
/// before it.
const START: u64 = 1000;

/// A program that has waited longer does not begin any more when the node stops, milliseconds. One that
/// has waited less may only be late.
const WAITED: u64 = 100;

/// What the file holds: what a process that starts a program has to know of those before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Notes {
    /// How many programs were turned away since one was last started. It stands here, since in a crash
    /// loop each event is dispatched by another process.
    pub turned_away: u32,
    /// Number and place of the one that was started last.
    pub last: u32,
    /// See `last`.
    pub last_place: u32,
}

/// Where the file has each of them.
const NOTES: [libc::off_t; 3] = [0, 4, 8];

/// Where the highest number of a program stands that has begun; 0 if none has.
const BEGUN: libc::off_t = size_of::<Notes>() as libc::off_t;

/// Where for each place the number of the program stands that has it, and the pid of its helper, 0 if that
/// could not be started.
const HELPERS: libc::off_t = BEGUN + 4;

/// The byte of a place.
const fn place_byte(place: u32) -> u32 {
    FIRST_PLACE.saturating_add(place % PLACES)
}

/// The byte that the next after a place waits for.
const fn order_byte(place: u32) -> u32 {
    FIRST_ORDER.saturating_add(place % PLACES)
}

/// What became of a place in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The program begins. The slot is this process's until it ends.
    Begins,
    /// Another process has the place.
    Taken,
    /// The node stops.
    Stops,
}

/// The file of a node's queue.
#[derive(Clone, Copy, Debug)]
pub struct Queue(c_int);

impl Queue {
    /// The queue in this file.
    pub const fn of(file: c_int) -> Queue {
        Queue(file)
    }

    /// The place of a number; none if that is taken. Programs begin in the order of their numbers, so
    /// then the whole queue is. `places` is how many there are.
    pub fn place(self, number: u32, places: u32) -> Option<u32> {
        let place = number.checked_rem(places.clamp(1, PLACES))?;
        self.holder(place_byte(place)).is_none().then_some(place)
    }

    /// Waits until the program may begin.
    pub fn wait(self, ticket: Ticket, node: c_int) -> Place {
        let (place, order) = (place_byte(ticket.place), order_byte(ticket.place));
        if !self.try_lock(place) {
            return Place::Taken;
        }
        let since = monotonic();
        let _ = self.control(libc::F_SETLKW, libc::F_WRLCK, order);
        self.await_predecessor(ticket, since);
        let begins = self.await_slot(node, since);
        // A program that waited no longer for this one has begun already: the count does not go back.
        if !self.has_begun(ticket.number) {
            self.write(&ticket.number.to_ne_bytes(), BEGUN);
        }
        for byte in [order, place] {
            let _ = self.control(libc::F_SETLK, libc::F_UNLCK, byte);
        }
        if begins {
            Place::Begins
        } else {
            Place::Stops
        }
    }

    /// Waits until the one before has begun or is gone.
    fn await_predecessor(self, ticket: Ticket, since: u64) {
        let order = order_byte(ticket.after_place);
        while !self.has_begun(ticket.after) {
            // The process that starts a program may go on before its helper is there.
            let helper = self.helper(ticket.after, ticket.after_place);
            if helper.is_some() && self.holder(order) == helper {
                // All signals are blocked, so this returns when the lock is free.
                let _ = self.control(libc::F_SETLKW, libc::F_RDLCK, order);
                let _ = self.control(libc::F_SETLK, libc::F_UNLCK, order);
                return;
            }
            let is_gone = helper.is_some_and(|pid| {
                // SAFETY: signal 0 only asks whether the process exists.
                pid == 0 || unsafe { libc::kill(pid, 0) } != 0 && errno() == libc::ESRCH
            });
            if is_gone || monotonic() >= since.saturating_add(START) {
                return;
            }
            poll(&mut [], 1);
        }
    }

    /// Waits for a slot; false if the node stops.
    fn await_slot(self, node: c_int, since: u64) -> bool {
        loop {
            let mut stops = [pollfd(node)];
            poll(&mut stops, 0);
            let stops = stops[0].revents != 0;
            if stops && monotonic() >= since.saturating_add(WAITED) {
                return false;
            }
            if (0..SLOTS).any(|slot| self.try_lock(slot)) {
                return true;
            }
            poll(&mut [pollfd(if stops { -1 } else { node })], LOOK);
        }
    }

    /// Takes the turn of the awaited programs, unless another process has it.
    pub fn try_turn(self) -> bool {
        self.try_lock(TURN)
    }

    /// Gives it back.
    pub fn end_turn(self) {
        let _ = self.control(libc::F_SETLK, libc::F_UNLCK, TURN);
    }

    /// Which process has the turn; 0 if none has.
    pub fn turn_holder(self) -> libc::pid_t {
        self.holder(TURN).unwrap_or(0)
    }

    /// Reads the notes.
    pub fn notes(self) -> Notes {
        let [turned_away, last, last_place] = NOTES.map(|at| self.word(at));
        Notes { turned_away, last, last_place }
    }

    /// Writes them.
    pub fn set_notes(self, notes: Notes) {
        let words = [notes.turned_away, notes.last, notes.last_place];
        for (at, word) in NOTES.into_iter().zip(words) {
            self.write(&word.to_ne_bytes(), at);
        }
    }

    /// Notes that one more was turned away.
    pub fn turn_away(self) {
        let count = self.notes().turned_away.saturating_add(1);
        self.write(&count.to_ne_bytes(), 0);
    }

    /// Where the number of a place's program is to be written, with the pid of its helper after it.
    pub const fn helper_at(place: u32) -> libc::off_t {
        HELPERS.saturating_add(((place % PLACES) as libc::off_t).saturating_mul(8))
    }

    /// The helper of a program; 0 if it could not be started, none if that is not known yet.
    fn helper(self, number: u32, place: u32) -> Option<libc::pid_t> {
        let at = Queue::helper_at(place);
        // In this order: both are written at once.
        (self.word(at) == number).then(|| self.word(at.saturating_add(4)) as libc::pid_t)
    }

    /// Numbers begin again some time.
    fn has_begun(self, number: u32) -> bool {
        self.word(BEGUN).wrapping_sub(number) < u32::MAX / 2
    }

    /// 0 if there is no file, or nothing there.
    fn word(self, at: libc::off_t) -> u32 {
        let mut word = [0; 4];
        // SAFETY: room for four bytes.
        unsafe { libc::pread(self.0, word.as_mut_ptr().cast(), word.len(), at) };
        u32::from_ne_bytes(word)
    }

    fn write(self, word: &[u8; 4], at: libc::off_t) {
        // SAFETY: four bytes are there to be written. Without the file nothing is.
        unsafe { libc::pwrite(self.0, word.as_ptr().cast(), word.len(), at) };
    }

    fn try_lock(self, byte: u32) -> bool {
        // POSIX leaves open which of the two it is.
        let locked = self.control(libc::F_SETLK, libc::F_WRLCK, byte);
        !locked.is_err_and(|error| matches!(number(&error), libc::EAGAIN | libc::EACCES))
    }

    /// The process, other than this one, that has a byte.
    fn holder(self, byte: u32) -> Option<libc::pid_t> {
        let lock = self.control(libc::F_GETLK, libc::F_WRLCK, byte).ok()?;
        (lock.l_type != libc::F_UNLCK as c_short).then_some(lock.l_pid)
    }

    fn control(self, command: c_int, kind: c_int, byte: u32) -> io::Result<libc::flock> {
        // SAFETY: all zeros is a valid structure.
        let mut lock: libc::flock = unsafe { std::mem::zeroed() };
        lock.l_type = kind as _;
        lock.l_whence = libc::SEEK_SET as _;
        lock.l_start = byte.into();
        lock.l_len = 1;
        // SAFETY: a valid lock, for a command that takes one. It fails if there is no file.
        match unsafe { libc::fcntl(self.0, command, &mut lock) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(lock),
        }
    }
}

#[cfg(test)]
mod tests;
