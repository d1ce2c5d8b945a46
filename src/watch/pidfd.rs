//! A process that is watched in the event loop, by its pidfd.

use core::ffi::{c_int, c_void};

use ngx::ffi::{
    ngx_connection_t, ngx_event_actions, ngx_event_flags, ngx_event_t, ngx_int_t, ngx_uint_t,
    NGX_OK,
};
use roster::Reason;

use crate::kill_point::simulated;
use crate::log::Log;

/// `NGX_USE_EPOLL_EVENT`: the event method is epoll. The others can't wait for a pidfd or look up
/// the connection of a descriptor in a table of nginx's own.
const USE_EPOLL: ngx_uint_t = 0x40;

/// What nginx's event loop needs for a descriptor. Not one of the worker's connections, since those
/// are counted, and looked through when it ends.
pub struct Pidfd {
    connection: ngx_connection_t,
    read: ngx_event_t,
    write: ngx_event_t,
    fd: c_int,
    waiting: bool,
}

/// How a process that has died ended, as far as its pidfd tells.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// So.
    Known(Reason),
    /// Its parent has not reaped it yet.
    NotReaped,
    /// This kernel does not tell.
    Untold,
}

/// `struct pidfd_info` of linux/pidfd.h, as it was when it got `exit_code`.
#[repr(C)]
struct PidfdInfo {
    mask: u64,
    cgroup: u64,
    ids: [u32; 11],
    exit_code: i32,
}

/// `PIDFD_INFO_EXIT`: since Linux 6.15.
const INFO_EXIT: u64 = 1 << 3;
/// `PIDFD_GET_INFO`, `_IOWR(0xff, 11, struct pidfd_info)`.
const GET_INFO: libc::c_ulong = 3 << 30 | (size_of::<PidfdInfo>() as libc::c_ulong) << 16 | 0xff0b;

impl Pidfd {
    /// One that watches nobody.
    pub const fn new() -> Pidfd {
        // SAFETY: all of it is plain data; 0 is not a descriptor that this could have.
        unsafe { core::mem::zeroed() }
    }

    /// Whether the event loop can watch processes at all.
    pub fn is_supported() -> bool {
        // SAFETY: plain globals, set when the event loop began.
        unsafe { ngx_event_flags & USE_EPOLL != 0 }
    }

    /// Starts to watch a process; `handler` is called once when it has died. The error is an errno.
    ///
    /// # Safety
    /// `this` points to a static that watches nobody, and this thread runs the event loop.
    pub unsafe fn open(
        this: *mut Pidfd,
        pid: i32,
        handler: unsafe extern "C" fn(*mut ngx_event_t),
        log: Log,
    ) -> Result<(), i32> {
        if simulated("no-pidfd") || !Pidfd::is_supported() {
            return Err(libc::ENOSYS);
        }
        // SAFETY: the caller vouches for `this`. pidfd_open sets close-on-exec.
        unsafe {
            let fd = libc::syscall(libc::SYS_pidfd_open, pid, 0) as c_int;
            if fd < 0 {
                return Err(*libc::__errno_location());
            }
            let (connection, read, write) =
                (&raw mut (*this).connection, &raw mut (*this).read, &raw mut (*this).write);
            (*connection).fd = fd;
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
            (*this).fd = fd;
            (*this).waiting = false;
            let add = ngx_event_actions.add;
            if add.is_none_or(|add| add(read, readable(), 0) != NGX_OK as ngx_int_t) {
                libc::close(fd);
                (*this).fd = 0;
                return Err(libc::EPERM);
            }
            (*this).waiting = true;
        }
        Ok(())
    }

    /// Stops the handler from being called, and keeps the descriptor.
    ///
    /// # Safety
    /// `this` points to a static, and this thread runs the event loop.
    pub unsafe fn silence(this: *mut Pidfd) {
        // SAFETY: the caller vouches for `this`.
        unsafe {
            if core::mem::take(&mut (*this).waiting) {
                if let Some(del) = ngx_event_actions.del {
                    del(&raw mut (*this).read, readable(), 0);
                }
            }
        }
    }

    /// Stops to watch.
    ///
    /// # Safety
    /// As for `silence`.
    pub unsafe fn close(this: *mut Pidfd) {
        // SAFETY: the caller vouches for `this`.
        unsafe {
            Pidfd::silence(this);
            if (*this).fd > 0 {
                libc::close((*this).fd);
                (*this).fd = 0;
                (*this).connection.fd = -1;
            }
        }
    }

    /// Whether the process has died. Asked again at each event: one may come late, from before
    /// another process was watched here.
    pub fn has_died(&self) -> bool {
        let mut poll = libc::pollfd { fd: self.fd, events: libc::POLLIN, revents: 0 };
        // SAFETY: one valid entry.
        self.fd > 0 && unsafe { libc::poll(&mut poll, 1, 0) } == 1
    }

    /// How the process ended.
    pub fn ending(&self) -> Ending {
        if self.fd <= 0 || simulated("no-exit-info") {
            return Ending::Untold;
        }
        let mut info = PidfdInfo { mask: INFO_EXIT, cgroup: 0, ids: [0; 11], exit_code: 0 };
        // SAFETY: the descriptor is a pidfd, and the structure as large as the request says.
        let result = unsafe { libc::ioctl(self.fd, GET_INFO as _, &mut info) };
        if result != 0 {
            // Older kernels: ENOTTY or EINVAL if they know no such request, ESRCH if they do but
            // keep nothing of the dead.
            Ending::Untold
        } else if info.mask & INFO_EXIT != 0 {
            Ending::Known(Reason::from_wait_status(info.exit_code))
        } else {
            Ending::NotReaped
        }
    }
}

/// `NGX_READ_EVENT` as ngx_epoll_module has it.
fn readable() -> ngx_int_t {
    (libc::EPOLLIN | libc::EPOLLRDHUP) as ngx_int_t
}

unsafe extern "C" fn ignore(_event: *mut ngx_event_t) {}
