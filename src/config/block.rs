//! The directives of the block but `on`, and the block itself.

use core::ffi::{c_char, c_void};
use core::ptr;
use std::ffi::CString;

use ngx::ffi::{
    ngx_command_t, ngx_conf_parse, ngx_conf_t, ngx_cycle_t, ngx_msec_t, ngx_pagesize,
    ngx_parse_size, ngx_parse_time, ngx_pnalloc, ngx_str_t, ngx_uint_t, NGX_CORE_MODULE, NGX_ERROR,
};

use super::conf::Conf;
use super::error::ConfError;
use super::on;
use crate::actions::event_log::{EventLog, Format};
use crate::nginx::cycle::Cycle;
use crate::nginx::{abi, process};

/// nginx's NGX_CONF_OK and NGX_CONF_ERROR.
pub const CONF_OK: *mut c_char = ptr::null_mut();
pub const CONF_ERROR: *mut c_char = usize::MAX as *mut c_char;

/// The context inside `worker_manager { }`: a bit that no directive of nginx's core modules has.
pub const NGX_WORKER_MANAGER_CONF: u32 = 0x8000_0000;

/// A zone has to hold at least this many pages, as nginx's own zones do.
const MIN_PAGES: usize = 8;

/// What `event_log` takes for no file: the other targets of nginx's `error_log`, and the program that
/// other servers start.
const NO_FILES: [&str; 3] = ["syslog:", "memory:", "|"];

/// The arguments of the directive being read, its name first.
///
/// # Safety
/// `cf` is what nginx passed to a directive's handler.
unsafe fn arguments<'a>(cf: *mut ngx_conf_t) -> &'a [ngx_str_t] {
    // SAFETY: nginx fills cf->args with at least the name before it calls a handler.
    unsafe { (*(*cf).args).as_slice() }
}

/// The first argument; nginx has seen to it that there is one.
fn first(arguments: &[ngx_str_t]) -> &ngx_str_t {
    const EMPTY: &ngx_str_t = &ngx_str_t { len: 0, data: ptr::null_mut() };
    arguments.first().unwrap_or(EMPTY)
}

/// One argument as text.
fn text(argument: &ngx_str_t) -> Result<&str, ConfError> {
    core::str::from_utf8(argument.as_bytes()).map_err(|_| ConfError::NotUtf8)
}

/// Turns a result into what nginx takes from a handler: a text that it puts after the directive's
/// name and before file and line.
///
/// # Safety
/// `cf` is what nginx passed to the handler.
unsafe fn report(cf: *mut ngx_conf_t, result: Result<(), ConfError>) -> *mut c_char {
    let Err(error) = result else {
        return CONF_OK;
    };
    let message = CString::new(error.to_string().replace('\0', "")).unwrap_or_default();
    let bytes = message.as_bytes_with_nul();
    // SAFETY: the pool is that of the configuration being read.
    let copy = unsafe { ngx_pnalloc((*cf).pool, bytes.len()) }.cast::<u8>();
    if copy.is_null() {
        return CONF_ERROR;
    }
    // SAFETY: there is room for as many bytes.
    unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), copy, bytes.len()) };
    copy.cast()
}

/// Calls a directive's handler proper with the arguments and the configuration.
///
/// # Safety
/// `cf` and `conf` are what nginx passed to the handler of one of our directives.
unsafe fn handle(
    cf: *mut ngx_conf_t,
    conf: *mut c_void,
    set: impl FnOnce(&mut Conf, &[ngx_str_t]) -> Result<(), ConfError>,
) -> *mut c_char {
    // SAFETY: with NGX_DIRECT_CONF nginx passes what our create_conf returned, and nobody else
    // holds it while the configuration is read.
    let (conf, words) = unsafe { (&mut *conf.cast::<Conf>(), arguments(cf)) };
    let result = set(conf, words.get(1..).unwrap_or_default());
    // SAFETY: the caller vouches for it.
    unsafe { report(cf, result) }
}

