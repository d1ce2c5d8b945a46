//! nginx's error logs, for the helper to write to them itself.

use core::ffi::{c_int, CStr};
use core::iter::successors;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use exec::job;
use ngx::ffi::{ngx_log_t, ngx_syslog_add_header, ngx_syslog_peer_t, ngx_syslog_writer};

use super::fd::above_standard;
use crate::nginx::log::Log;

/// The logs, and sockets to be kept open until the helper has them.
pub fn of(log: Log) -> (Vec<job::Log>, Vec<OwnedFd>) {
    let mut sockets = Vec::new();
    let logs = chain(log).filter_map(|log| {
        // SAFETY: a live log; the writer says what wdata is. Another writer, the one to memory,
        // has no file.
        let (fd, syslog) = unsafe {
            let is_syslog = (*log)
                .writer
                .is_some_and(|writer| writer as *const () == ngx_syslog_writer as *const ());
            if is_syslog {
                let peer = (*log).wdata.cast::<ngx_syslog_peer_t>();
                (socket(peer, &mut sockets)?, Some(syslog(peer)))
            } else if (*log).writer.is_none() {
                ((*log).file.as_ref()?.fd, None)
            } else {
                return None;
            }
        };
        // SAFETY: as above. Debugging levels are bits above the others.
        let level = unsafe { (*log).log_level }.min(8) as u8;
        (fd >= 0).then_some(job::Log { fd, level, syslog })
    });
    (logs.collect(), sockets)
}

fn chain(log: Log) -> impl Iterator<Item = *mut ngx_log_t> {
    // SAFETY: a chain of live logs, ending with null.
    successors(Some(log.as_ptr()), |&log| Some(unsafe { (*log).next }).filter(|l| !l.is_null()))
}

/// The socket of a syslog server. nginx connects it with the first line that it writes; until then
/// this makes another.
///
/// # Safety
/// The peer is that of a live log.
unsafe fn socket(peer: *mut ngx_syslog_peer_t, sockets: &mut Vec<OwnedFd>) -> Option<c_int> {
    // SAFETY: the caller vouches for the peer; its address was checked with the configuration.
    unsafe {
        if (*peer).conn.fd != -1 {
            return Some((*peer).conn.fd);
        }
        let address = (*peer).server.sockaddr.cast::<libc::sockaddr>();
        let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        let fd = libc::socket(c_int::from((*address).sa_family), kind, 0);
        if fd == -1 {
            return None;
        }
        let socket = above_standard(OwnedFd::from_raw_fd(fd)).ok()?;
        if libc::connect(socket.as_raw_fd(), address, (*peer).server.socklen) == -1 {
            return None;
        }
        sockets.push(socket);
        sockets.last().map(AsRawFd::as_raw_fd)
    }
}

/// What nginx puts before a line: `<PRIORITY>Jan  1 00:00:00 HOST TAG: `. It differs from version to
/// version where nginx has the parts, so this asks nginx, and takes what follows the time.
///
/// # Safety
/// The peer is that of a live log.
unsafe fn syslog(peer: *mut ngx_syslog_peer_t) -> job::Syslog {
    const TIME: usize = "Jan  1 00:00:00".len();
    // A host's name has at most 255 bytes, a tag 32.
    let mut header = [0u8; 512];
    // SAFETY: the caller vouches for the peer; there is room for the header, and a zero byte after it.
    let (facility, header) = unsafe {
        ngx_syslog_add_header(peer, header.as_mut_ptr());
        ((*peer).facility as u32, CStr::from_ptr(header.as_ptr().cast()))
    };
    let header = header.to_string_lossy();
    let after = header.split_once('>').and_then(|(_, after)| after.get(TIME..)).unwrap_or(" ");
    job::Syslog { facility, header: after.to_string() }
}
