//! Fields, each listed once with its place in the journal. What reads a record, stores it, and takes it
//! to the journal and back comes from the list.

use std::sync::atomic::Ordering::{Relaxed, Release};

use crate::event::Event;
use crate::layout::JOURNAL_WORDS;
use crate::sync::{AtomicU32, AtomicU64};
use crate::words::Word;

/// An atomic of a record.
pub(crate) trait Cell {
    fn read(&self) -> u64;
    fn write(&self, word: u64);
}

impl Cell for AtomicU32 {
    fn read(&self) -> u64 {
        self.load(Relaxed).into()
    }

    fn write(&self, word: u64) {
        self.store(word as u32, Release);
    }
}

impl Cell for AtomicU64 {
    fn read(&self) -> u64 {
        self.load(Relaxed)
    }

    fn write(&self, word: u64) {
        self.store(word, Release);
    }
}

/// Where a field lies in an entry of the journal: in a word, or in some bits of one.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    word: usize,
    shift: u32,
    mask: u64,
}

impl Place {
    /// All of a word.
    pub const fn word(word: usize) -> Place {
        Place { word, shift: 0, mask: u64::MAX }
    }

    /// The low half of a word.
    pub const fn low(word: usize) -> Place {
        Place { word, shift: 0, mask: u32::MAX as u64 }
    }

    /// The high half.
    pub const fn high(word: usize) -> Place {
        Place { word, shift: 32, mask: u32::MAX as u64 }
    }

    /// One bit, of which there are 64.
    pub const fn bit(word: usize, bit: u32) -> Place {
        Place { word, shift: bit, mask: 1 }
    }
}

/// How many words of the journal a change takes beside its event.
pub(crate) const ENTRY_WORDS: usize = JOURNAL_WORDS - Event::WORDS;

/// What the journal holds beside the event.
#[derive(Clone, Copy)]
pub(crate) struct Entry(pub [u64; ENTRY_WORDS]);

impl Entry {
    /// Puts a value in its place, which is empty.
    pub fn put(&mut self, place: Place, value: impl Word) {
        if let Some(word) = self.0.get_mut(place.word) {
            *word |= (value.to_word() & place.mask).wrapping_shl(place.shift);
        }
    }

    /// The value in a place.
    pub fn get<T: Word>(&self, place: Place) -> T {
        let word = self.0.get(place.word).copied().unwrap_or_default();
        T::from_word(word.wrapping_shr(place.shift) & place.mask)
    }
}

/// Makes a structure of fields that have a place in the journal, and besides of others that are taken
/// there otherwise. One that is made `of` a record has fields of the same names there.
macro_rules! fields {
    (
        $(#[$meta:meta])*
        $vis:vis struct $name:ident of $record:ident {
            $($(#[$doc:meta])* $field_vis:vis $field:ident: $type:ty = $place:expr,)*
        }
        besides { $($(#[$other_doc:meta])* $other_vis:vis $other:ident: $other_type:ty,)* }
    ) => {
        fields! {
            $(#[$meta])*
            $vis struct $name {
                $($(#[$doc])* $field_vis $field: $type = $place,)*
            }
            besides { $($(#[$other_doc])* $other_vis $other: $other_type,)* }
        }

        impl $name {
            /// Reads the fields of a record, without an order.
            fn read(record: &$record, $($other: $other_type,)*) -> Self {
                use crate::{fields::Cell, words::Word};
                $name {
                    $($field: <$type>::from_word(record.$field.read()),)*
                    $($other,)*
                }
            }

            /// Stores them, in the order of the list.
            pub(crate) fn store(&self, record: &$record) {
                use crate::{fields::Cell, words::Word};
                $(record.$field.write(self.$field.to_word());)*
            }
        }
    };
    (
        $(#[$meta:meta])*
        $vis:vis struct $name:ident {
            $($(#[$doc:meta])* $field_vis:vis $field:ident: $type:ty = $place:expr,)*
        }
        besides { $($(#[$other_doc:meta])* $other_vis:vis $other:ident: $other_type:ty,)* }
    ) => {
        $(#[$meta])*
        $vis struct $name {
            $($(#[$doc])* $field_vis $field: $type,)*
            $($(#[$other_doc])* $other_vis $other: $other_type,)*
        }

        impl $name {
            /// Puts the fields into the journal.
            pub(crate) fn put(&self, entry: &mut crate::fields::Entry) {
                $(entry.put($place, self.$field);)*
            }

            /// Gets them back from there.
            pub(crate) fn get(entry: &crate::fields::Entry, $($other: $other_type,)*) -> Self {
                $name { $($field: entry.get($place),)* $($other,)* }
            }
        }
    };
}

pub(crate) use fields;
