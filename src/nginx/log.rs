//! nginx's error log, with errno, which the macros of the `ngx` crate leave out.

use core::fmt;
use core::marker::PhantomData;
use core::mem::MaybeUninit;
use core::ptr::NonNull;

use ngx::ffi::{
    ngx_cycle, ngx_log_t, ngx_uint_t, NGX_LOG_ALERT, NGX_LOG_CRIT, NGX_LOG_DEBUG, NGX_LOG_EMERG,
    NGX_LOG_ERR, NGX_LOG_INFO, NGX_LOG_NOTICE, NGX_LOG_WARN,
};
use ngx::log::{log_error, write_fmt, LOG_BUFFER_SIZE};

use super::cycle::Cycle;

/// A level of the error log, named as in the directive `error_log`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Level {
    /// nginx can't go on.
    Emerg = NGX_LOG_EMERG,
    /// Something that must not happen did, and nginx went on.
    Alert = NGX_LOG_ALERT,
    /// A serious fault outside nginx.
    Crit = NGX_LOG_CRIT,
    /// A thing asked for could not be done.
    Error = NGX_LOG_ERR,
    /// A thing an operator will want to look at.
    Warn = NGX_LOG_WARN,
    /// A normal event of some weight.
    Notice = NGX_LOG_NOTICE,
    /// A normal event.
    Info = NGX_LOG_INFO,
    /// Details; written only by an nginx built with `--with-debug`.
    Debug = NGX_LOG_DEBUG,
}

impl Level {
    /// The levels with their names, in nginx's order.
    pub const NAMES: [(&'static str, Level); 8] = [
        ("emerg", Level::Emerg),
        ("alert", Level::Alert),
        ("crit", Level::Crit),
        ("error", Level::Error),
        ("warn", Level::Warn),
        ("notice", Level::Notice),
        ("info", Level::Info),
        ("debug", Level::Debug),
    ];

    /// Finds a level by its name.
    pub fn from_name(name: &str) -> Option<Level> {
        Self::NAMES.iter().find(|(n, _)| *n == name).map(|(_, level)| *level)
    }
}

/// An error log that is there within `'a`. Copies refer to the same log.
#[derive(Clone, Copy)]
pub struct Log<'a>(Option<NonNull<ngx_log_t>>, PhantomData<&'a ngx_log_t>);

impl<'a> Log<'a> {
    /// The log of the cycle in force, whichever that is when a line is written.
    pub const fn current() -> Log<'a> {
        Log(None, PhantomData)
    }

    /// The log of a given cycle, which has it from its first moment.
    pub fn of(cycle: Cycle<'a>) -> Log<'a> {
        Log(NonNull::new(cycle.as_ref().log), PhantomData)
    }

    /// A log that nginx handed over.
    ///
    /// # Safety
    /// `log` is there within `'a`.
    pub unsafe fn from_ptr(log: *mut ngx_log_t) -> Log<'a> {
        Log(NonNull::new(log), PhantomData)
    }

    /// The C pointer.
    pub fn as_ptr(self) -> *mut ngx_log_t {
        match self.0 {
            Some(log) => log.as_ptr(),
            // SAFETY: nginx sets ngx_cycle in main() before any module code runs, and never to null.
            None => unsafe { (*ngx_cycle).log },
        }
    }

    /// Writes one line of the module's, with its prefix. The macro `log!` calls this.
    pub fn report(self, level: Level, errno: i32, message: fmt::Arguments<'_>) {
        self.write(level, errno, format_args!("{PREFIX}{message}"));
    }

    /// Writes one line as it is. `errno` 0 adds nothing, any other its text, as nginx does.
    pub fn write(self, level: Level, errno: i32, message: fmt::Arguments<'_>) {
        let level = level as ngx_uint_t;
        let log = self.as_ptr();
        // SAFETY: the log is there, by construction.
        if level > unsafe { (*log).log_level } {
            return;
        }
        let mut buffer = [const { MaybeUninit::<u8>::uninit() }; LOG_BUFFER_SIZE];
        let text = write_fmt(&mut buffer, message);
        // SAFETY: as above.
        unsafe { log_error(level, log, errno, text) };
    }
}

/// What each message of the module begins with. A message of nginx's own kind, one with a text of the
/// user's, and one that begins with the name of a directive do not: [`Log::write`] writes those.
pub const PREFIX: &str = "worker_manager: ";

/// Writes a message of the module to a [`Log`], after [`PREFIX`]: `log!(log, Warn, "…")`, and with the errno
/// of what went wrong `log!(log, Error, error = e, "…")`.
#[macro_export]
macro_rules! log {
    ($log:expr, $level:ident, error = $error:expr, $($arg:tt)+) => {
        $log.report(
            $crate::nginx::log::Level::$level,
            $error.raw_os_error().unwrap_or(0),
            format_args!($($arg)+),
        )
    };
    ($log:expr, $level:ident, $($arg:tt)+) => {
        $log.report($crate::nginx::log::Level::$level, 0, format_args!($($arg)+))
    };
}
