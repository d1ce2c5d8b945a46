//! The events that were recorded: which are still to be dispatched, and which are remembered.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::event::Event;
use crate::layout::EventRecord;
use crate::table::Roster;
use crate::words::load;

/// An event whose callbacks have not finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pending {
    /// The event.
    pub event: Event,
    /// How many of its callbacks have begun.
    pub begun: u32,
    /// By the configuration of which generation; meaningless while none has begun.
    pub generation: u64,
}

impl<'a> Roster<'a> {
    /// The oldest event whose callbacks have not finished.
    pub fn pending(&self) -> Option<Pending> {
        // None is newer than the last number there is.
        let seq = self.head.delivered.load(Acquire).checked_add(1)?;
        if seq > self.seq() {
            return None;
        }
        let delivery = self.head.delivery.load(Acquire);
        let begun = if delivery >> 32 == seq & 0xffff_ffff { delivery as u32 } else { 0 };
        let generation = self.head.delivery_generation.load(Relaxed);
        Some(Pending { event: self.event(seq)?, begun, generation })
    }

    /// An event of the history, if it is still remembered.
    pub fn event(&self, seq: u64) -> Option<Event> {
        let words = load(&self.event_record(seq)?.words);
        Event::from_words(&words).filter(|event| event.seq == seq)
    }

    pub(crate) fn event_record(&self, seq: u64) -> Option<&'a EventRecord> {
        self.events.get((seq.checked_rem(self.events.len() as u64)?) as usize)
    }

    /// Notes that callback `index` of the pending event begins, by the configuration of
    /// `generation`: from now on it counts as run.
    pub fn begin_callback(&self, seq: u64, generation: u64, index: u32) {
        self.head.delivery_generation.store(generation, Release);
        self.head.delivery.store(seq << 32 | u64::from(index.saturating_add(1)), Release);
    }

    /// Notes that the callbacks of the pending event have finished. `took` is in microseconds.
    pub fn delivered(&self, seq: u64, took: u64) {
        if let Some(record) = self.event_record(seq) {
            record.took.store(took, Release);
        }
        self.head.delivered.store(seq, Release);
    }

    /// The events that are remembered, oldest first, each with how long its callbacks took in
    /// microseconds, none until they have finished. Needs no lock: what is overwritten meanwhile is
    /// left out.
    pub fn history(&self) -> impl Iterator<Item = (Event, Option<u64>)> + '_ {
        (self.oldest()..=self.seq()).filter_map(|seq| self.told(seq))
    }

    /// The oldest event that may be remembered: one read.
    pub fn oldest(&self) -> u64 {
        self.seq().saturating_sub(self.events.len() as u64).saturating_add(1)
    }

    /// One event of the history, with how long its callbacks took in microseconds, none until they
    /// have finished.
    pub fn told(&self, seq: u64) -> Option<(Event, Option<u64>)> {
        let event = self.event(seq)?;
        let took = self.event_record(seq)?.took.load(Acquire);
        // Another event may have begun to take its place since.
        let whole = self.event(seq) == Some(event);
        whole.then_some((event, (took != u64::MAX).then_some(took)))
    }

    /// Gives up on pending events that can't be read back; true if there were any.
    pub fn skip_unreadable(&self) -> bool {
        let delivered = self.head.delivered.load(Relaxed);
        let stuck = self.pending().is_none() && delivered < self.seq();
        if stuck {
            // What has been overwritten since is past, however much it is: a number that is far off
            // would take for ever.
            let forgotten = self.seq().saturating_sub(self.events.len() as u64);
            self.head.delivered.store(delivered.saturating_add(1).max(forgotten), Release);
        }
        stuck
    }
}
