//! Where the helper executable is, and whether it is the right one.

use core::ffi::{c_void, CStr};
use std::ffi::{CString, OsStr};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::{fs, io};

use exec::status::PROTOCOL;
use ngx::ffi::ngx_cycle;
use thiserror::Error;

use super::fd::{errno, pipe};
use super::spawn::Command;

/// Its file's name.
pub const NAME: &str = "ngx_worker_manager_exec";

/// How long it may take to say which protocol it speaks, milliseconds.
const ANSWERS: i32 = 10_000;

/// Finds it: beside the module, or beside nginx if the module is part of that. None if it can't be
/// known where that is.
pub fn find() -> Option<CString> {
    let module = object(find as *const c_void)?;
    let nginx = object((&raw const ngx_cycle).cast())?;
    let file = if module.1 == nginx.1 {
        // The name of the executable is what nginx was called by, which may be looked up in PATH. After
        // an upgrade " (deleted)" follows the path, which does not change the folder.
        fs::read_link("/proc/self/exe").ok().or(Some(nginx.0).filter(|path| path.is_absolute()))?
    } else {
        fs::canonicalize(&module.0).unwrap_or(module.0)
    };
    CString::new(file.parent()?.join(NAME).into_os_string().into_vec()).ok()
}

/// The file that an address belongs to, and where that begins in memory.
fn object(address: *const c_void) -> Option<(PathBuf, *mut c_void)> {
    // SAFETY: all zeros is a valid Dl_info; the dynamic linker's names live as long as their objects.
    unsafe {
        let mut info: libc::Dl_info = core::mem::zeroed();
        if libc::dladdr(address, &mut info) == 0 || info.dli_fname.is_null() {
            return None;
        }
        let name = OsStr::from_bytes(CStr::from_ptr(info.dli_fname).to_bytes());
        Some((Path::new(name).to_path_buf(), info.dli_fbase))
    }
}

/// Why the helper is of no use.
#[derive(Debug, Error)]
pub enum Unfit {
    #[error("it can't be run")]
    NotRun(#[source] io::Error),
    #[error("it is of another version")]
    OtherVersion,
}

/// How often it is asked: it, or the process that makes it, may be killed as one of nginx's.
const ATTEMPTS: u32 = 3;

/// Runs it, to see whether it speaks the same protocol.
pub fn check(path: &CStr) -> Result<(), Unfit> {
    for _ in 0..ATTEMPTS {
        if let Some(protocol) = ask(path)? {
            return (protocol == PROTOCOL).then_some(()).ok_or(Unfit::OtherVersion);
        }
    }
    Err(Unfit::OtherVersion)
}

/// The protocol that it speaks; none if it ended without an answer.
fn ask(path: &CStr) -> Result<Option<u8>, Unfit> {
    let (read, write) = pipe().map_err(Unfit::NotRun)?;
    let title = c"nginx: worker_manager check".to_owned();
    let words = [format!("protocol={PROTOCOL}"), format!("status={}", write.as_raw_fd())];
    let words = words.map(|word| CString::new(word).unwrap_or_default());
    let argv: Vec<_> = [title].into_iter().chain(words).collect();
    let kept = vec![write.as_raw_fd()];
    let command = Command { path: path.to_owned(), argv, envp: Vec::new(), kept, note: None };
    command.launch(false).and_then(|mut launch| launch.wait()).map_err(Unfit::NotRun)?;
    drop(write);
    let mut fds = libc::pollfd { fd: read.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let mut answer = [0];
    // SAFETY: one valid pollfd, and room for one byte.
    let n = unsafe {
        while libc::poll(&mut fds, 1, ANSWERS) == -1 && errno() == libc::EINTR {}
        if fds.revents == 0 {
            return Err(Unfit::NotRun(io::Error::from_raw_os_error(libc::ETIMEDOUT)));
        }
        libc::read(read.as_raw_fd(), answer.as_mut_ptr().cast(), 1)
    };
    Ok((n == 1).then_some(answer[0]))
}
