//! Addresses, strings and times of nginx's, as they are shown.

use core::slice;

use ngx::ffi::{ngx_cached_time, ngx_sock_ntop, ngx_str_t, sockaddr, socklen_t, time_t};
use roster::held::clean;

/// An address with its port, as nginx writes it.
pub fn address(address: *mut sockaddr, length: socklen_t) -> String {
    // NGX_SOCKADDR_STRLEN is the size of the longest path of a socket and a little more.
    let mut text = [0u8; 160];
    if address.is_null() {
        return String::new();
    }
    // SAFETY: the address of a live connection; nginx writes no more than it is told there is room for.
    let length = unsafe { ngx_sock_ntop(address, length, text.as_mut_ptr(), text.len(), 1) };
    clean(text.get(..length).unwrap_or_default(), SHOWN)
}

/// How much of a text is looked at.
pub const SHOWN: usize = 512;

/// The beginning of a string of nginx's.
///
/// # Safety
/// What it refers to lives for as long as the result is used.
pub unsafe fn bytes<'a>(text: &ngx_str_t) -> &'a [u8] {
    if text.data.is_null() {
        return &[];
    }
    // SAFETY: nginx keeps `len` bytes at `data`, which the caller vouches for.
    unsafe { slice::from_raw_parts(text.data, text.len.min(SHOWN)) }
}

/// The same, fit to be shown.
///
/// # Safety
/// What it refers to lives.
pub unsafe fn text(text: &ngx_str_t) -> String {
    // SAFETY: as the caller says.
    clean(unsafe { bytes(text) }, SHOWN)
}

/// Milliseconds of the monotonic clock at which nginx's wall clock showed a time, which is not later than
/// now, by how long ago that is.
pub fn when(now: u64, seconds: time_t, milliseconds: usize) -> u64 {
    // SAFETY: nginx sets it to one of its static slots before it reads the configuration, and again between
    // events only.
    let (second, millisecond) = unsafe {
        let time = &*ngx_cached_time;
        (time.sec, time.msec)
    };
    // The clock may have been put back.
    let ago = u64::try_from(second.saturating_sub(seconds)).unwrap_or(0).saturating_mul(1000);
    let ago = ago.saturating_add(millisecond as u64).saturating_sub(milliseconds as u64);
    // 0 means that there is no request.
    now.saturating_sub(ago).max(1)
}
