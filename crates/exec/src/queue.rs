//! How many programs run at a time on the whole node. Of those that nobody awaits so many, and some more
//! wait, in the order in which they were started: a storm of events must not become a storm of processes.
//! Of those that are awaited one: who holds the node's lock awaits it, and the next holder's must not begin
//! before that of one who died is gone.
//!
//! Slot, place and turn are record locks, each on one byte of a file that all processes of a node
//! inherit and nobody sees. The kernel hands them on when their holder ends, however that ends. If
//! there is no file, or the kernel knows no such locks, there is no limit.

use std::ffi::{c_int, c_short};
use std::io;
use std::mem::size_of;

use crate::job::Ticket;
use crate::sys::{errno, monotonic, number, poll, pollfd};

/// How many programs run that nobody awaits.
const SLOTS: u32 = 16;

/// How many more wait. All workers of a node may die at once, some hundred even, and each be told. But
/// a crash loop with a program that hangs must not use up the processes that a service or a user may
/// have, mostly some thousands: where nginx can't fork, it goes without that worker for good.
pub const PLACES: u32 = 256;

// The bytes of the file that are locked, after those of the slots.
/// Who has this one runs the program that is awaited.
const TURN: u32 = SLOTS;
/// The first place of the queue: taken, the queue is full.
const FIRST_PLACE: u32 = SLOTS + 1;
/// For each place another byte, which the next in the queue waits for. Not the same one: it would look taken.
const FIRST_ORDER: u32 = FIRST_PLACE + PLACES;

/// How long who waits sleeps until it looks again, where the kernel wakes nobody, milliseconds. One
/// process of a node waits so for a slot, and for a turn only whose predecessor was killed.
pub const LOOK: u64 = 10;

/// How long a helper may take from its start until it has its place, milliseconds. Then others begin
/// before it.
const START: u64 = 1000;

/// What waits longer does not begin any more when the node stops, milliseconds. Who waits less may
/// only be late.
const WAITED: u64 = 100;

/// What the file holds: what a process that starts a program has to know of those before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Notes {
    /// How many programs were turned away since one was last started. It stands here, since in a crash
    /// loop each event is told by another process.
    pub turned_away: u32,
    /// Number and place of the one that was started last.
    pub last: u32,
    /// See `last`.
    pub last_place: u32,
}

/// Where the highest number of a program stands that has begun; 0 if none has.
const BEGUN: libc::off_t = size_of::<Notes>() as libc::off_t;

/// Where for each place the number of the program stands that has it, and the pid of its helper, 0 if that
/// could not be started.
const HELPERS: libc::off_t = BEGUN + 4;