pub unsafe extern "C" fn cmd_worker_manager(
    cf: *mut ngx_conf_t,
    _cmd: *mut ngx_command_t,
    conf: *mut c_void,
) -> *mut c_char {
    // SAFETY: with NGX_DIRECT_CONF nginx passes what our create_conf returned. It is borrowed for a moment
    // each time, since the directives of the block get it, too.
    let begun = unsafe { begin(cf, &mut *conf.cast::<Conf>()) };
    if begun.is_err() {
        // SAFETY: as above.
        return unsafe { report(cf, begun) };
    }
    // SAFETY: the context is put back before returning, as every block does.
    let rv = unsafe {
        let outer = ((*cf).cmd_type, (*cf).module_type);
        (*cf).cmd_type = NGX_WORKER_MANAGER_CONF as ngx_uint_t;
        (*cf).module_type = NGX_CORE_MODULE as ngx_uint_t;
        let rv = ngx_conf_parse(cf, ptr::null_mut());
        ((*cf).cmd_type, (*cf).module_type) = outer;
        rv
    };
    if rv != CONF_OK {
        return rv;
    }
    // SAFETY: as above.
    unsafe {
        let registered = (*conf.cast::<Conf>()).register_zone(cf);
        report(cf, registered.then_some(()).ok_or(ConfError::Zone))
    }
}

/// The block begins.
///
/// # Safety
/// `cf` is what nginx passed to the handler.
unsafe fn begin(cf: *mut ngx_conf_t, conf: &mut Conf) -> Result<(), ConfError> {
    if conf.enabled {
        return Err(ConfError::Duplicate);
    }
    // SAFETY: the caller vouches for it; the cycle is the one whose configuration is being read.
    let (fits, place) = unsafe { (abi::fit((*cf).cycle), place(cf)) };
    if !fits {
        return Err(ConfError::Headers);
    }
    conf.enabled = true;
    conf.place = place;
    Ok(())
}

pub unsafe extern "C" fn cmd_zone(
    cf: *mut ngx_conf_t,
    _cmd: *mut ngx_command_t,
    conf: *mut c_void,
) -> *mut c_char {
    // SAFETY: nginx's arguments go through as they are.
    unsafe {
        let place = place(cf);
        handle(cf, conf, |conf, arguments| {
            set_zone(conf, arguments)?;
            conf.place = place;
            Ok(())
        })
    }
}

fn set_zone(conf: &mut Conf, arguments: &[ngx_str_t]) -> Result<(), ConfError> {
    if conf.zone_name.is_some() || conf.zone_size.is_some() {
        return Err(ConfError::Duplicate);
    }
    // Both are optional: one argument that reads as a size is the size.
    let (name, size) = match arguments {
        [name, size] => (Some(name), Some(size)),
        [one] if parse_size(one).is_some() => (None, Some(one)),
        [one] => (Some(one), None),
        _ => (None, None),
    };
    if let Some(name) = name {
        let name = text(name)?;
        if name.is_empty() {
            return Err(ConfError::ZoneName);
        }
        conf.zone_name = Some(CString::new(name).map_err(|_| ConfError::ZeroByte)?);
    }
    if let Some(size) = size {
        let bytes = parse_size(size).ok_or(ConfError::Size(text(size)?.to_string()))?;
        // SAFETY: a plain global, set when nginx starts.
        let least = MIN_PAGES.saturating_mul(unsafe { ngx_pagesize });
        if bytes < least {
            return Err(ConfError::SmallZone(bytes, least / 1024));
        }
        conf.zone_size = Some(bytes);
    }
    Ok(())
}

fn parse_size(argument: &ngx_str_t) -> Option<usize> {
    let mut line = *argument;
    // SAFETY: the string is a live argument; the function only reads it.
    let size = unsafe { ngx_parse_size(&mut line) };
    (size != NGX_ERROR as isize && argument.len != 0).then_some(size as usize)
}

/// A time, wherever the command says that it goes.
pub unsafe extern "C" fn cmd_time(
    cf: *mut ngx_conf_t,
    cmd: *mut ngx_command_t,
    conf: *mut c_void,
) -> *mut c_char {
    // SAFETY: nginx's arguments go through as they are; this handler is that of `time` alone, whose
    // commands have the offset of such a member.
    unsafe {
        let offset = (*cmd).offset;
        handle(cf, conf, |conf, arguments| {
            let time = (&raw mut *conf).byte_add(offset).cast::<Option<ngx_msec_t>>();
            set_time(&mut *time, arguments)
        })
    }
}

