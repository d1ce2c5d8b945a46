//! What a program gets as its environment.

use std::ffi::{CStr, CString};

use ngx::ffi::ngx_str_t;

use crate::config::Conf;
use crate::nginx::cycle::Cycle;

/// Notes what nginx's `env` directives pass on, for programs. The configuration of the cycle is complete.
pub fn remember(cycle: Cycle<'_>, conf: &Conf) {
    let mut environment: Vec<CString> = Vec::new();
    // SAFETY: `env` is an array of ngx_str_t.
    let names =
        cycle.core_conf().map_or(&[][..], |core| unsafe { core.env.as_slice::<ngx_str_t>() });
    for name in names {
        // nginx keeps `NAME=value` in the data and counts only the name in the length.
        // SAFETY: the data of a configuration token ends with a zero byte.
        let text = unsafe { CStr::from_ptr(name.data.cast()) };
        if text.count_bytes() > name.len {
            environment.push(text.to_owned());
        } else {
            environment.extend(inherited(text));
        }
    }
    let has = |environment: &[CString], name: &[u8]| {
        environment.iter().any(|variable| variable.as_bytes().starts_with(name))
    };
    if !has(&environment, b"TZ=") {
        environment.extend(inherited(c"TZ"));
    }
    if !has(&environment, b"PATH=") {
        environment.push(inherited(c"PATH").unwrap_or_else(|| DEFAULT_PATH.to_owned()));
    }
    // Nobody reads it before this configuration is in force.
    if let Ok(mut own) = conf.environment.try_borrow_mut() {
        *own = environment;
    }
}

/// What a program gets if nginx itself has no PATH.
const DEFAULT_PATH: &CStr = c"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

fn inherited(name: &CStr) -> Option<CString> {
    // SAFETY: the name is a C string; the value is copied at once.
    let value = unsafe {
        let value = libc::getenv(name.as_ptr());
        if value.is_null() {
            return None;
        }
        CStr::from_ptr(value)
    };
    let variable = [name.to_bytes(), b"=", value.to_bytes()].concat();
    CString::new(variable).ok()
}
