//! `call LIBRARY SYMBOL [TEXT]`, and functions that other modules register.

use core::ffi::{c_char, c_int, c_void, CStr};
use core::fmt::{self, Write};
use core::mem::{offset_of, size_of};
use core::ptr;
use std::ffi::CString;

use roster::{Event, History, Reason, Roster};
use thiserror::Error;

use crate::nginx::header::{ngx_worker_manager_event_t, NGX_WORKER_MANAGER_NIL};
use crate::nginx::log::Log;

/// The type of a callback in C, `ngx_worker_manager_callback_pt`.
pub type CallbackPt = unsafe extern "C" fn(*const ngx_worker_manager_event_t, *mut c_void) -> c_int;

// What the structure had when it was first published stays where it is for ever.
const _: () = {
    assert!(offset_of!(ngx_worker_manager_event_t, size) == 0);
    assert!(offset_of!(ngx_worker_manager_event_t, event) == size_of::<usize>());
};

/// Why a function can't be called.
#[derive(Debug, Error)]
pub enum LoadError {
    #[error("could not load the library: {0}")]
    Library(String),
    #[error("could not find the symbol: {0}")]
    Symbol(String),
}

/// A C function to call.
pub struct Call {
    function: Option<CallbackPt>,
    data: *mut c_void,
    name: String,
    /// Kept for as long as the function may be called.
    _text: Option<CString>,
}

impl Call {
    /// A call of nothing: `nginx -s` reads the configuration but runs none of it.
    pub fn none() -> Call {
        Call { function: None, data: ptr::null_mut(), name: String::new(), _text: None }
    }

    /// Loads the library and finds the symbol. The library is never unloaded, whatever becomes of the
    /// configuration: threads that it has started, and functions that it has registered elsewhere, may
    /// run its code until the process ends.
    pub fn load(path: &CStr, symbol: &CStr, text: Option<CString>) -> Result<Call, LoadError> {
        // RTLD_NOW, so that what is missing is missing now and not in a worker. RTLD_NODELETE, so that
        // no dlclose() of another module unloads it either.
        let flags = libc::RTLD_NOW | libc::RTLD_LOCAL | libc::RTLD_NODELETE;
        // SAFETY: the path is a C string.
        let handle = unsafe { libc::dlopen(path.as_ptr(), flags) };
        if handle.is_null() {
            return Err(LoadError::Library(dl_error()));
        }
        // SAFETY: the handle is open and the symbol a C string.
        let function = unsafe { libc::dlsym(handle, symbol.as_ptr()) };
        if function.is_null() {
            return Err(LoadError::Symbol(dl_error()));
        }
        Ok(Call {
            // SAFETY: the header says which type a function named in `call` has; that the library
            // keeps to it is up to its author, as with any C library.
            function: Some(unsafe { core::mem::transmute::<*mut c_void, CallbackPt>(function) }),
            data: text.as_ref().map_or(ptr::null_mut(), |text| text.as_ptr().cast_mut().cast()),
            name: symbol.to_string_lossy().into_owned(),
            _text: text,
        })
    }

    /// A function that another module registered.
    pub fn registered(function: CallbackPt, data: *mut c_void) -> Call {
        Call {
            function: Some(function),
            data,
            name: "a registered function".to_string(),
            _text: None,
        }
    }

    /// Calls it.
    pub fn run(&self, event: &Event, roster: Roster<'_>, log: Log) {
        let Some(function) = self.function else {
            return;
        };
        let rc = with_event_for_c(event, None, roster.error_of(event), |event| {
            // SAFETY: the function has the type of the header, see `load`.
            unsafe { function(event, self.data) }
        });
        if rc != 0 {
            roster.callback_failed(event.kind);
            log!(
                log,
                Error,
                "{} {}: {} failed with {rc}",
                event.kind.name(),
                event.id(),
                self.name
            );
        }
    }
}

/// Passes an event on as the structure of the header. It and its strings live until `pass` returns.
/// `took` is how long the event's callbacks took, in microseconds, if they are over; `error` is what the roster says
/// of it.
pub fn with_event_for_c<T>(
    event: &Event,
    took: Option<u64>,
    error: Option<String>,
    pass: impl FnOnce(&ngx_worker_manager_event_t) -> T,
) -> T {
    // On the stack: a worker that has just been forked pays for every page it writes to.
    let name = Text::new(format_args!("{}", event.kind.name()));
    let id = Text::new(format_args!("{}", event.id()));
    let history = Text::new(format_args!("{}", History(event.history)));
    let reason = event.reason.map(|reason| Text::new(format_args!("{reason}")));
    // Its bytes are no control characters, so that none is the end of a C string.
    let error = error.and_then(|error| CString::new(error).ok());
    let nil = i64::from(NGX_WORKER_MANAGER_NIL);
    let number = |n: Option<u32>| n.map_or(nil, i64::from);
    pass(&ngx_worker_manager_event_t {
        size: size_of::<ngx_worker_manager_event_t>(),
        event: name.as_ptr(),
        id: id.as_ptr(),
        n_prev: number(event.n_prev),
        n_mine: event.n_mine.into(),
        n_next: number(event.n_next),
        n_older: event.n_older.into(),
        generation: event.generation as i64,
        pid: event.pid.into(),
        worker: number(event.worker),
        seq: event.seq,
        time: event.time,
        reason: reason.as_ref().map_or(ptr::null(), |reason| reason.as_ptr()),
        core: matches!(event.reason, Some(Reason::Signal { core: true, .. })).into(),
        connections: number(event.connections),
        duration: number(event.duration),
        took: took.map_or(nil, |took| took as i64),
        n_left: event.n_left.into(),
        stopping: event.stopping.into(),
        respawn_of: event.respawn_of.map_or(nil, i64::from),
        history: history.as_ptr(),
        error: error.as_ref().map_or(ptr::null(), |error| error.as_ptr()),
    })
}

/// A short C string.
struct Text {
    bytes: [u8; 48],
    used: usize,
}

impl Text {
    fn new(text: fmt::Arguments<'_>) -> Text {
        let mut own = Text { bytes: [0; 48], used: 0 };
        // The longest are an id, two numbers of at most 20 and 10 digits, and an event's name.
        let _ = own.write_fmt(text);
        own
    }

    fn as_ptr(&self) -> *const c_char {
        self.bytes.as_ptr().cast()
    }
}

impl fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // One byte stays zero, for the end.
        let end = self.bytes.len().saturating_sub(1);
        let room = self.bytes.get_mut(self.used..end).unwrap_or_default();
        room.iter_mut().zip(text.bytes()).for_each(|(place, byte)| *place = byte);
        self.used = self.used.saturating_add(text.len()).min(end);
        Ok(())
    }
}

fn dl_error() -> String {
    // SAFETY: dlerror returns null or a C string that is valid until the next dl call.
    unsafe {
        let error = libc::dlerror();
        if error.is_null() {
            return "unknown error".to_string();
        }
        CStr::from_ptr(error).to_string_lossy().into_owned()
    }
}
