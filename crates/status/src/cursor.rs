//! Where a client is in the history, and what it is to be sent before it continues.

use std::fmt;

use roster::History;

/// The last event that a client knows, as the `id` of a stream and the argument `after` have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The history that the number is of, none if the client doesn't say.
    pub history: Option<u64>,
    /// The number of the event, 0 before the first.
    pub seq: u64,
}

impl Cursor {
    /// Of a client that knows nothing.
    pub const START: Cursor = Cursor { history: None, seq: 0 };

    /// Reads `history:seq`, the history as [`History`] writes it, or a number alone.
    pub fn parse(text: &str) -> Option<Cursor> {
        let (history, seq) = match text.split_once(':') {
            Some((history, seq)) => (Some(parse_history(history)?), seq),
            None => (None, text),
        };
        let is_number = seq.bytes().all(|byte| byte.is_ascii_digit());
        let seq = if is_number { seq.parse().ok()? } else { return None };
        Some(Cursor { history, seq })
    }
}

fn parse_history(text: &str) -> Option<u64> {
    let history = u64::from_str_radix(text, 16).ok()?;
    (History(history).to_string() == text).then_some(history)
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(history) = self.history {
            write!(f, "{}:", History(history))?;
        }
        write!(f, "{}", self.seq)
    }
}

/// What there is of a history.
#[derive(Clone, Copy, Debug)]
pub struct Remembered {
    /// Its name.
    pub history: u64,
    /// The oldest event that is remembered.
    pub oldest: u64,
    /// The newest event that can be sent.
    pub newest: u64,
    /// The newest event.
    pub seq: u64,
}

/// What a client has not seen and can't be sent any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missed {
    /// The last event that it knows.
    pub after: Cursor,
    /// The history that goes on.
    pub history: u64,
    /// The next event of it that there is.
    pub next: u64,
}

impl Missed {
    /// `restart` if what the client knows is of another history, `gap` if it is of this one.
    pub fn name(&self) -> &'static str {
        match self.after.history {
            Some(history) if history != self.history => "restart",
            _ => "gap",
        }
    }
}

impl Remembered {
    /// From where a client goes on, and what it has missed.
    ///
    /// ```
    /// use status::cursor::{Cursor, Remembered};
    ///
    /// let remembered = Remembered { history: 0xab, oldest: 10, newest: 20, seq: 20 };
    /// let (cursor, missed) = remembered.resume(Cursor::parse("15").unwrap());
    /// assert_eq!((cursor.to_string().as_str(), missed), ("00000000000000ab:15", None));
    ///
    /// // A client that was away for too long, and one that knew the node before it was started again.
    /// let (cursor, missed) = remembered.resume(Cursor::parse("00000000000000ab:3").unwrap());
    /// assert_eq!((cursor.seq, missed.unwrap().name()), (9, "gap"));
    /// let (_, missed) = remembered.resume(Cursor::parse("0000000000000001:15").unwrap());
    /// assert_eq!(missed.unwrap().name(), "restart");
    /// ```
    pub fn resume(&self, after: Cursor) -> (Cursor, Option<Missed>) {
        let Remembered { history, oldest, .. } = *self;
        let restarted = after.history.is_some_and(|other| other != history);
        // A number that is to come yet is of another history, too.
        let is_lost = restarted || after.seq > self.seq;
        let is_past = after.seq.saturating_add(1) < oldest && self.newest >= oldest;
        if !is_lost && !is_past {
            return (Cursor { history: Some(history), ..after }, None);
        }
        let missed = Missed { after, history, next: oldest };
        let seq = oldest.saturating_sub(1);
        // A client that knows nothing misses nothing.
        (Cursor { history: Some(history), seq }, (restarted || after.seq > 0).then_some(missed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const H: u64 = 0xab;

    fn at(seq: u64) -> Cursor {
        Cursor { history: Some(H), seq }
    }

    #[test]
    fn a_cursor_reads_as_it_is_written() {
        for cursor in [Cursor::START, Cursor { history: None, seq: 7 }, at(7), at(u64::MAX)] {
            assert_eq!(Cursor::parse(&cursor.to_string()), Some(cursor));
        }
        assert_eq!(at(7).to_string(), "00000000000000ab:7");
        for bad in [
            "-1",
            "+1",
            "x",
            "7:",
            ":7",
            "ab:7",
            "00000000000000AB:7",
            "00000000000000ab:7:8",
            "+0000000000000ab:7",
            "000000000000000ab:7",
            "99999999999999999999",
        ] {
            assert_eq!(Cursor::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn who_was_away_goes_on_where_it_was_or_is_told_why_not() {
        let remembered = Remembered { history: H, oldest: 10, newest: 19, seq: 20 };
        let resume = |history, seq| {
            let (cursor, missed) = remembered.resume(Cursor { history, seq });
            assert_eq!(cursor.history, Some(H));
            (cursor.seq, missed.map(|missed| (missed.name(), missed.next)))
        };
        for history in [None, Some(H)] {
            assert_eq!(resume(history, 0), (9, None), "nothing is known");
            assert_eq!(resume(history, 8), (9, Some(("gap", 10))), "too old");
            assert_eq!(resume(history, 9), (9, None), "the oldest is next");
            assert_eq!(resume(history, 15), (15, None));
            assert_eq!(resume(history, 20), (20, None), "the next is to come");
            assert_eq!(resume(history, 21), (9, Some(("gap", 10))), "never was");
            assert_eq!(resume(history, u64::MAX), (9, Some(("gap", 10))));
        }
        for seq in [0, 8, 15, 21] {
            assert_eq!(resume(Some(H + 1), seq), (9, Some(("restart", 10))));
        }
    }

    #[test]
    fn a_history_without_events_has_none_missed() {
        let remembered = Remembered { history: H, oldest: 1, newest: 0, seq: 0 };
        assert_eq!(remembered.resume(Cursor::START), (at(0), None));
        let other = Cursor { history: Some(1), seq: 5 };
        let missed = Missed { after: other, history: H, next: 1 };
        assert_eq!(remembered.resume(other), (at(0), Some(missed)));
    }
}
