//! What probes ask: whether the process that answers lives as it should, and whether it is one to send
//! clients to.

use std::fmt;

use roster::Snapshot;
use serde::Serialize;

use crate::{count, WorkerState};

/// What is known of the process that answers, besides the roster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answerer {
    /// Its generation; 0 if that is not known.
    pub generation: u64,
    /// Whether it was told to quit, or to end at once.
    pub draining: bool,
    /// Whether its master is gone.
    pub orphan: bool,
}

/// Why a probe fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unhealthy {
    /// The master is gone: nobody starts workers in place of the dead, and nginx can't be reloaded.
    NoMaster,
    /// The process that answers was told to end: the node stops, or it drains.
    Draining,
    /// The generation of the process that answers has not been complete yet.
    Incomplete {
        /// The generation.
        generation: u64,
        /// Its workers that run.
        running: usize,
        /// Its workers that are to run.
        expected: u32,
    },
}

impl fmt::Display for Unhealthy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unhealthy::NoMaster => f.write_str("the master process is gone"),
            Unhealthy::Draining => f.write_str("this worker drains"),
            Unhealthy::Incomplete { generation, running, expected } => {
                write!(f, "generation {generation} is starting, {running} of {expected} workers")
            }
        }
    }
}

/// Whether nginx is as it should be, as far as a restart would help.
///
/// # Errors
/// The master is gone.
pub fn live(seen: &Snapshot, answerer: Answerer) -> Result<(), Unhealthy> {
    if answerer.orphan || seen.lost_master.is_some() {
        return Err(Unhealthy::NoMaster);
    }
    Ok(())
}

/// Whether the process that answers is one to send clients to.
///
/// # Errors
/// It was told to end, or its generation has never had all its workers. One that has had them stays ready
/// while a dead one is replaced or a hung one is missing: the others serve.
pub fn ready(seen: &Snapshot, answerer: Answerer) -> Result<(), Unhealthy> {
    if answerer.draining {
        return Err(Unhealthy::Draining);
    }
    let generation = answerer.generation;
    let own = seen.generations.iter().find(|g| g.number == generation);
    if own.is_some_and(|g| g.ready) {
        return Ok(());
    }
    let running = count(seen, WorkerState::Running, |of| of == generation);
    let expected = own.map_or(0, |g| g.expected);
    Err(Unhealthy::Incomplete { generation, running, expected })
}

/// The answer as JSON.
#[derive(Serialize)]
struct Answer<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    live: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ready: Option<bool>,
    generation: u64,
    reason: Option<&'a str>,
}

/// Which of the two was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// [`live`].
    Live,
    /// [`ready`].
    Ready,
}

impl Probe {
    /// Asks it.
    ///
    /// # Errors
    /// As [`live`] and [`ready`].
    pub fn ask(self, seen: &Snapshot, answerer: Answerer) -> Result<(), Unhealthy> {
        match self {
            Probe::Live => live(seen, answerer),
            Probe::Ready => ready(seen, answerer),
        }
    }

    /// An answer as a line of text: `live`, `ready`, or that with `not ` before it and the reason after it.
    pub fn text(self, answer: Result<(), Unhealthy>) -> String {
        let name = match self {
            Probe::Live => "live",
            Probe::Ready => "ready",
        };
        match answer {
            Ok(()) => format!("{name}\n"),
            Err(reason) => format!("not {name}: {reason}\n"),
        }
    }

    /// An answer as JSON.
    pub fn json(self, answer: Result<(), Unhealthy>, answerer: Answerer) -> String {
        let reason = answer.err().map(|reason| reason.to_string());
        let of = |probe| (self == probe).then_some(reason.is_none());
        crate::json::render(&Answer {
            live: of(Probe::Live),
            ready: of(Probe::Ready),
            generation: answerer.generation,
            reason: reason.as_deref(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    const SECOND: Answerer = Answerer { generation: 2, draining: false, orphan: false };

    #[test]
    fn a_node_with_its_master_lives() {
        let (mut seen, _) = fixture::node();
        assert_eq!(live(&seen, SECOND), Ok(()));
        assert_eq!(live(&seen, Answerer { orphan: true, ..SECOND }), Err(Unhealthy::NoMaster));
        seen.lost_master = Some(77);
        assert_eq!(live(&seen, SECOND), Err(Unhealthy::NoMaster));
    }

    #[test]
    fn who_drains_lives_and_is_not_ready() {
        let (seen, _) = fixture::node();
        let draining = Answerer { draining: true, ..SECOND };
        assert_eq!(live(&seen, draining), Ok(()));
        assert_eq!(ready(&seen, draining), Err(Unhealthy::Draining));
    }

    #[test]
    fn a_generation_is_ready_once_it_was_complete() {
        let (mut seen, _) = fixture::node();
        assert_eq!(ready(&seen, SECOND), Ok(()));
        seen.workers.clear();
        assert_eq!(ready(&seen, SECOND), Ok(()), "a dead worker is replaced in a moment");
        for g in &mut seen.generations {
            g.ready = false;
        }
        let incomplete = Unhealthy::Incomplete { generation: 2, running: 0, expected: 1 };
        assert_eq!(ready(&seen, SECOND), Err(incomplete));
        let unknown = Answerer { generation: 9, ..SECOND };
        let incomplete = Unhealthy::Incomplete { generation: 9, running: 0, expected: 0 };
        assert_eq!(ready(&seen, unknown), Err(incomplete));
    }

    #[test]
    fn answers_are_text_or_json() {
        let failed = Err(Unhealthy::Incomplete { generation: 2, running: 1, expected: 8 });
        assert_eq!(Probe::Live.text(Ok(())), "live\n");
        assert_eq!(
            Probe::Ready.text(failed),
            "not ready: generation 2 is starting, 1 of 8 workers\n"
        );
        assert_eq!(
            Probe::Live.json(Ok(()), SECOND),
            r#"{"live":true,"generation":2,"reason":null}"#
        );
        assert_eq!(
            Probe::Ready.json(failed, SECOND),
            r#"{"ready":false,"generation":2,"reason":"generation 2 is starting, 1 of 8 workers"}"#
        );
    }
}
