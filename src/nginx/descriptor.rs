//! A descriptor that the event loop waits for until it can be read.

use core::ffi::{c_int, c_void};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd, OwnedFd};

use ngx::ffi::{
    ngx_connection_t, ngx_event_actions, ngx_event_flags, ngx_event_t, ngx_int_t, ngx_uint_t,
    NGX_OK,
};

use crate::nginx::log::Log;

/// `NGX_USE_EPOLL_EVENT`: the event method is epoll. The others can't wait for every descriptor or look
/// up the connection of one in a table of nginx's own.
const USE_EPOLL: ngx_uint_t = 0x40;

/// What nginx's event loop needs for a descriptor. Not one of the worker's connections, since those
/// are counted, and looked through when it ends.
pub struct Descriptor {
    connection: ngx_connection_t,
    read: ngx_event_t,
    write: ngx_event_t,
    fd: c_int,
    waiting: bool,
}

impl Descriptor {
    /// None yet.
    pub const fn new() -> Descriptor {
        // SAFETY: all of it is plain data; 0 is not a descriptor that this could have.
        unsafe { core::mem::zeroed() }
    }

    /// Whether the event loop can wait for it at all.
    pub fn is_supported() -> bool {
        // SAFETY: plain globals, set when the event loop began.
        unsafe { ngx_event_flags & USE_EPOLL != 0 }
    }

    /// Lets the handler be called whenever `fd` can be read. The descriptor is closed by `close`, or at
    /// once if that is an error. `owner` is what `owner` gives back.
    ///
    /// # Safety
    /// `this` points to a static that has no descriptor, and this thread runs the event loop.
    pub unsafe fn open(
        this: *mut Descriptor,
        fd: OwnedFd,
        handler: unsafe extern "C" fn(*mut ngx_event_t),
        owner: *mut c_void,
        log: Log,
    ) -> io::Result<()> {
        // SAFETY: the caller vouches for `this`.
        unsafe {
            let (connection, read, write) =
                (&raw mut (*this).connection, &raw mut (*this).read, &raw mut (*this).write);
            (*connection).fd = fd.as_raw_fd();
            (*connection).data = owner;
            (*connection).read = read;
            (*connection).write = write;
            (*connection).log = log.as_ptr();
            for event in [read, write] {
                (*event).data = connection.cast::<c_void>();
                (*event).log = log.as_ptr();
            }
            (*read).handler = Some(handler);
            (*write).handler = Some(ignore);
            // What is still on its way from the epoll of before is then taken for stale.
            (*read).set_instance(u32::from((*read).instance() == 0));
            (*write).set_instance((*read).instance());
            (*this).fd = fd.as_raw_fd();
            (*this).waiting = false;
            let add = ngx_event_actions.add;
            if add.is_none_or(|add| add(read, readable(), 0) != NGX_OK as ngx_int_t) {
                (*this).fd = 0;
                return Err(io::Error::from_raw_os_error(libc::EPERM));
            }
            // `close` closes it.
            let _ = fd.into_raw_fd();
            (*this).waiting = true;
        }
        Ok(())
    }

    /// The descriptor, if there is one.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        // SAFETY: it is open until `close`, which takes it away.
        (self.fd > 0).then(|| unsafe { BorrowedFd::borrow_raw(self.fd) })
    }

    /// The owner that was given to `open`, in the handler.
    ///
    /// # Safety
    /// `event` is what the handler was called with.
    pub unsafe fn owner(event: *mut ngx_event_t) -> *mut c_void {
        // SAFETY: the data of the event is the connection above.
        unsafe { (*(*event).data.cast::<ngx_connection_t>()).data }
    }

    /// Stops the handler from being called, and keeps the descriptor.
    ///
    /// # Safety
    /// `this` points to a static, and this thread runs the event loop.
    pub unsafe fn silence(this: *mut Descriptor) {
        // SAFETY: the caller vouches for `this`.
        unsafe {
            if core::mem::take(&mut (*this).waiting) {
                if let Some(del) = ngx_event_actions.del {
                    del(&raw mut (*this).read, readable(), 0);
                }
            }
        }
    }

    /// Stops to wait, and closes the descriptor.
    ///
    /// # Safety
    /// As for `silence`.
    pub unsafe fn close(this: *mut Descriptor) {
        // SAFETY: the caller vouches for `this`.
        unsafe {
            Descriptor::silence(this);
            if (*this).fd > 0 {
                libc::close((*this).fd);
                (*this).fd = 0;
                (*this).connection.fd = -1;
            }
        }
    }

    /// Whether it can be read now. Asked again at each event: one may come late, from before another
    /// descriptor was waited for here.
    pub fn is_readable(&self) -> bool {
        let mut poll = libc::pollfd { fd: self.fd, events: libc::POLLIN, revents: 0 };
        // SAFETY: one valid entry.
        self.fd > 0 && unsafe { libc::poll(&mut poll, 1, 0) } == 1
    }
}

/// `NGX_READ_EVENT` as ngx_epoll_module has it.
fn readable() -> ngx_int_t {
    (libc::EPOLLIN | libc::EPOLLRDHUP) as ngx_int_t
}

unsafe extern "C" fn ignore(_event: *mut ngx_event_t) {}
