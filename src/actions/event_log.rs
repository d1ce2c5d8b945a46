//! `event_log`: every event as one line of a file. Written by the holder of the lock, so the lines
//! are in the order of the events.

use core::fmt::Write as _;
use core::{mem, ptr};
use std::io;

use ::status::json;
use ngx::ffi::{ngx_conf_open_file, ngx_cycle_t, ngx_open_file_t, ngx_str_t};
use roster::{Event, Field, LogMark, LogProgress, Roster};

use crate::nginx::failpoint::failpoint;
use crate::nginx::log::Log;

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// An object of JSON.
    Json,
    /// For people.
    Text,
}

/// The file.
pub struct EventLog {
    /// nginx opens it with its own logs, and again at USR1, in every process. Null for `off`.
    file: *mut ngx_open_file_t,
    format: Format,
}

/// What there is to write to.
#[derive(PartialEq, Eq)]
enum Target {
    /// A file: its device and inode, and its size in bytes.
    File((u64, u64), u64),
    /// A pipe or the like that takes something.
    Stream,
    /// One whose reader is slow or gone: to wait for it would hold up the node.
    Busy,
}

impl EventLog {
    /// The log that is turned off.
    pub fn off() -> EventLog {
        EventLog { file: ptr::null_mut(), format: Format::Json }
    }

    /// The standard error of nginx. None if there is no memory.
    ///
    /// # Safety
    /// `cycle` is the one whose configuration is being read.
    pub unsafe fn stderr(cycle: *mut ngx_cycle_t, format: Format) -> Option<EventLog> {
        // As ngx_log_set_log() does it for `error_log stderr`: a file without a name is standard error,
        // and nginx leaves it as it is instead of pointing it to its error log.
        // SAFETY: the caller vouches for the cycle.
        unsafe {
            (*cycle).log_use_stderr = 1;
            EventLog::list(cycle, ngx_str_t { len: 0, data: ptr::null_mut() }, format)
        }
    }

    /// Puts the file on nginx's list of files to open; a relative name is below the prefix. None if
    /// there is no memory.
    ///
    /// # Safety
    /// `cycle` is the one whose configuration is being read, and `name` one of its arguments.
    pub unsafe fn list(
        cycle: *mut ngx_cycle_t,
        mut name: ngx_str_t,
        format: Format,
    ) -> Option<EventLog> {
        // SAFETY: the caller vouches for both; the entry lives as long as the cycle.
        let file = unsafe { ngx_conf_open_file(cycle, &mut name) };
        (!file.is_null()).then_some(EventLog { file, format })
    }

    /// Writes an event. `took` is how long its callbacks took, in microseconds. A process that died may
    /// have written it already, or a part of it.
    pub fn write(&self, roster: Roster<'_>, event: &Event, took: u64, log: Log) {
        if self.file.is_null() || roster.logged() >= event.seq {
            return;
        }
        let error = roster.error_of(event);
        let text = match self.format {
            Format::Json => json::event(event, Some(took), error.as_deref()),
            Format::Text => text(event, took, error.as_deref()),
        };
        let target = self.target();
        match progress(roster, event.seq, &target) {
            LogProgress::Written => {
                written(roster, event.seq, log);
                return;
            }
            LogProgress::Torn => roster.log_torn(),
            LogProgress::NotBegun => {}
        }
        // What is not whole stays alone, unless the file has been emptied.
        let torn = roster.log_is_torn() && !matches!(target, Target::File(_, 0));
        let line = format!("{}{text}\n", if torn { "\n" } else { "" });
        if let Target::File(file, size) = target {
            roster.log_begins(event.seq, LogMark { file, size, length: line.len() as u64 });
        }
        failpoint(event.kind, "logging");

        let put = match target {
            Target::Busy => Err(io::Error::from_raw_os_error(libc::EAGAIN)),
            Target::File(..) | Target::Stream => self.put(&line),
        };
        failpoint(event.kind, "logged");
        let (n, error) = match put {
            Ok(n) if n == line.len() => {
                written(roster, event.seq, log);
                return;
            }
            Ok(n) => (n, io::ErrorKind::WriteZero.into()),
            Err(error) => (0, error),
        };
        // What was torn before still is.
        let torn = (n > 0 && !self.take_back(n)) || torn;
        if roster.log_failed(event.seq, torn) {
            let name = self.name();
            log!(
                log,
                Error,
                error = error,
                "could not write to \"{name}\", events are missing there from now on"
            );
        }
    }

