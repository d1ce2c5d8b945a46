//! nginx's error log, with errno, which the macros of the `ngx` crate leave out.

use core::fmt;
use core::mem::MaybeUninit;
use core::ptr::NonNull;

use ngx::ffi::{
    ngx_cycle, ngx_cycle_t, ngx_log_t, ngx_uint_t, NGX_LOG_ALERT, NGX_LOG_CRIT, NGX_LOG_DEBUG,
    NGX_LOG_EMERG, NGX_LOG_ERR, NGX_LOG_INFO, NGX_LOG_NOTICE, NGX_LOG_WARN,
};
use ngx::log::{log_error, write_fmt, LOG_BUFFER_SIZE};

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

/// An error log. Copies refer to the same log.
#[derive(Clone, Copy)]
pub struct Log(NonNull<ngx_log_t>);

impl Log {
    /// The log of the cycle this process runs.
    pub fn current() -> Log {
        // SAFETY: nginx sets ngx_cycle in main() before any module code runs, and never to null.
        unsafe { Log::of(ngx_cycle.cast()) }
    }

    /// The log of a given cycle.
    ///
    /// # Safety
    /// `cycle` points to a cycle that outlives the result.
    pub unsafe fn of(cycle: *const ngx_cycle_t) -> Log {
        // SAFETY: the caller vouches for the cycle; a cycle has a log from its first moment.
        Log(unsafe { NonNull::new_unchecked((*cycle).log) })
    }

    /// A log that nginx handed over.
    ///
    /// # Safety
    /// `log` is live for as long as the result is used.
    pub unsafe fn from_ptr(log: *mut ngx_log_t) -> Log {
        // SAFETY: the caller vouches for it, so it is not null.
        Log(unsafe { NonNull::new_unchecked(log) })
    }

    /// The C pointer.
    pub fn as_ptr(self) -> *mut ngx_log_t {
        self.0.as_ptr()
    }

    /// Writes one line of the module's, with its prefix. The macro `log!` calls this.
    pub fn report(self, level: Level, errno: i32, message: fmt::Arguments<'_>) {
        self.write(level, errno, format_args!("{PREFIX}{message}"));
    }

    /// Writes one line as it is. `errno` 0 adds nothing, any other its text, as nginx does.
    pub fn write(self, level: Level, errno: i32, message: fmt::Arguments<'_>) {
        let level = level as ngx_uint_t;
        // SAFETY: `of` and `current` promise a live log.
        unsafe {
            if level > (*self.as_ptr()).log_level {
                return;
            }
            let mut buffer = [const { MaybeUninit::<u8>::uninit() }; LOG_BUFFER_SIZE];
            let text = write_fmt(&mut buffer, message);
            log_error(level, self.as_ptr(), errno, text);
        }
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
