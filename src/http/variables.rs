//! Variables of http: `$worker_manager_generation` and the like. Each takes no lock: a `getpid()` and a read
//! of memory.

use core::fmt::{self, Write};
use core::ptr;

use ngx::ffi::{
    ngx_conf_t, ngx_http_add_variable, ngx_http_request_t, ngx_http_variable_value_t, ngx_int_t,
    ngx_pnalloc, ngx_str_t, ngx_uint_t, NGX_ERROR, NGX_HTTP_VAR_NOCACHEABLE, NGX_OK,
};

use crate::delivery::{member, Member};
use crate::nginx::process;

type Value = fn(&Member, &mut dyn Write) -> fmt::Result;

/// The variables, whether each may change while a request lasts, and its value.
static VARIABLES: [(&str, bool, Value); 5] = [
    ("worker_manager_generation", false, |me, to| write!(to, "{}", me.generation)),
    ("worker_manager_id", false, |me, to| write!(to, "{}-{}", me.generation, process::pid())),
    ("worker_manager_worker", false, |_, to| write!(to, "{}", process::worker_index())),
    ("worker_manager_workers", true, |me, to| {
        write!(to, "{}", me.zone.roster().running(me.generation_slot))
    }),
    ("worker_manager_reloads", true, |me, to| {
        write!(to, "{}", me.zone.roster().reloads_succeeded())
    }),
];

/// Makes them known; false if there is no memory.
///
/// # Safety
/// `cf` is what nginx passed to `preconfiguration`.
pub unsafe fn add(cf: *mut ngx_conf_t) -> bool {
    for (index, (name, changes, _)) in VARIABLES.iter().enumerate() {
        let mut name = ngx_str_t { len: name.len(), data: name.as_ptr().cast_mut() };
        let flags = if *changes { NGX_HTTP_VAR_NOCACHEABLE } else { 0 };
        // SAFETY: nginx passes its configuration; it reads the name and copies it.
        let variable =
            unsafe { ngx_http_add_variable(cf, &mut name, flags as ngx_uint_t).as_mut() };
        let Some(variable) = variable else {
            return false;
        };
        variable.get_handler = Some(get);
        variable.data = index;
    }
    true
}

/// A number or two, and what is between them.
struct Text {
    bytes: [u8; 32],
    used: usize,
}

impl Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.used.saturating_add(text.len());
        let free = self.bytes.get_mut(self.used..end).ok_or(fmt::Error)?;
        free.copy_from_slice(text.as_bytes());
        self.used = end;
        Ok(())
    }
}

/// nginx's `get_handler`; `data` is the index of the variable.
unsafe extern "C" fn get(
    request: *mut ngx_http_request_t,
    value: *mut ngx_http_variable_value_t,
    data: usize,
) -> ngx_int_t {
    let mut text = Text { bytes: [0; 32], used: 0 };
    let found = member()
        .zip(VARIABLES.get(data))
        .is_some_and(|(me, (_, _, write))| write(&me, &mut text).is_ok());
    // SAFETY: nginx passes a live request and the value to fill in, which nobody else has.
    let (pool, value) = unsafe { ((*request).pool, &mut *value) };
    if !found {
        value.set_not_found(1);
        return NGX_OK as ngx_int_t;
    }
    // SAFETY: the pool of a live request.
    let copy = unsafe { ngx_pnalloc(pool, text.used) }.cast::<u8>();
    if copy.is_null() {
        return NGX_ERROR as ngx_int_t;
    }
    // SAFETY: there is room for as many bytes as are used.
    unsafe { ptr::copy_nonoverlapping(text.bytes.as_ptr(), copy, text.used) };
    value.data = copy;
    value.set_len(text.used as u32);
    value.set_valid(1);
    value.set_no_cacheable(0);
    value.set_not_found(0);
    NGX_OK as ngx_int_t
}
