//! Dying before any store, for tests: a process that is killed leaves in the zone what it had stored
//! until then, in the order of its stores.

use std::cell::Cell;
use std::sync::atomic::{self, Ordering};

thread_local! {
    /// How many stores of this thread reach the memory from here on, and how many it has made.
    static STORES: Cell<(u64, u64)> = const { Cell::new((u64::MAX, 0)) };
}

/// Runs what a process does that is killed after `stores` stores: the rest of them is lost. Returns
/// what it would have returned, and how many stores it makes if it lives.
pub fn after<T>(stores: u64, run: impl FnOnce() -> T) -> (T, u64) {
    let before = STORES.replace((stores, 0));
    let result = run();
    let (_, made) = STORES.replace(before);
    (result, made)
}

/// How many stores the innermost [`after`] has made so far.
pub fn made() -> u64 {
    STORES.get().1
}

fn is_alive() -> bool {
    let (left, made) = STORES.get();
    STORES.set((left.saturating_sub(1), made.wrapping_add(1)));
    left > 0
}

macro_rules! atomic {
    ($name:ident, $word:ty) => {
        /// As the one of the standard library, and the same in memory.
        #[derive(Debug, Default)]
        #[repr(transparent)]
        pub struct $name(atomic::$name);

        #[allow(dead_code)] // Not every operation is used with every width.
        impl $name {
            pub(crate) fn load(&self, order: Ordering) -> $word {
                self.0.load(order)
            }

            pub(crate) fn store(&self, word: $word, order: Ordering) {
                if is_alive() {
                    self.0.store(word, order);
                }
            }

            pub(crate) fn swap(&self, word: $word, order: Ordering) -> $word {
                if is_alive() {
                    self.0.swap(word, order)
                } else {
                    self.0.load(Ordering::Relaxed)
                }
            }

            pub(crate) fn fetch_add(&self, word: $word, order: Ordering) -> $word {
                if is_alive() {
                    self.0.fetch_add(word, order)
                } else {
                    self.0.load(Ordering::Relaxed)
                }
            }

            pub(crate) fn fetch_or(&self, word: $word, order: Ordering) -> $word {
                if is_alive() {
                    self.0.fetch_or(word, order)
                } else {
                    self.0.load(Ordering::Relaxed)
                }
            }

            pub(crate) fn compare_exchange(
                &self,
                current: $word,
                new: $word,
                set: Ordering,
                get: Ordering,
            ) -> Result<$word, $word> {
                if is_alive() {
                    self.0.compare_exchange(current, new, set, get)
                } else {
                    Err(self.0.load(Ordering::Relaxed))
                }
            }

            pub(crate) fn fetch_update(
                &self,
                set: Ordering,
                get: Ordering,
                change: impl FnMut($word) -> Option<$word>,
            ) -> Result<$word, $word> {
                if is_alive() {
                    self.0.fetch_update(set, get, change)
                } else {
                    Err(self.0.load(Ordering::Relaxed))
                }
            }

            pub(crate) fn fetch_max(&self, word: $word, order: Ordering) -> $word {
                if is_alive() {
                    self.0.fetch_max(word, order)
                } else {
                    self.0.load(Ordering::Relaxed)
                }
            }
        }
    };
}

atomic!(AtomicU32, u32);
atomic!(AtomicU64, u64);
