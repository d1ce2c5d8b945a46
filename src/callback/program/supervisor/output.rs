//! What a program prints, cut into lines that are safe in a log.

use core::ffi::c_int;

/// A line of output, printable and valid UTF-8, or the word that there is too much.
pub enum Line<'a> {
    Text(&'a [u8]),
    TooMuch,
}

/// Bytes of a line that are written as one; what is longer is split.
const LINE: usize = 1000;
/// Bytes a program may print to the log in one run.
const TOTAL: usize = 64 * 1024;

/// The output so far.
pub struct Output {
    line: [u8; LINE],
    used: usize,
    total: usize,
    told_too_much: bool,
    /// The program and all that it started have closed it.
    pub ended: bool,
}

impl Output {
    pub const fn new() -> Output {
        Output { line: [0; LINE], used: 0, total: 0, told_too_much: false, ended: false }
    }

    /// Reads once, which never waits. True if there was something.
    pub fn read(&mut self, fd: c_int, tell: &mut dyn FnMut(Line<'_>)) -> bool {
        let mut buffer = [0u8; 4096];
        // SAFETY: there is room for what is asked for.
        let n = unsafe { libc::read(fd, buffer.as_mut_ptr().cast(), buffer.len()) };
        if n <= 0 {
            self.ended |= n == 0;
            return false;
        }
        for &byte in buffer.iter().take(n as usize) {
            self.take(byte, tell);
        }
        true
    }

    /// Reads what is there after the program's end, and tells the last line even without its end.
    pub fn read_all(&mut self, fd: c_int, tell: &mut dyn FnMut(Line<'_>)) {
        // Bounded, in case a daemon that it left goes on printing.
        let mut reads = 0;
        while reads < 256 && self.read(fd, tell) {
            reads += 1;
        }
        if self.used > 0 {
            self.flush(tell);
        }
    }

    fn take(&mut self, byte: u8, tell: &mut dyn FnMut(Line<'_>)) {
        if self.total >= TOTAL {
            if !self.told_too_much {
                self.told_too_much = true;
                if self.used > 0 {
                    self.flush(tell);
                }
                tell(Line::TooMuch);
            }
            return;
        }
        self.total += 1;
        match byte {
            b'\n' => self.flush(tell),
            b'\t' | 0x20..=0x7e | 0x80.. => {
                // An escape takes four bytes.
                if self.used + 4 > LINE {
                    self.flush_whole_characters(tell);
                }
                self.push(byte);
            }
            // A program must not be able to forge lines of the log or to upset a terminal.
            control => {
                if self.used + 4 > LINE {
                    self.flush(tell);
                }
                self.escape(control);
            }
        }
    }

    fn push(&mut self, byte: u8) {
        if let Some(place) = self.line.get_mut(self.used) {
            *place = byte;
            self.used += 1;
        }
    }

    fn escape(&mut self, byte: u8) {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        for byte in [b'\\', b'x', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]] {
            self.push(byte);
        }
    }

    fn flush(&mut self, tell: &mut dyn FnMut(Line<'_>)) {
        self.tell_first(self.used, tell);
    }

    /// Tells a line that got too long, leaving an incomplete character at its end for the next.
    fn flush_whole_characters(&mut self, tell: &mut dyn FnMut(Line<'_>)) {
        let whole = match core::str::from_utf8(&self.line[..self.used]) {
            Err(error) if error.error_len().is_none() && error.valid_up_to() > 0 => {
                error.valid_up_to()
            }
            _ => self.used,
        };
        self.tell_first(whole, tell);
    }

    fn tell_first(&mut self, n: usize, tell: &mut dyn FnMut(Line<'_>)) {
        if let Err(error) = core::str::from_utf8(&self.line[..n]) {
            // Not UTF-8: all that is not ASCII becomes a question mark.
            let from = error.valid_up_to();
            for byte in &mut self.line[from..n] {
                if !byte.is_ascii() {
                    *byte = b'?';
                }
            }
        }
        tell(Line::Text(&self.line[..n]));
        self.line.copy_within(n..self.used, 0);
        self.used -= n;
    }
}
