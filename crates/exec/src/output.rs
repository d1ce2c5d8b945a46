//! What a program prints, cut into lines that are safe in a log.

use core::ffi::c_int;
use core::str::from_utf8;

/// A line of output, printable, or the word that there is too much.
pub enum Line<'a> {
    Text(&'a str),
    TooMuch,
}

/// Bytes of a line that are written as one; what is longer is split.
const LINE: usize = 1000;
/// Bytes of log that a program may cause by printing, in one run. What nginx and the module put
/// before each line counts, or empty lines would cost nothing.
const TOTAL: usize = 64 * 1024;
/// About as much as nginx itself puts before a line.
const PREFIX: usize = 48;

/// The output so far.
pub struct Output {
    line: [u8; LINE],
    used: usize,
    total: usize,
    /// What a line costs beside its text.
    overhead: usize,
    is_full: bool,
    /// The program and all that it started have closed it.
    pub ended: bool,
}

impl Output {
    /// `prefix` is how many bytes the module puts before each line.
    pub const fn new(prefix: usize) -> Output {
        let overhead = PREFIX.saturating_add(prefix);
        Output { line: [0; LINE], used: 0, total: 0, overhead, is_full: false, ended: false }
    }

    /// Reads once, which never waits. True if there was something.
    pub fn read(&mut self, fd: c_int, log: &mut dyn FnMut(Line<'_>)) -> bool {
        let mut buffer = [0u8; 16 * 1024];
        // SAFETY: there is room for what is asked for.
        let n = unsafe { libc::read(fd, buffer.as_mut_ptr().cast(), buffer.len()) };
        if n <= 0 {
            self.ended |= n == 0;
            return false;
        }
        for &byte in buffer.iter().take(n as usize) {
            if self.is_full {
                break;
            }
            self.take(byte, log);
        }
        true
    }

    /// Reads what is there after the program's end, and logs the last line even without its end.
    pub fn read_all(&mut self, fd: c_int, log: &mut dyn FnMut(Line<'_>)) {
        // Bounded, in case a daemon that it left goes on printing.
        for _ in 0..64 {
            if !self.read(fd, log) {
                break;
            }
        }
        if self.used > 0 {
            self.log_first(self.used, log);
        }
    }

    fn take(&mut self, byte: u8, log: &mut dyn FnMut(Line<'_>)) {
        if byte == b'\n' {
            self.log_first(self.used, log);
            return;
        }
        // A program must not be able to forge lines of the log or to upset a terminal.
        let escaped = byte == 0x7f || (byte < 0x20 && byte != b'\t');
        let room = if escaped { 4 } else { 1 };
        if self.used.saturating_add(room) > LINE {
            self.log_whole_characters(log);
        }
        if escaped {
            for byte in [b'\\', b'x', hex(byte >> 4), hex(byte & 15)] {
                self.push(byte);
            }
        } else {
            self.push(byte);
        }
    }

    fn push(&mut self, byte: u8) {
        if let Some(place) = self.line.get_mut(self.used) {
            *place = byte;
            self.used = self.used.saturating_add(1);
        }
    }

    /// Logs a line that got too long, leaving an incomplete character at its end for the next.
    fn log_whole_characters(&mut self, log: &mut dyn FnMut(Line<'_>)) {
        // A character has at most four bytes, so one of the last four begins the last one.
        let last = self.used.saturating_sub(4);
        let begins = |&at: &usize| self.line.get(at).is_some_and(|byte| byte & 0xc0 != 0x80);
        let at = (last..self.used).rev().find(begins).unwrap_or(self.used);
        let incomplete = from_utf8(self.line.get(at..self.used).unwrap_or_default())
            .is_err_and(|error| error.error_len().is_none());
        self.log_first(if incomplete { at } else { self.used }, log);
    }

    fn log_first(&mut self, n: usize, log: &mut dyn FnMut(Line<'_>)) {
        let left = self.used.saturating_sub(n);
        self.used = 0;
        let total = self.total.saturating_add(self.overhead).saturating_add(n);
        if self.is_full || total > TOTAL {
            if !self.is_full {
                self.is_full = true;
                log(Line::TooMuch);
            }
            return;
        }
        self.total = total;
        if let Some(text) = self.line.get_mut(..n) {
            log(Line::Text(printable(text)));
        }
        for at in n..n.saturating_add(left) {
            self.push(self.line.get(at).copied().unwrap_or_default());
        }
    }
}

/// A digit of a number below 16.
fn hex(digit: u8) -> u8 {
    char::from_digit(u32::from(digit), 16).map_or(b'?', |digit| digit as u8)
}

/// The text with a question mark for each byte that is not UTF-8.
fn printable(text: &mut [u8]) -> &str {
    let mut from = 0;
    while let Err(error) = from_utf8(text.get(from..).unwrap_or_default()) {
        let bad = error.valid_up_to().saturating_add(from);
        from = error.error_len().map_or(text.len(), |n| bad.saturating_add(n));
        if let Some(bytes) = text.get_mut(bad..from) {
            bytes.fill(b'?');
        }
    }
    from_utf8(text).unwrap_or_default()
}