fn set_time(time: &mut Option<ngx_msec_t>, arguments: &[ngx_str_t]) -> Result<(), ConfError> {
    if time.is_some() {
        return Err(ConfError::Duplicate);
    }
    let argument = first(arguments);
    let mut line = *argument;
    // SAFETY: the string is a live argument; the function only reads it.
    let parsed = unsafe { ngx_parse_time(&mut line, 0) };
    if parsed == NGX_ERROR as isize || line.len == 0 {
        return Err(ConfError::Time(text(argument)?.to_string()));
    }
    if parsed == 0 {
        return Err(ConfError::ZeroTime);
    }
    *time = Some(parsed as ngx_msec_t);
    Ok(())
}

pub unsafe extern "C" fn cmd_event_log(
    cf: *mut ngx_conf_t,
    _cmd: *mut ngx_command_t,
    conf: *mut c_void,
) -> *mut c_char {
    // SAFETY: nginx's arguments go through as they are; the cycle is that of the configuration.
    unsafe {
        let cycle = (*cf).cycle;
        handle(cf, conf, |conf, arguments| set_event_log(conf, arguments, cycle))
    }
}

/// # Safety
/// `cycle` is the one whose configuration is being read, and these are arguments of that.
unsafe fn set_event_log(
    conf: &mut Conf,
    arguments: &[ngx_str_t],
    cycle: *mut ngx_cycle_t,
) -> Result<(), ConfError> {
    if conf.event_log.is_some() {
        return Err(ConfError::Duplicate);
    }
    let format = match arguments.get(1).map(text).transpose()? {
        None | Some("json") => Format::Json,
        Some("text") => Format::Text,
        Some(other) => return Err(ConfError::Format(other.to_string())),
    };
    let argument = first(arguments);
    let name = text(argument)?;
    let log = match name {
        "" => return Err(ConfError::FileName),
        "off" if arguments.len() > 1 => return Err(ConfError::FormatOfOff),
        "off" => Some(EventLog::off()),
        // SAFETY: the caller vouches for the cycle.
        "stderr" => unsafe { EventLog::stderr(cycle, format) },
        _ if NO_FILES.iter().any(|prefix| name.starts_with(prefix)) => {
            return Err(ConfError::NoFile(name.to_string()));
        }
        // SAFETY: as above, and for the argument.
        _ => unsafe { EventLog::list(cycle, *argument, format) },
    };
    conf.event_log = Some(log.ok_or_else(|| ConfError::File(name.to_string()))?);
    Ok(())
}

/// File and line that nginx reads, as it names them in its messages.
///
/// # Safety
/// `cf` is what nginx passed to a directive's handler.
pub unsafe fn place(cf: *mut ngx_conf_t) -> String {
    // SAFETY: the caller vouches for it; with `-g` there is no file.
    unsafe {
        let file = (*cf).conf_file;
        let name = String::from_utf8_lossy((*file).file.name.as_bytes()).into_owned();
        match (*file).file.fd {
            libc::c_int::MIN..=-1 => "command line".to_string(),
            _ => format!("{name}:{}", (*file).line),
        }
    }
}

pub unsafe extern "C" fn cmd_on(
    cf: *mut ngx_conf_t,
    _cmd: *mut ngx_command_t,
    conf: *mut c_void,
) -> *mut c_char {
    // SAFETY: nginx passes the configuration being read, and its cycle.
    let (cycle, place) = unsafe { (Cycle::from_ptr((*cf).cycle), place(cf)) };
    let Some(cycle) = cycle else {
        return CONF_ERROR;
    };
    let set = |conf: &mut Conf, arguments: &[ngx_str_t]| {
        let words = arguments.iter().map(text).collect::<Result<Vec<_>, _>>()?;
        let mut on = on::parse(&words, cycle)?;
        on.place = place;
        let file_and_line = on.place.rsplit('/').next().unwrap_or("");
        on.label = format!("{} ({file_and_line})", on.label);
        if on.callback.is_program() && !process::is_signaller() && conf.helper.get().is_none() {
            // Set once.
            let _ = conf.helper.set(on::helper()?);
        }
        conf.callbacks.push(on);
        Ok(())
    };
    // SAFETY: nginx's arguments go through as they are.
    unsafe { handle(cf, conf, set) }
}
