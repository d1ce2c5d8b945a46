//! A short text in the zone about the callback that runs: processes that wait may be of another generation,
//! whose configuration does not know it.

use core::fmt;
use core::sync::atomic::{
    fence, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

/// Bytes of the text; what is longer is cut.
const BYTES: usize = 96;

/// The text. The holder of the lock writes it; anybody reads it.
#[derive(Debug)]
#[repr(C)]
pub struct Label {
    /// One more at each end of a change, so odd while it is written, or if its writer died at that.
    version: AtomicU64,
    /// UTF-8, zeros after it.
    text: [AtomicU64; BYTES / 8],
}

/// A text that was read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct LabelText([u8; BYTES]);

impl Label {
    /// Puts a text there, or none.
    pub fn set(&self, text: &str) {
        let mut bytes = [0; BYTES];
        let end = (0..=text.len().min(BYTES)).rev().find(|end| text.is_char_boundary(*end));
        for (byte, own) in bytes.iter_mut().zip(text.bytes().take(end.unwrap_or(0))) {
            *byte = own;
        }
        let version = self.version.load(Relaxed) | 1;
        self.version.store(version, Relaxed);
        fence(Release);
        for (word, bytes) in self.text.iter().zip(bytes.chunks_exact(8)) {
            word.store(u64::from_le_bytes(bytes.try_into().unwrap_or_default()), Relaxed);
        }
        self.version.store(version.wrapping_add(1), Release);
    }

    /// Which text it is: another number at each change.
    pub fn version(&self) -> u64 {
        self.version.load(Acquire)
    }

    /// The text; none if there is none, or it changes just now.
    pub fn get(&self) -> Option<LabelText> {
        let version = self.version();
        let mut bytes = [0; BYTES];
        for (word, bytes) in self.text.iter().zip(bytes.chunks_exact_mut(8)) {
            bytes.copy_from_slice(&word.load(Relaxed).to_le_bytes());
        }
        fence(Acquire);
        let whole = version % 2 == 0 && self.version.load(Relaxed) == version;
        (whole && bytes.first() != Some(&0)).then_some(LabelText(bytes))
    }
}

impl fmt::Display for LabelText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.split(|byte| *byte == 0).next().unwrap_or_default();
        f.write_str(core::str::from_utf8(text).unwrap_or("a callback"))
    }
}
