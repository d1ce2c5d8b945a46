//! Waiting for a reload: whether it has come, failed, or is to be waited for.

use roster::{GenerationView, Snapshot};

/// How far a new generation is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// It has all its workers.
    Ready,
    /// And no older worker is left.
    Done,
}

/// What somebody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// A generation after this one.
    pub after: u64,
    /// How many reloads had failed when the reload was asked for, if that is known.
    pub failed: Option<u64>,
    /// How far it is to be.
    pub until: Until,
    /// How long to wait, milliseconds.
    pub timeout: u64,
}

impl Wait {
    /// How long to wait unless something else is asked for, milliseconds.
    pub const TIMEOUT: u64 = 30_000;
    /// The longest time, milliseconds.
    pub const LONGEST: u64 = 3_600_000;

    /// As arguments of a request.
    pub fn arguments(&self) -> String {
        let Wait { after, failed, until, timeout } = self;
        let failed = failed.map_or(String::new(), |failed| format!(".{failed}"));
        let until = match until {
            Until::Ready => "ready",
            Until::Done => "done",
        };
        format!("after={after}{failed}&until={until}&timeout={timeout}ms")
    }
}

/// How a wait stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// This generation is what was waited for.
    Come(GenerationView),
    /// A reload failed.
    Failed,
    /// Neither.
    NotYet,
}

/// A wait that is under way.
///
/// The client that asks to wait says which generation was there before the reload. Whether one that failed
/// is the one that is waited for can only be told from how many had failed before. A client that does not say
/// that either most likely has asked for the reload a moment ago: so one that failed in the last
/// seconds counts, unless the master begins another at once, which then is the one.
#[derive(Clone, Copy, Debug)]
pub struct Waiting {
    wait: Wait,
    /// More failed reloads than these: it has failed.
    failed: u64,
    /// Until when (monotonic, milliseconds) the one that failed last may not be the one.
    doubt_until: Option<u64>,
}

/// How long ago a reload may have failed that is waited for, milliseconds.
const RECENT: i64 = 10_000;
/// How long a signal takes at most until the master reads the configuration, milliseconds.
const BEGINS: u64 = 500;

impl Waiting {
    /// Begins to wait. `wall` and `monotonic` are the time, milliseconds.
    pub fn begin(wait: Wait, seen: &Snapshot, wall: i64, monotonic: u64) -> Waiting {
        let failed = seen.reloads.failed;
        let mut waiting =
            Waiting { wait, failed: wait.failed.unwrap_or(failed), doubt_until: None };
        let ago = seen.reloads.failed_at.map(|failed_at| wall.saturating_sub(failed_at));
        let recent = ago.is_some_and(|ago| (0..=RECENT).contains(&ago));
        if wait.failed.is_none() && seen.reloads.last_failed && recent {
            waiting.failed = failed.saturating_sub(1);
            waiting.doubt_until = Some(monotonic.saturating_add(BEGINS));
        }
        waiting
    }

    /// How it stands. `loading` says whether the master reads a configuration.
    pub fn judge(&mut self, seen: &Snapshot, loading: bool, monotonic: u64) -> Verdict {
        let come = |g: &&GenerationView| {
            let over = || seen.workers.iter().all(|w| w.generation >= g.number);
            g.number > self.wait.after && g.ready && (self.wait.until == Until::Ready || over())
        };
        if let Some(g) = seen.generations.iter().find(come) {
            return Verdict::Come(*g);
        }
        if let Some(until) = self.doubt_until {
            if loading || seen.generation > self.wait.after {
                self.failed = seen.reloads.failed;
                self.doubt_until = None;
            } else if seen.reloads.failed.checked_sub(self.failed) == Some(1) && monotonic < until {
                return Verdict::NotYet;
            }
        }
        if seen.reloads.failed > self.failed {
            return Verdict::Failed;
        }
        Verdict::NotYet
    }

    /// What to ask another worker for, with so many milliseconds left.
    pub fn left(&self, timeout: u64) -> Wait {
        // What is in doubt still is so there.
        let failed = self.doubt_until.is_none().then_some(self.failed);
        Wait { failed, timeout, ..self.wait }
    }

    /// What was asked for.
    pub fn asked(&self) -> &Wait {
        &self.wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    const WAIT: Wait = Wait { after: 2, failed: None, until: Until::Ready, timeout: 1000 };

    fn judge(wait: Wait, seen: &Snapshot) -> Verdict {
        Waiting::begin(wait, seen, i64::MAX, 0).judge(seen, false, 0)
    }

    #[test]
    fn what_is_there_has_come() {
        let (seen, _) = fixture::node();
        let wait = Wait { after: 1, ..WAIT };
        assert!(matches!(judge(wait, &seen), Verdict::Come(g) if g.number == 2));
        // A worker of the first still drains.
        let wait = Wait { until: Until::Done, ..wait };
        assert_eq!(judge(wait, &seen), Verdict::NotYet);
        let mut later = seen.clone();
        later.workers.retain(|w| w.generation == 2);
        assert!(matches!(judge(wait, &later), Verdict::Come(g) if g.number == 2));
        later.generations[0].ready = false;
        assert_eq!(judge(wait, &later), Verdict::NotYet);
    }

    #[test]
    fn a_reload_that_fails_later_has_failed() {
        let (seen, _) = fixture::node();
        let mut waiting = Waiting::begin(WAIT, &seen, i64::MAX, 0);
        assert_eq!(waiting.judge(&seen, false, 0), Verdict::NotYet);
        let mut later = seen.clone();
        later.reloads.failed += 1;
        assert_eq!(waiting.judge(&later, false, 0), Verdict::Failed);
    }

    #[test]
    fn who_says_how_many_had_failed_is_told_exactly() {
        let (seen, _) = fixture::node();
        assert_eq!(judge(Wait { failed: Some(1), ..WAIT }, &seen), Verdict::NotYet);
        assert_eq!(judge(Wait { failed: Some(0), ..WAIT }, &seen), Verdict::Failed);
    }

    #[test]
    fn one_that_failed_a_moment_ago_is_meant_if_no_other_begins() {
        let (seen, _) = fixture::node();
        let now = seen.reloads.failed_at.unwrap() + 100;
        let mut waiting = Waiting::begin(WAIT, &seen, now, 0);
        assert_eq!(waiting.judge(&seen, false, BEGINS - 1), Verdict::NotYet);
        assert_eq!(waiting.judge(&seen, false, BEGINS), Verdict::Failed);

        let mut waiting = Waiting::begin(WAIT, &seen, now, 0);
        assert_eq!(waiting.judge(&seen, true, 1), Verdict::NotYet);
        assert_eq!(waiting.judge(&seen, false, BEGINS), Verdict::NotYet);
        assert_eq!(waiting.left(5), Wait { failed: Some(1), timeout: 5, ..WAIT });

        // Another that fails while nobody looks.
        let mut waiting = Waiting::begin(WAIT, &seen, now, 0);
        let mut later = seen.clone();
        later.reloads.failed += 1;
        assert_eq!(waiting.judge(&later, false, 1), Verdict::Failed);
    }

    #[test]
    fn one_that_failed_long_ago_is_not_meant() {
        let (seen, _) = fixture::node();
        let later = seen.reloads.failed_at.unwrap() + RECENT + 1;
        let mut waiting = Waiting::begin(WAIT, &seen, later, 0);
        assert_eq!(waiting.judge(&seen, false, BEGINS), Verdict::NotYet);
    }
}
