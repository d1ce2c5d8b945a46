//! Words in a row, as events, the journal and counts are kept.

use std::ops::Deref;
use std::sync::atomic::Ordering::{Acquire, Release};

use crate::sync::AtomicU64;

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
        // Release keeps the stores in order for those who come after this process died between two
        // of them: what it had stored before is there too.
        to.store(*word, Release);
    }
}

pub(crate) fn load<const N: usize>(from: &[AtomicU64; N]) -> [u64; N] {
    // Acquire, so that who sees a word of another event in a later look sees that it is another.
    from.each_ref().map(|word| word.load(Acquire))
}
