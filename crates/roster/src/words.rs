//! Words of the zone: what can lie in one, and words in a row, as events, the journal and counts are kept.

use std::ops::Deref;
use std::sync::atomic::Ordering::{Acquire, Release};

use crate::sync::AtomicU64;

/// What can lie in a word of the zone.
pub(crate) trait Word {
    fn to_word(self) -> u64;
    fn from_word(word: u64) -> Self;
}

macro_rules! words {
    ($($type:ty: |$value:ident| $to:expr, |$word:ident| $from:expr;)*) => {
        $(impl Word for $type {
            fn to_word(self) -> u64 {
                let $value = self;
                $to
            }

            fn from_word($word: u64) -> Self {
                $from
            }
        })*
    };
}

words! {
    bool: |value| value.into(), |word| word != 0;
    u32: |value| value.into(), |word| word as u32;
    u64: |value| value, |word| word;
    // A pid: never negative, in half a word.
    i32: |value| u64::from(value as u32), |word| word as i32;
    i64: |value| value as u64, |word| word as i64;
}

/// What there may be none of, 0 in the zone: no process and no moment that is noted is 0.
impl<T: Word> Word for Option<T> {
    fn to_word(self) -> u64 {
        self.map_or(0, T::to_word)
    }

    fn from_word(word: u64) -> Self {
        (word != 0).then(|| T::from_word(word))
    }
}

/// So many words.
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct Words<const N: usize>([AtomicU64; N]);

impl<const N: usize> Default for Words<N> {
    fn default() -> Words<N> {
        // The standard library does this for up to 32 only.
        Words(std::array::from_fn(|_| AtomicU64::default()))
    }
}

impl<const N: usize> Deref for Words<N> {
    type Target = [AtomicU64; N];

    fn deref(&self) -> &[AtomicU64; N] {
        &self.0
    }
}

pub(crate) fn store(to: &[AtomicU64], words: &[u64]) {
    for (to, word) in to.iter().zip(words) {
        // Release keeps the stores in order for the next holder of the lock if this process dies between two
        // of them: what it had stored before is there too.
        to.store(*word, Release);
    }
}

pub(crate) fn load<const N: usize>(from: &[AtomicU64; N]) -> [u64; N] {
    // Acquire, so that a reader that sees a word of another event in a later look sees that it is another.
    from.each_ref().map(|word| word.load(Acquire))
}
