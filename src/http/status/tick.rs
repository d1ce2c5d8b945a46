//! What all requests under way see of the node when they are looked at.

use std::cell::OnceCell;
use std::collections::BTreeMap;

use ::status::cursor::Cursor;
use ::status::json;
use roster::{Roster, Snapshot};

use crate::nginx::zone::Zone;

/// One look at all requests under way.
pub struct Tick<'a> {
    /// The zone of the configuration in force.
    pub zone: Option<Zone<'a>>,
    /// Whether this worker is to quit.
    pub exiting: bool,
    /// Monotonic, milliseconds.
    pub now: u64,
    /// Whether anything has moved in the zone since the last look.
    pub moved: bool,
    /// The events that streams send.
    pub lines: Lines,
    seen: OnceCell<(Option<Snapshot>, bool)>,
}

impl<'a> Tick<'a> {
    /// One now.
    pub fn new(zone: Option<Zone<'a>>, exiting: bool, now: u64, moved: bool) -> Tick<'a> {
        Tick { zone, exiting, now, moved, lines: Lines::default(), seen: OnceCell::new() }
    }

    /// The roster, and whether a configuration is being read. No roster without a zone, or while it moves
    /// too fast to be read.
    pub fn seen(&self) -> (Option<&Snapshot>, bool) {
        let (seen, loading) = self.seen.get_or_init(|| {
            let seen = self.zone.and_then(|zone| zone.roster().snapshot(0));
            (seen, self.zone.is_some_and(|zone| zone.roster().loading_since().is_some()))
        });
        (seen.as_ref(), *loading)
    }
}

/// Events that were written as text at this tick: all streams send the same.
#[derive(Default)]
pub struct Lines(BTreeMap<u64, Option<String>>);

impl Lines {
    /// An event as a stream sends it; none if it is no longer there.
    pub fn get(&mut self, roster: Roster<'_>, seq: u64) -> Option<&str> {
        let make = || {
            let (event, took) = roster.told(seq)?;
            let id = Cursor { history: Some(event.history), seq };
            Some(format!(
                "id: {id}\ndata: {}\n\n",
                json::event(&event, took, roster.error_of(&event).as_deref())
            ))
        };
        self.0.entry(seq).or_insert_with(make).as_deref()
    }
}
