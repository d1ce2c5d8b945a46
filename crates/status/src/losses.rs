//! How many workers died of late.

use roster::{Event, Kind};

/// The deaths among the remembered events of the last minutes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recent {
    /// How many workers died.
    pub number: u64,
    /// Since when, wall clock, milliseconds: by [`Recent::WINDOW`] before now, or later if less is
    /// remembered.
    pub since: i64,
}

impl Recent {
    /// How far back to look, milliseconds.
    pub const WINDOW: i64 = 300_000;

    /// Counts them in the events from the newest on, at a time on the wall clock, milliseconds.
    pub fn count(newest_first: impl Iterator<Item = Event>, now: i64) -> Recent {
        let begin = now.saturating_sub(Recent::WINDOW);
        let mut recent = Recent { number: 0, since: now };
        for event in newest_first {
            if event.time < begin {
                recent.since = begin;
                break;
            }
            let lost = u64::from(event.kind == Kind::WorkerLost);
            recent.number = recent.number.saturating_add(lost);
            // Before the first there was nothing.
            recent.since = if event.seq == 1 { begin } else { event.time.min(recent.since) };
        }
        recent
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    #[test]
    fn it_counts_what_is_remembered_of_the_last_minutes() {
        let (snapshot, _) = fixture::node();
        let events = || snapshot.events.iter().rev().map(|(event, _)| *event);
        let last = events().next().map_or(0, |event| event.time);
        let lost = events().find(|event| event.kind == Kind::WorkerLost).map_or(0, |e| e.time);
        let window = Recent::WINDOW;

        // The whole history.
        let recent = Recent::count(events(), last);
        assert_eq!(recent, Recent { number: 1, since: last - window });
        // A history that begins later.
        let oldest = events().nth(2).map_or(0, |event| event.time);
        let recent = Recent::count(events().take(3), last);
        assert_eq!(recent, Recent { number: 1, since: oldest });
        // Just in the window, and just out of it.
        let now = lost + window;
        assert_eq!(Recent::count(events(), now), Recent { number: 1, since: lost });
        assert_eq!(Recent::count(events(), now + 1), Recent { number: 0, since: lost + 1 });
        // Nothing is remembered.
        assert_eq!(Recent::count(events().take(0), now), Recent { number: 0, since: now });
        // The clock was put back: what seems to come yet has been.
        let recent = Recent::count(events().take(3), 0);
        assert_eq!(recent, Recent { number: 1, since: 0 });
    }
}
