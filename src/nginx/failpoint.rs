//! Dying at a named point, and kernels that lack something, in test builds only.
//!
//! A test arms a point by making the file `failpoints/NAME` under nginx's prefix. The process that gets
//! there first and removes the file is killed, as by `kill -9`. `failpoints/NAME.fault` names a fault that
//! every process commits there. In other builds there is nothing.

/// Dies here if the point is armed.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn failpoint(_event: roster::Kind, _point: &str) {}

/// Whether to do as if the kernel lacked something: as long as the file is there.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn simulated(_lack: &str) -> bool {
    false
}

/// What a test says in place of the kernel.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn content(_name: &str) -> Option<String> {
    None
}

/// What a test says in place of the kernel.
#[cfg(feature = "failpoints")]
pub fn content(name: &str) -> Option<String> {
    std::fs::read_to_string(path(name)).ok()
}

/// What a process between a worker that serves and a helper has to read a byte of before it goes on; -1 for nothing.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn gate() -> i32 {
    -1
}

/// What a process between a worker that serves and a helper has to read a byte of before it goes on: a pipe of a test's; -1
/// for nothing.
#[cfg(feature = "failpoints")]
pub fn gate() -> i32 {
    let Ok(path) = std::ffi::CString::new(path("spawn.gate").into_os_string().into_encoded_bytes())
    else {
        return -1;
    };
    // SAFETY: the path is a C string. Opened for both, so that nobody waits for the other end.
    unsafe { libc::open(path.as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) }
}

/// Dies here if the point is armed.
#[cfg(feature = "failpoints")]
pub fn failpoint(event: roster::Kind, point: &str) {
    if std::fs::remove_file(path(&format!("{}.{point}", event.name()))).is_ok() {
        // SAFETY: ends this process.
        unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    }
    if let Some(fault) = content(&format!("{}.{point}.fault", event.name())) {
        commit(&fault);
    }
}

/// Does what a sanitizer has to find, so that a test can see that it does: t/build/030-asan.t.
#[cfg(feature = "failpoints")]
fn commit(fault: &str) {
    use std::hint::black_box;

    let inside = vec![0u8; 24];
    match fault {
        // SAFETY: there is none, which is the point; one byte behind the memory.
        "overflow" => unsafe {
            black_box(black_box(inside.as_ptr()).add(24).read_volatile());
        },
        // SAFETY: as above; the memory was freed.
        "use after free" => unsafe {
            let freed = black_box(inside.as_ptr());
            drop(inside);
            black_box(freed.read_volatile());
        },
        // SAFETY: as above; one byte behind a piece of nginx's pool.
        "overflow in a pool" => unsafe {
            let piece = ngx::ffi::ngx_palloc((*ngx::ffi::ngx_cycle).pool, 24).cast::<u8>();
            black_box(black_box(piece).add(24).read_volatile());
        },
        "arithmetic" => {
            black_box(black_box(u8::MAX) + black_box(1));
        }
        // Several, since the last one may still be in a register.
        "leak" => (0..8).for_each(|_| {
            black_box(black_box(vec![1u8; 1000]).leak());
        }),
        _ => (),
    }
}

/// Whether to do as if the kernel lacked something: as long as the file is there.
#[cfg(feature = "failpoints")]
pub fn simulated(lack: &str) -> bool {
    path(lack).exists()
}

#[cfg(feature = "failpoints")]
fn path(name: &str) -> std::path::PathBuf {
    // SAFETY: the cycle is live and its prefix was set before any event could happen. At a cold
    // start nginx still points ngx_cycle to the cycle of main(), which has the prefix.
    let prefix = unsafe { (*ngx::ffi::ngx_cycle).prefix.as_bytes() };
    std::path::Path::new(core::str::from_utf8(prefix).unwrap_or("")).join("failpoints").join(name)
}
