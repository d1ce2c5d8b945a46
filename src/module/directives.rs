//! The directives, for nginx: what is read for which is in `config` and `http`.

use core::ffi::{c_char, c_void};
use core::ptr;

use memoffset::offset_of;
use ngx::ffi::{
    ngx_command_t, ngx_conf_t, ngx_str_t, ngx_uint_t, NGX_CONF_2MORE, NGX_CONF_BLOCK,
    NGX_CONF_NOARGS, NGX_CONF_TAKE1, NGX_CONF_TAKE12, NGX_DIRECT_CONF, NGX_HTTP_LOC_CONF,
    NGX_HTTP_LOC_CONF_OFFSET, NGX_MAIN_CONF,
};
use ngx::ngx_string;

use crate::config::block::{
    cmd_event_log, cmd_on, cmd_time, cmd_worker_manager, cmd_zone, NGX_WORKER_MANAGER_CONF,
};
use crate::config::Conf;
use crate::http::cmd_worker_manager_status;

type Handler =
    unsafe extern "C" fn(*mut ngx_conf_t, *mut ngx_command_t, *mut c_void) -> *mut c_char;

const fn inner(name: ngx_str_t, arguments: u32, set: Handler) -> ngx_command_t {
    ngx_command_t {
        name,
        type_: (NGX_WORKER_MANAGER_CONF | NGX_DIRECT_CONF | arguments) as ngx_uint_t,
        set: Some(set),
        conf: 0,
        offset: 0,
        post: ptr::null_mut(),
    }
}

const fn time(name: ngx_str_t, offset: usize) -> ngx_command_t {
    ngx_command_t { offset: offset as ngx_uint_t, ..inner(name, NGX_CONF_TAKE1, cmd_time) }
}

/// The module's directives.
pub static mut COMMANDS: [ngx_command_t; 10] = [
    ngx_command_t {
        name: ngx_string!("worker_manager"),
        type_: (NGX_MAIN_CONF | NGX_DIRECT_CONF | NGX_CONF_BLOCK | NGX_CONF_NOARGS) as ngx_uint_t,
        set: Some(cmd_worker_manager),
        conf: 0,
        offset: 0,
        post: ptr::null_mut(),
    },
    inner(ngx_string!("zone"), NGX_CONF_TAKE12, cmd_zone),
    time(ngx_string!("interval"), offset_of!(Conf, interval)),
    time(ngx_string!("failed"), offset_of!(Conf, failed)),
    time(ngx_string!("exec_timeout"), offset_of!(Conf, exec_timeout)),
    time(ngx_string!("callback_timeout"), offset_of!(Conf, callback_timeout)),
    time(ngx_string!("draining_warn"), offset_of!(Conf, draining_warn)),
    inner(ngx_string!("event_log"), NGX_CONF_TAKE12, cmd_event_log),
    inner(ngx_string!("on"), NGX_CONF_2MORE, cmd_on),
    ngx_command_t::empty(),
];

/// The directives of http.
pub static mut HTTP_COMMANDS: [ngx_command_t; 2] = [
    ngx_command_t {
        name: ngx_string!("worker_manager_status"),
        type_: (NGX_HTTP_LOC_CONF | NGX_CONF_NOARGS) as ngx_uint_t,
        set: Some(cmd_worker_manager_status),
        conf: NGX_HTTP_LOC_CONF_OFFSET,
        offset: 0,
        post: ptr::null_mut(),
    },
    ngx_command_t::empty(),
];