    /// Writes it in one piece, so that no other line comes in between. How many bytes of it
    /// had room.
    fn put(&self, line: &str) -> io::Result<usize> {
        loop {
            // SAFETY: the file is open for as long as the cycle lives, and the text is valid.
            let n = unsafe { libc::write((*self.file).fd, line.as_ptr().cast(), line.len()) };
            if let Ok(n) = usize::try_from(n) {
                return Ok(n);
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }

    /// Takes back the part of a line that had room. The writer of the next line may do so to another
    /// file, as after USR1, and leave this one to be gone on with in the middle of a line.
    fn take_back(&self, n: usize) -> bool {
        if self.is_stderr() {
            // Others write there too, and at a place of their own.
            return false;
        }
        // SAFETY: all zeros is a valid structure, the descriptor is open, and the pointer valid. Only
        // the holder of the lock writes to the file.
        unsafe {
            let fd = (*self.file).fd;
            let mut stat = mem::zeroed::<libc::stat>();
            libc::fstat(fd, &mut stat) == 0
                && stat.st_size >= n as libc::off_t
                && libc::ftruncate(fd, stat.st_size.saturating_sub(n as libc::off_t)) == 0
        }
    }

    fn target(&self) -> Target {
        // SAFETY: all zeros is a valid structure, the descriptor is open, and the pointers valid.
        unsafe {
            let fd = (*self.file).fd;
            let mut stat = mem::zeroed::<libc::stat>();
            if libc::fstat(fd, &mut stat) == 0 && stat.st_mode & libc::S_IFMT == libc::S_IFREG {
                return Target::File((stat.st_dev, stat.st_ino), stat.st_size as u64);
            }
            let mut poll = libc::pollfd { fd, events: libc::POLLOUT, revents: 0 };
            if libc::poll(&mut poll, 1, 0) == 1 && poll.revents == libc::POLLOUT {
                Target::Stream
            } else {
                Target::Busy
            }
        }
    }

    fn is_stderr(&self) -> bool {
        // SAFETY: the entry lives as long as the cycle.
        unsafe { (*self.file).name.len == 0 }
    }

    fn name(&self) -> &str {
        if self.is_stderr() {
            return "stderr";
        }
        // SAFETY: the entry lives as long as the cycle; the name was checked to be UTF-8.
        unsafe { std::str::from_utf8((*self.file).name.as_bytes()).unwrap_or_default() }
    }
}

/// How far a process that died has come with the line of an event. A line that went into a pipe can't be
/// seen: it is written again.
fn progress(roster: Roster<'_>, seq: u64, target: &Target) -> LogProgress {
    match (roster.log_mark(seq), target) {
        (Some(mark), Target::File(file, size)) => mark.progress(*file, *size),
        _ => LogProgress::NotBegun,
    }
}

/// The line of an event is in the log.
fn written(roster: Roster<'_>, seq: u64, log: Log) {
    let lost = roster.log_written(seq);
    if lost > 0 {
        log!(log, Notice, "the event log is written again, {lost} lines are lost so far");
    }
}

/// Time, event and id, then each field that the event has.
fn text(event: &Event, took: u64, error: Option<&str>) -> String {
    let mut line = format!("{} {} {}", date(event.time), event.kind.name(), event.id());
    for field in Field::ALL {
        if matches!(field, Field::Event | Field::Id | Field::Time | Field::Generation) {
            continue;
        }
        let mut value = String::new();
        if field.write(event, error, &mut value) == Ok(true) {
            let quote = if value.contains(' ') { "\"" } else { "" };
            let _ = write!(line, " {}={quote}{value}{quote}", field.name());
        }
    }
    let _ = write!(line, " took={}.{:06}", took / 1_000_000, took % 1_000_000);
    line
}

/// A time in milliseconds since 1970 as people write it, UTC.
fn date(time: i64) -> String {
    let seconds = time.div_euclid(1000) as libc::time_t;
    // SAFETY: all zeros is a valid structure, and both pointers are valid.
    let tm = unsafe {
        let mut tm = mem::zeroed::<libc::tm>();
        libc::gmtime_r(&seconds, &mut tm);
        tm
    };
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
        tm.tm_year.saturating_add(1900),
        tm.tm_mon.saturating_add(1),
        tm.tm_mday,
        tm.tm_hour,
        tm.tm_min,
        tm.tm_sec,
        time.rem_euclid(1000)
    )
}
