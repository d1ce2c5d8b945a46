//! The texts of events. They lie beside the events: few have one, and a text is longer than an event.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};

use crate::event::{Event, Kind};
use crate::layout::MessageRecord;
use crate::message::Message;
use crate::sync::fence;
use crate::table::Roster;

impl Roster<'_> {
    /// Keeps the text of an event that is to be recorded.
    pub(crate) fn put_message(&self, seq: u64, message: &Message) {
        let Some(record) = self.message_record(seq) else {
            return;
        };
        // Whoever reads it meanwhile sees that it is no event's.
        let (length, bytes) = message.parts();
        record.seq.store(0, SeqCst);
        fence(SeqCst);
        for (to, from) in record.words.iter().zip(bytes.chunks_exact(8)) {
            let mut word = [0; 8];
            word.copy_from_slice(from);
            to.store(u64::from_ne_bytes(word), Relaxed);
        }
        record.length.store(length as u64, Relaxed);
        record.seq.store(seq, Release);
    }

    /// The text of an event, if it has one that is still remembered.
    pub(crate) fn error_of(&self, event: &Event) -> Option<Message> {
        if event.kind == Kind::ReloadFailed {
            self.message(event.seq)
        } else {
            None
        }
    }

    fn message(&self, seq: u64) -> Option<Message> {
        let record = self.message_record(seq)?;
        if record.seq.load(Acquire) != seq {
            return None;
        }
        let mut bytes = [0; Message::SIZE];
        for (to, from) in bytes.chunks_exact_mut(8).zip(record.words.iter()) {
            to.copy_from_slice(&from.load(Relaxed).to_ne_bytes());
        }
        let length = record.length.load(Relaxed) as usize;
        fence(Acquire);
        let is_whole = length > 0 && record.seq.load(Relaxed) == seq;
        is_whole.then(|| Message::from_parts(length, bytes))
    }

    /// Why the reload failed that failed last, if that is still remembered.
    pub fn reload_error(&self) -> Option<Message> {
        let newest = self.messages.iter().map(|record| record.seq.load(Acquire)).max()?;
        self.message(newest).filter(|_| newest != 0)
    }

    /// Where the text of an event lies, or else the place of the oldest.
    fn message_record(&self, seq: u64) -> Option<&MessageRecord> {
        let oldest = self.messages.iter().min_by_key(|record| record.seq.load(Relaxed))?;
        self.messages.iter().find(|record| record.seq.load(Relaxed) == seq).or(Some(oldest))
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        EventRecord, GenerationRecord, Head, Message, MessageRecord, Now, Roster, Transition,
    };

    #[test]
    fn the_newest_texts_are_remembered() {
        let head = Head::default();
        let generations: [GenerationRecord; 4] = Default::default();
        let events: [EventRecord; 16] = Default::default();
        let messages: [MessageRecord; 2] = Default::default();
        let roster = Roster {
            head: &head,
            generations: &generations,
            workers: &[],
            events: &events,
            messages: &messages,
        };
        roster.create(0, 77);
        assert_eq!(roster.reload_error(), None);
        let now = Now { wall: 1, monotonic: 2, since_boot: 3 };
        let load = Transition::MasterStart { pid: 1, workers: 0, began: 0, reload: false };
        roster.record(load, now, &mut |_| ()).expect("there is room");
        let error = |text: &str| Some(Message::new(text.as_bytes()));
        for text in [Some("one"), None, Some("two"), Some("three")] {
            let failed = Transition::ReloadFailed { pid: 1, began: 0, error: text.and_then(error) };
            let recorded = roster.record(failed, now, &mut |_| ()).expect("there is room");
            assert_eq!(recorded.event.error, text.and_then(error));
        }
        let texts: Vec<_> = (1..=5).map(|seq| roster.event(seq).and_then(|e| e.error)).collect();
        assert_eq!(texts, [None, None, None, error("two"), error("three")]);
        assert_eq!(roster.reload_error(), error("three"));
    }
}
