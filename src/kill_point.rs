//! Dying at a named point, in test builds only.
//!
//! A test arms a point by making the file `kill/NAME` under nginx's prefix. The process that gets
//! there first and removes the file is killed, as by `kill -9`. In other builds there is nothing.

/// Dies here if the point is armed.
#[cfg(not(feature = "kill-points"))]
#[inline(always)]
pub fn kill_point(_event: roster::Kind, _point: &str) {}

/// Dies here if the point is armed.
#[cfg(feature = "kill-points")]
pub fn kill_point(event: roster::Kind, point: &str) {
    use ngx::ffi::ngx_cycle;

    // SAFETY: the cycle is live and its prefix was set before any event could happen.
    let prefix = unsafe { core::str::from_utf8((*ngx_cycle).prefix.as_bytes()).unwrap_or("") };
    // At a cold start nginx still points ngx_cycle to the cycle of main(), which has the prefix.
    let path = format!("{prefix}kill/{}.{point}", event.name());
    if std::fs::remove_file(path).is_ok() {
        // SAFETY: ends this process.
        unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    }
}
