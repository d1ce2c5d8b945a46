//! nginx's error logs, written as nginx writes them: `ngx_log_error_core()` and `ngx_syslog_writer()`.

use std::ffi::{c_int, CStr};
use std::fmt::{self, Write};

use crate::job::{Job, Log, Syslog};

/// How serious a line is, nginx's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    Alert = 2,
    Error = 4,
    Warn = 5,
    Notice = 6,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Level::Alert => "alert",
            Level::Error => "error",
            Level::Warn => "warn",
            Level::Notice => "notice",
        }
    }
}

/// nginx's NGX_MAX_ERROR_STR: the length of a line, its end included.
const LINE: usize = 2048;

/// Writes a line to all logs of a job that take its level.
pub fn say(job: &Job, level: Level, errno: i32, message: fmt::Arguments<'_>) {
    let now = now();
    let mut line = format!("{} [{}] {}#{}: ", error_time(&now), level.name(), job.pid, own_pid());
    let start = line.len();
    let _ = write!(line, "{}: {message}", job.label);
    if errno != 0 {
        let _ = write!(line, " ({errno}: {})", error_text(errno));
    }
    // 0 is a boundary of every text.
    let longest = line.len().min(LINE - 1);
    let end = (0..=longest).rev().find(|&end| line.is_char_boundary(end)).unwrap_or(0);
    line.truncate(end);
    line.push('\n');
    for log in job.logs.iter().filter(|log| level as u8 <= log.level) {
        match &log.syslog {
            None => put(log.fd, line.as_bytes()),
            Some(syslog) => send(log, syslog, &now, level, line.trim_end_matches('\n')),
        }
    }
    if job.console && level <= Level::Warn && !job.logs.iter().any(|log| log.fd == 2) {
        let text = line.get(start..).unwrap_or_default();
        put(2, format!("nginx: [{}] {text}", level.name()).as_bytes());
    }
}

fn put(fd: c_int, text: &[u8]) {
    // SAFETY: as many bytes as there are. If the disk is full, the line is lost, as nginx's own are.
    unsafe { libc::write(fd, text.as_ptr().cast(), text.len()) };
}

fn send(log: &Log, syslog: &Syslog, now: &libc::tm, level: Level, line: &str) {
    // PRI of RFC 3164, with the severity of syslog, which is one less than nginx's number.
    let priority = syslog.facility.saturating_mul(8).saturating_add(level as u32).saturating_sub(1);
    let message = format!("<{priority}>{}{}{line}", syslog_time(now), syslog.header);
    let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
    // SAFETY: as many bytes as there are.
    unsafe { libc::send(log.fd, message.as_ptr().cast(), message.len(), flags) };
}

fn own_pid() -> i32 {
    // SAFETY: getpid can't fail.
    unsafe { libc::getpid() }
}

/// The local time. The zone is that of nginx, whose TZ the environment has.
fn now() -> libc::tm {
    // SAFETY: an all-zero tm is valid; the places are.
    unsafe {
        let mut tm: libc::tm = std::mem::zeroed();
        let seconds = libc::time(std::ptr::null_mut());
        libc::localtime_r(&seconds, &mut tm);
        tm
    }
}

fn error_time(tm: &libc::tm) -> String {
    let (year, month) = (tm.tm_year.saturating_add(1900), tm.tm_mon.saturating_add(1));
    let (day, hour, minute, second) = (tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec);
    format!("{year:04}/{month:02}/{day:02} {hour:02}:{minute:02}:{second:02}")
}

fn syslog_time(tm: &libc::tm) -> String {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = MONTHS.get(tm.tm_mon as usize).unwrap_or(&"Jan");
    let (day, hour, minute, second) = (tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec);
    format!("{month} {day:2} {hour:02}:{minute:02}:{second:02}")
}

fn error_text(errno: i32) -> String {
    // SAFETY: this process has one thread; the text is copied at once.
    let text = unsafe { CStr::from_ptr(libc::strerror(errno)) };
    text.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tm() -> libc::tm {
        // SAFETY: an all-zero tm is valid.
        let mut tm: libc::tm = unsafe { std::mem::zeroed() };
        (tm.tm_year, tm.tm_mon, tm.tm_mday) = (126, 10, 5);
        (tm.tm_hour, tm.tm_min, tm.tm_sec) = (1, 2, 3);
        tm
    }

    #[test]
    fn times_are_as_nginx_writes_them() {
        assert_eq!(error_time(&tm()), "2026/11/05 01:02:03");
        assert_eq!(syslog_time(&tm()), "Nov  5 01:02:03");
    }

    fn written(level: u8, syslog: Option<Syslog>, of: Level, message: &str) -> String {
        let mut fds = [0; 2];
        // SAFETY: room for two descriptors, and for what is read.
        unsafe {
            libc::socketpair(libc::AF_UNIX, libc::SOCK_DGRAM, 0, fds.as_mut_ptr());
            let logs = vec![Log { fd: fds[0], level, syslog }];
            let job = Job { pid: 77, label: "worker_manager: x".into(), logs, ..Job::default() };
            say(&job, of, 2, format_args!("{message}"));
            let mut text = [0u8; 4096];
            let n = libc::recv(fds[1], text.as_mut_ptr().cast(), text.len(), libc::MSG_DONTWAIT);
            fds.iter().for_each(|&fd| assert_eq!(libc::close(fd), 0));
            String::from_utf8_lossy(&text[..n.max(0) as usize]).into_owned()
        }
    }

    #[test]
    fn lines_are_as_nginx_writes_them() {
        let line = written(6, None, Level::Error, "no");
        let own = own_pid();
        let end =
            format!(" [error] 77#{own}: worker_manager: x: no (2: No such file or directory)\n");
        assert_eq!(line.get(19..), Some(end.as_str()));
        assert_eq!(written(4, None, Level::Warn, "no"), "");
        let long = written(6, None, Level::Error, &"ö".repeat(3000));
        assert!((LINE - 1..=LINE).contains(&long.len()) && long.ends_with("ö\n"));
        let syslog = Syslog { facility: 23, header: " host nginx: ".into() };
        let line = written(6, Some(syslog), Level::Error, "no");
        assert!(line.starts_with("<187>") && line.get(20..33) == Some(" host nginx: "), "{line}");
        assert!(line.ends_with("directory)"), "{line}");
    }
}
