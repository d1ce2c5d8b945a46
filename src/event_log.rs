//! `event_log`: every event as one line of a file. Written by whoever holds the lock, so the lines
//! are in the order of the events.

use core::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use ngx::ffi::{ngx_conf_open_file, ngx_cycle_t, ngx_open_file_t, ngx_str_t};
use report::json;
use roster::{Event, Field, Roster};

use crate::kill_point::kill_point;
use crate::log::Log;

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
    /// nginx opens it with its own logs, and again at USR1, in every process.
    file: *mut ngx_open_file_t,
    format: Format,
}

/// What there is to write to.
#[derive(PartialEq, Eq)]
enum State {
    /// A file with nothing in it.
    Empty,
    Ready,
    /// A pipe or the like whose reader is slow or gone: to wait for it would hold up the node.
    Busy,
}

impl EventLog {
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

    /// Writes an event. `took` is how long its callbacks took, in microseconds. What is taken over
    /// from a process that died may be there already.
    pub fn write(&self, roster: Roster<'_>, event: &Event, took: u64, taken_over: bool, log: Log) {
        if roster.logged() >= event.seq {
            return;
        }
        let text = match self.format {
            Format::Json => json::event(event, Some(took)),
            Format::Text => text(event, took),
        };
        let mut line = String::new();
        let state = self.state();
        let end = if taken_over { self.end() } else { String::new() };
        if end.ends_with('\n') {
            // The time that its callbacks took is the last field and may differ.
            let told = |line: &str| line.rsplit_once("took").map(|(told, _)| told.to_string());
            if end.lines().last().and_then(told) == told(&text) {
                roster.log_written(event.seq);
                return;
            }
        } else if !end.is_empty() || (roster.log_is_torn() && state != State::Empty) {
            line.push('\n');
        }
        line.push_str(&text);
        line.push('\n');

        let (n, errno) = if state == State::Busy { (-1, libc::EAGAIN) } else { self.put(&line) };
        kill_point(event.kind, "logged");
        if usize::try_from(n) == Ok(line.len()) {
            let lost = roster.log_written(event.seq);
            if lost > 0 {
                log!(
                    log,
                    Notice,
                    "worker_manager: the event log is written again, {lost} lines are lost so far"
                );
            }
            return;
        }
        // What was torn before still is.
        let torn = (n > 0 && !self.take_back(n)) || line.starts_with('\n');
        if roster.log_failed(event.seq, torn) {
            let name = self.name();
            log!(
                log,
                Error,
                errno = errno,
                "worker_manager: could not write to \"{name}\", events are missing there from now on"
            );
        }
    }

    /// Writes it in one piece, so that nobody else's line comes in between. Returns what `write`
    /// does, and an errno.
    fn put(&self, line: &str) -> (isize, i32) {
        loop {
            // SAFETY: the file is open for as long as the cycle lives, and the text is valid.
            let n = unsafe { libc::write((*self.file).fd, line.as_ptr().cast(), line.len()) };
            let errno = io::Error::last_os_error().raw_os_error().filter(|_| n < 0).unwrap_or(0);
            if errno != libc::EINTR {
                return (n, errno);
            }
        }
    }

    /// Takes back the part of a line that had room. Who writes the next line may do so to another
    /// file, as after USR1, and leave this one to be gone on with in the middle of a line.
    fn take_back(&self, n: isize) -> bool {
        // SAFETY: all zeros is a valid structure, the descriptor is open, and the pointer valid. Only
        // who holds the lock writes to the file.
        unsafe {
            let fd = (*self.file).fd;
            let mut stat = core::mem::zeroed::<libc::stat>();
            libc::fstat(fd, &mut stat) == 0
                && stat.st_size >= n as libc::off_t
                && libc::ftruncate(fd, stat.st_size - n as libc::off_t) == 0
        }
    }

    fn state(&self) -> State {
        // SAFETY: all zeros is a valid structure, the descriptor is open, and the pointers valid.
        unsafe {
            let fd = (*self.file).fd;
            let mut stat = core::mem::zeroed::<libc::stat>();
            if libc::fstat(fd, &mut stat) == 0 && stat.st_mode & libc::S_IFMT == libc::S_IFREG {
                return if stat.st_size == 0 { State::Empty } else { State::Ready };
            }
            let mut poll = libc::pollfd { fd, events: libc::POLLOUT, revents: 0 };
            if libc::poll(&mut poll, 1, 0) == 1 && poll.revents == libc::POLLOUT {
                State::Ready
            } else {
                State::Busy
            }
        }
    }

    fn name(&self) -> &str {
        // SAFETY: the entry lives as long as the cycle; the name was checked to be UTF-8.
        unsafe { std::str::from_utf8((*self.file).name.as_bytes()).unwrap_or_default() }
    }

    /// The end of the file, more than the longest line; empty if it can't be read.
    fn end(&self) -> String {
        const ENOUGH: u64 = 1024;
        let read = || {
            // SAFETY: the entry lives as long as the cycle.
            let fd = unsafe { (*self.file).fd };
            // The file may have been moved away, and this process is yet to reopen it.
            let mut file =
                File::open(format!("/proc/self/fd/{fd}")).or_else(|_| File::open(self.name()))?;
            if !file.metadata()?.is_file() {
                return Ok(String::new());
            }
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(ENOUGH)))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok::<_, io::Error>(String::from_utf8_lossy(&bytes).into_owned())
        };
        read().unwrap_or_default()
    }
}

/// Time, event and id, then each field that the event has.
fn text(event: &Event, took: u64) -> String {
    let mut line = format!("{} {} {}", date(event.time), event.kind.name(), event.id());
    for field in Field::ALL {
        if matches!(field, Field::Event | Field::Id | Field::Time | Field::Generation) {
            continue;
        }
        let mut value = String::new();
        if field.write(event, &mut value) == Ok(true) {
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
        let mut tm = core::mem::zeroed::<libc::tm>();
        libc::gmtime_r(&seconds, &mut tm);
        tm
    };
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
        tm.tm_year + 1900,
        tm.tm_mon + 1,
        tm.tm_mday,
        tm.tm_hour,
        tm.tm_min,
        tm.tm_sec,
        time.rem_euclid(1000)
    )
}
