//! Dying at a named point, and kernels that lack something, in test builds only.
//!
//! A test arms a point by making the file `kill/NAME` under nginx's prefix. The process that gets
//! there first and removes the file is killed, as by `kill -9`. In other builds there is nothing.

/// Dies here if the point is armed.
#[cfg(not(feature = "kill-points"))]
#[inline(always)]
pub fn kill_point(_event: roster::Kind, _point: &str) {}

/// Whether to do as if the kernel lacked something: as long as the file is there.
#[cfg(not(feature = "kill-points"))]
#[inline(always)]
pub fn simulated(_lack: &str) -> bool {
    false
}

/// What a test says in place of the kernel.
#[cfg(not(feature = "kill-points"))]
#[inline(always)]
pub fn content(_name: &str) -> Option<String> {
    None
}

/// What a test says in place of the kernel.
#[cfg(feature = "kill-points")]
pub fn content(name: &str) -> Option<String> {
    std::fs::read_to_string(path(name)).ok()
}

/// Dies here if the point is armed.
#[cfg(feature = "kill-points")]
pub fn kill_point(event: roster::Kind, point: &str) {
    if std::fs::remove_file(path(&format!("{}.{point}", event.name()))).is_ok() {
        // SAFETY: ends this process.
        unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    }
}

/// Whether to do as if the kernel lacked something: as long as the file is there.
#[cfg(feature = "kill-points")]
pub fn simulated(lack: &str) -> bool {
    path(lack).exists()
}

#[cfg(feature = "kill-points")]
fn path(name: &str) -> std::path::PathBuf {
    // SAFETY: the cycle is live and its prefix was set before any event could happen. At a cold
    // start nginx still points ngx_cycle to the cycle of main(), which has the prefix.
    let prefix = unsafe { (*ngx::ffi::ngx_cycle).prefix.as_bytes() };
    std::path::Path::new(core::str::from_utf8(prefix).unwrap_or("")).join("kill").join(name)
}
