//! What all processes of a node inherit for its programs: the file of the queue, and a pipe that closes
//! for helpers when the node has ended.

use core::ffi::c_int;
use std::cell::Cell;
use std::os::fd::IntoRawFd;

use exec::job::Ticket;
use exec::queue::{Notes, Queue, PLACES};

use super::fd::pipe;
use super::spawn::Note;
use crate::nginx::failpoint;
use crate::nginx::main_thread::MainThreadCell;

/// Descriptors that stay open as long as the process lives; -1 if there is none.
#[derive(Clone, Copy)]
struct Node {
    queue: c_int,
    /// The end of a pipe that helpers get: the other one is closed once all processes of the node, which
    /// alone have it, have ended.
    ends: c_int,
}

static NODE: MainThreadCell<Cell<Node>> = MainThreadCell::new(Cell::new(Node::NONE));

fn node() -> Node {
    NODE.get_or(Node::NONE)
}

impl Node {
    const NONE: Node = Node { queue: -1, ends: -1 };
}

/// Makes them, once in the life of a node: in the process that loads the first configuration with a
/// program in it.
pub fn prepare() {
    if node().queue != -1 {
        return;
    }
    // SAFETY: the name is a C string.
    let queue = unsafe { libc::memfd_create(c"worker_manager".as_ptr(), libc::MFD_CLOEXEC) };
    let ends = pipe().map_or(-1, |(ends, lives)| {
        // Stays open for good.
        let _ = lives.into_raw_fd();
        ends.into_raw_fd()
    });
    NODE.set(Node { queue, ends });
}

/// The file of the queue, if there is one.
pub fn queue() -> Option<c_int> {
    Some(node().queue).filter(|&fd| fd != -1)
}

/// The end of a pipe that closes for a helper when the node has ended, if there is such.
pub fn ends() -> Option<c_int> {
    Some(node().ends).filter(|&fd| fd != -1)
}

/// The place of the program with this number; none if the queue is full. The holder of the
/// node's lock asks.
pub fn ticket(number: u32) -> Option<Ticket> {
    let queue = Queue::of(node().queue);
    let places = failpoint::content("program_queue").and_then(|n| n.parse().ok()).unwrap_or(PLACES);
    let place = queue.place(number, places)?;
    let Notes { last, last_place, .. } = queue.notes();
    Some(Ticket { number, place, after: last, after_place: last_place })
}

/// Where the helper of a program is to be recorded, for the one that begins after it.
pub fn note(ticket: Ticket) -> Note {
    Note { file: node().queue, at: Queue::helper_at(ticket.place), word: ticket.number }
}

/// Records that a program was started. How many were turned away before it.
pub fn started(ticket: Ticket) -> u32 {
    let queue = Queue::of(node().queue);
    let turned_away = queue.notes().turned_away;
    queue.set_notes(Notes { turned_away: 0, last: ticket.number, last_place: ticket.place });
    turned_away
}

/// Records that one was turned away. How many were before it.
pub fn turn_away() -> u32 {
    let queue = Queue::of(node().queue);
    queue.turn_away();
    queue.notes().turned_away.saturating_sub(1)
}
