//! State of this process that nginx's main thread alone gets at.

use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::cell::{Cell, RefCell};

/// The main thread by a thread's identity; 0 until it has used a cell.
static MAIN: AtomicUsize = AtomicUsize::new(0);

/// Whether another thread has asked for a cell.
static REFUSED: AtomicBool = AtomicBool::new(false);

/// State of this process, in a plain static. Not a `thread_local!`: a worker that has just been forked pays
/// for each page that a thread's own storage takes. Nothing of the state is ever dropped.
///
/// nginx calls the module on its main thread alone. A library that `call` has loaded may call the exported
/// functions on another one all the same: there a cell is not to be had, and each user of a cell says what
/// holds then, in most cases what holds in a process that is no worker.
pub struct MainThreadCell<T>(T);

// SAFETY: `here` hands the value to one thread of a process alone. That is the main thread: the kernel gives
// it the number of the process (`is_main`). The address of its `errno` is its identity, which no other
// thread has: the libc allocates it once for the main thread, and never frees it. A child that `fork()`
// makes has a copy of the state and one thread, which is a copy of the one that forked: the main thread
// keeps its identity, and another one gets the state in the child as little as before.
unsafe impl<T> Sync for MainThreadCell<T> {}

impl<T> MainThreadCell<T> {
    /// A cell with a first value, which the compiler makes: no thread has it before.
    pub const fn new(value: T) -> Self {
        MainThreadCell(value)
    }

    /// The value; none on another thread than the main one.
    pub fn here(&self) -> Option<&T> {
        if is_main() {
            return Some(&self.0);
        }
        REFUSED.store(true, Relaxed);
        None
    }
}

impl<T: Copy> MainThreadCell<Cell<T>> {
    /// A copy of the value; `elsewhere` on another thread.
    pub fn get_or(&self, elsewhere: T) -> T {
        self.here().map_or(elsewhere, Cell::get)
    }

    /// Puts another value in its place, which is returned; does nothing and returns `elsewhere` on another
    /// thread.
    pub fn replace_or(&self, value: T, elsewhere: T) -> T {
        self.here().map_or(elsewhere, |cell| cell.replace(value))
    }

    /// Sets the value; does nothing on another thread.
    pub fn set(&self, value: T) {
        if let Some(cell) = self.here() {
            cell.set(value);
        }
    }
}

impl<T> MainThreadCell<RefCell<T>> {
    /// Lets `f` use the value; none on another thread, or if this is called within such a use.
    pub fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> Option<R> {
        let mut value = self.here()?.try_borrow_mut().ok()?;
        Some(f(&mut value))
    }
}

/// Whether another thread was refused since this was asked last.
pub fn take_refused() -> bool {
    REFUSED.load(Relaxed) && REFUSED.swap(false, Relaxed)
}

/// Whether this is the main thread.
pub fn is_main() -> bool {
    // SAFETY: the function has no preconditions; the address is not dereferenced.
    let this = unsafe { libc::__errno_location() } as usize;
    match MAIN.load(Relaxed) {
        0 => {
            // SAFETY: both calls can't fail, and touch no memory.
            let (thread, process) = unsafe { (libc::syscall(libc::SYS_gettid), libc::getpid()) };
            let is_main = thread == libc::c_long::from(process);
            if is_main {
                MAIN.store(this, Relaxed);
            }
            is_main
        }
        main => main == this,
    }
}