/// What became of a place in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The program begins. The slot is this process's until it ends.
    Begins,
    /// Somebody else has the place.
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
        let place = number % places.clamp(1, PLACES);
        self.holder(FIRST_PLACE + place).is_none().then_some(place)
    }

    /// Waits until the program may begin.
    pub fn wait(self, ticket: Ticket, node: c_int) -> Place {
        let place = FIRST_PLACE + ticket.place % PLACES;
        let order = FIRST_ORDER + ticket.place % PLACES;
        if !self.try_lock(place) {
            return Place::Taken;
        }
        let since = monotonic();
        let _ = self.control(libc::F_SETLKW, libc::F_WRLCK, order);
        self.await_predecessor(ticket, since);
        let begins = self.await_slot(node, since);
        // Who waited no longer for this one has begun already: the count does not go back.
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
        let order = FIRST_ORDER + ticket.after_place % PLACES;
        while !self.has_begun(ticket.after) {
            // Who starts a program may go on before its helper is there.
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
            if is_gone || monotonic() >= since + START {
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
            if stops && monotonic() >= since + WAITED {
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
        let word = |n: usize| self.word((n * 4) as libc::off_t);
        Notes { turned_away: word(0), last: word(1), last_place: word(2) }
    }

    /// Writes them.
    pub fn set_notes(self, notes: Notes) {
        let words = [notes.turned_away, notes.last, notes.last_place];
        for (n, word) in words.into_iter().enumerate() {
            self.write(&word.to_ne_bytes(), (n * 4) as libc::off_t);
        }
    }

    /// Notes that one more was turned away.
    pub fn turn_away(self) {
        let count = self.notes().turned_away.saturating_add(1);
        self.write(&count.to_ne_bytes(), 0);
    }

    /// Where the number of a place's program is to be written, with the pid of its helper after it.
    pub const fn helper_at(place: u32) -> libc::off_t {
        HELPERS + (place % PLACES) as libc::off_t * 8
    }

    /// The helper of a program; 0 if it could not be started, none if that is not known yet.
    fn helper(self, number: u32, place: u32) -> Option<libc::pid_t> {
        let at = Queue::helper_at(place);
        // In this order: both are written at once.
        (self.word(at) == number).then(|| self.word(at + 4) as libc::pid_t)
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
mod tests {
    use super::*;

    fn queue() -> Queue {
        // SAFETY: the name is a C string.
        Queue::of(unsafe { libc::memfd_create(c"queue".as_ptr(), libc::MFD_CLOEXEC) })
    }

    fn ticket(number: u32) -> Ticket {
        Ticket { number, place: number % PLACES, ..Ticket::default() }
    }

    /// A process that runs something, answers with what that returns, and stays.
    struct Elsewhere {
        pid: libc::pid_t,
        answer: c_int,
    }

    fn elsewhere(run: impl FnOnce() -> u8) -> Elsewhere {
        let mut answer = [0; 2];
        // SAFETY: the child calls nothing but this crate's system calls, and ends without returning.
        unsafe {
            libc::pipe(answer.as_mut_ptr());
            let pid = libc::fork();
            if pid == 0 {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                libc::write(answer[1], [run()].as_ptr().cast(), 1);
                loop {
                    libc::pause();
                }
            }
            libc::close(answer[1]);
            Elsewhere { pid, answer: answer[0] }
        }
    }

    fn answer(of: &Elsewhere) -> u8 {
        let (mut answer, mut fds) = ([0], [pollfd(of.answer)]);
        poll(&mut fds, 20_000);
        assert!(fds[0].revents != 0, "no answer");
        // SAFETY: room for one byte.
        unsafe { libc::read(of.answer, answer.as_mut_ptr().cast(), 1) };
        answer[0]
    }

    fn is_waiting(of: &Elsewhere) -> bool {
        let mut fds = [pollfd(of.answer)];
        poll(&mut fds, 50);
        fds[0].revents == 0
    }

    fn end(of: Elsewhere) {
        // SAFETY: our own child and descriptor.
        unsafe {
            libc::kill(of.pid, libc::SIGKILL);
            libc::waitpid(of.pid, std::ptr::null_mut(), 0);
            libc::close(of.answer);
        }
    }

    #[test]
    fn notes_stay_in_the_file() {
        let queue = queue();
        assert_eq!(queue.notes(), Notes::default());
        let notes = Notes { turned_away: 1, last: u32::MAX, last_place: 7 };
        queue.set_notes(notes);
        queue.turn_away();
        assert_eq!(queue.notes(), Notes { turned_away: 2, ..notes });
    }

    #[test]
    fn sixteen_run_and_the_next_waits_for_the_end_of_one() {
        let queue = queue();
        let mut running: Vec<_> =
            (0..16).map(|n| elsewhere(|| queue.wait(ticket(n), -1) as u8)).collect();
        assert!(running.iter().all(|one| answer(one) == Place::Begins as u8));
        let next = elsewhere(|| queue.wait(ticket(16), -1) as u8);
        assert!(is_waiting(&next));
        assert_eq!(queue.place(16 + PLACES, PLACES), None);
        end(running.remove(3));
        assert_eq!(answer(&next), Place::Begins as u8);
        running.into_iter().chain([next]).for_each(end);
    }

    #[test]
    fn they_begin_in_the_order_of_their_numbers() {
        let queue = queue();
        let (mut gate, number) = ([0; 2], 41);
        // SAFETY: room for two descriptors.
        unsafe { libc::pipe(gate.as_mut_ptr()) };
        let first = elsewhere(|| {
            poll(&mut [pollfd(gate[0])], 10_000);
            queue.wait(ticket(number), -1) as u8
        });
        let after = Ticket { after: number, after_place: number, ..ticket(number + 1) };
        let second = elsewhere(|| queue.wait(after, -1) as u8);
        assert!(is_waiting(&second));
        queue.write(&number.to_ne_bytes(), Queue::helper_at(number));
        queue.write(&(first.pid as u32).to_ne_bytes(), Queue::helper_at(number) + 4);
        assert!(is_waiting(&second));
        // SAFETY: one byte is there to be written.
        unsafe { libc::write(gate[1], [0u8].as_ptr().cast(), 1) };
        assert_eq!(answer(&first), Place::Begins as u8);
        assert_eq!(answer(&second), Place::Begins as u8);
        end(first);
        end(second);
    }

    #[test]
    fn the_first_begins_before_the_second() {
        let queue = queue();
        let next =
            elsewhere(|| queue.wait(Ticket { after: 1, after_place: 1, ..ticket(2) }, -1) as u8);
        assert!(is_waiting(&next));
        let first = elsewhere(|| queue.wait(ticket(1), -1) as u8);
        assert_eq!(answer(&first), Place::Begins as u8);
        assert_eq!(answer(&next), Place::Begins as u8);
        end(first);
        end(next);
    }

    #[test]
    fn a_late_one_does_not_set_back_what_has_begun() {
        let queue = queue();
        for number in [2, 1] {
            let one = elsewhere(|| queue.wait(ticket(number), -1) as u8);
            assert_eq!(answer(&one), Place::Begins as u8);
            end(one);
        }
        assert!(queue.has_begun(2));
    }

    #[test]
    fn one_that_could_not_be_started_holds_up_nobody() {
        let queue = queue();
        let after = Ticket { after: 41, after_place: 41, ..ticket(42) };
        let next = elsewhere(|| queue.wait(after, -1) as u8);
        assert!(is_waiting(&next));
        let begun = monotonic();
        queue.write(&41u32.to_ne_bytes(), Queue::helper_at(41));
        assert_eq!(answer(&next), Place::Begins as u8);
        assert!(monotonic() - begun < START / 2);
        end(next);
    }

    #[test]
    fn who_waits_when_the_node_stops_does_not_begin() {
        let queue = queue();
        let mut node = [0; 2];
        // SAFETY: room for two descriptors.
        unsafe { libc::pipe(node.as_mut_ptr()) };
        let running: Vec<_> =
            (0..16).map(|n| elsewhere(|| queue.wait(ticket(n), node[0]) as u8)).collect();
        running.iter().for_each(|one| assert_eq!(answer(one), Place::Begins as u8));
        let next = elsewhere(|| queue.wait(ticket(16), node[0]) as u8);
        assert!(is_waiting(&next));
        // SAFETY: one byte is there to be written.
        unsafe { libc::write(node[1], [0u8].as_ptr().cast(), 1) };
        assert_eq!(answer(&next), Place::Stops as u8);
        running.into_iter().chain([next]).for_each(end);
    }

    #[test]
    fn a_turn_is_one_process_s() {
        let queue = queue();
        let other = elsewhere(|| u8::from(queue.try_turn()));
        assert_eq!(answer(&other), 1);
        assert!(!queue.try_turn());
        assert_eq!(queue.turn_holder(), other.pid);
        end(other);
        assert!(queue.try_turn());
        queue.end_turn();
    }
}
