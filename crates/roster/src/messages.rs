//! The texts of events. They lie beside the events, which are handed around by value at each start of a worker: few
//! have a text, and a text is longer than an event.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};

use crate::event::{Event, Kind};
use crate::layout::MessageRecord;
use crate::message::Message;
use crate::sync::fence;
use crate::table::Roster;

/// In place of an event's number: the text is that of the failed load that is recorded next.
const NEXT: u64 = u64::MAX;

impl Roster<'_> {
    /// Notes why the load failed that is recorded next, if that is known. The lock's holder asks.
    pub fn note_load_error(&self, error: Option<&Message>) {
        if let Some(left) = self.message_of(NEXT) {
            left.seq.store(0, SeqCst);
        }
        if let Some(message) = error {
            self.put_message(NEXT, message);
        }
    }

    /// Gives the text that was noted to the event that is to be recorded: none, if none was.
    pub(crate) fn give_message(&self, seq: u64) {
        match self.message_of(NEXT) {
            Some(record) => record.seq.store(seq, Release),
            // What was noted for the one before it is not this one's.
            None => self.put_message(seq, &Message::EMPTY),
        }
    }

    fn put_message(&self, seq: u64, message: &Message) {
        let Some(record) = self.messages.iter().min_by_key(|record| record.seq.load(Relaxed))
        else {
            return;
        };
        // A process that reads it meanwhile sees that it is no event's.
        record.seq.store(0, SeqCst);
        fence(SeqCst);
        let (length, bytes) = message.parts();
        for (to, from) in record.words.iter().zip(bytes.chunks_exact(8)) {
            let mut word = [0; 8];
            word.copy_from_slice(from);
            to.store(u64::from_ne_bytes(word), Relaxed);
        }
        record.length.store(length as u64, Relaxed);
        record.seq.store(seq, Release);
    }

    /// Why a load failed, by its event: what nginx logged, if that is still remembered.
    pub fn error_of(&self, event: &Event) -> Option<String> {
        if event.kind == Kind::ReloadFailed {
            self.text(self.message_of(event.seq)?, event.seq)
        } else {
            None
        }
    }

    /// Why the load failed that failed last, if that is still remembered.
    pub fn reload_error(&self) -> Option<String> {
        let seq = |record: &&MessageRecord| record.seq.load(Relaxed);
        let newest = self.messages.iter().filter(|record| seq(record) != NEXT).max_by_key(seq)?;
        self.text(newest, seq(&newest))
    }

    /// Where the text of an event lies.
    fn message_of(&self, seq: u64) -> Option<&MessageRecord> {
        self.messages.iter().find(|record| record.seq.load(Acquire) == seq)
    }

    /// The text there, if it is that of an event and the lock's holder does not write to it meanwhile.
    fn text(&self, record: &MessageRecord, seq: u64) -> Option<String> {
        if seq == 0 || record.seq.load(Acquire) != seq {
            return None;
        }
        let mut bytes = [0; Message::SIZE];
        for (to, from) in bytes.chunks_exact_mut(8).zip(record.words.iter()) {
            to.copy_from_slice(&from.load(Relaxed).to_ne_bytes());
        }
        let length = record.length.load(Relaxed) as usize;
        fence(Acquire);
        let is_whole = length > 0 && record.seq.load(Relaxed) == seq;
        is_whole.then(|| Message::from_parts(length, bytes).to_string())
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        EventRecord, GenerationRecord, Head, Message, MessageRecord, Now, Roster, Transition,
    };

    const NOW: Now = Now { wall: 1, monotonic: 2, since_boot: 3 };

    fn with_roster(test: impl FnOnce(Roster<'_>)) {
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
        let load = Transition::MasterStart { pid: 1, workers: 0, began: 0, reload: false };
        roster.record(load, NOW, &mut |_| ()).expect("there is room");
        test(roster);
    }

    fn note(roster: Roster<'_>, text: Option<&str>) {
        roster.note_load_error(text.map(|text| Message::new(text.as_bytes())).as_ref());
    }

    fn fail(roster: Roster<'_>) {
        let failed = Transition::ReloadFailed { pid: 1, began: 0 };
        roster.record(failed, NOW, &mut |_| ()).expect("there is room");
    }

    #[test]
    fn the_newest_texts_are_remembered() {
        with_roster(|roster| {
            assert_eq!(roster.reload_error(), None);
            for text in [Some("one"), None, Some("two"), Some("three")] {
                note(roster, text);
                fail(roster);
                assert_eq!(roster.reload_error().as_deref(), text);
            }
            let error = |seq| roster.error_of(&roster.event(seq).expect("it is remembered"));
            let texts: Vec<_> = (1..=5).map(error).collect();
            assert_eq!(texts, [None, None, None, Some("two".into()), Some("three".into())]);
        });
    }

    #[test]
    fn what_a_process_noted_that_died_then_is_not_another_load_s() {
        with_roster(|roster| {
            note(roster, Some("one"));
            note(roster, None);
            fail(roster);
            assert_eq!(roster.reload_error(), None);
            note(roster, Some("two"));
            assert_eq!(roster.reload_error(), None, "it is not recorded yet");
        });
    }
}
