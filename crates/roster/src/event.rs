//! Events: what happened, to whom, and the counts at that moment.

use std::fmt;

/// The kinds of events. The numbers are part of the zone's layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// A generation was committed.
    MasterStart = 1,
    /// A generation has finished: retired, and its last worker gone.
    MasterExit = 2,
    /// A worker begins.
    WorkerStart = 3,
    /// A worker ends in an orderly way.
    WorkerExit = 4,
    /// A worker died without a word.
    WorkerLost = 5,
    /// A live worker missed its heartbeat.
    WorkerHung = 6,
    /// A hung worker beat again.
    WorkerRecovered = 7,
    /// All workers of a generation have started.
    MasterReady = 8,
    /// A worker was told to quit gracefully and has stopped accepting.
    WorkerDraining = 9,
    /// A worker drains for longer than it should.
    WorkerStuck = 10,
    /// A reload did not commit.
    ReloadFailed = 11,
    /// The master died and its workers live on.
    MasterLost = 12,
}

impl Kind {
    /// Every kind, in the order documentation and messages list them.
    pub const ALL: [Kind; 12] = [
        Kind::MasterStart,
        Kind::MasterReady,
        Kind::MasterExit,
        Kind::MasterLost,
        Kind::ReloadFailed,
        Kind::WorkerStart,
        Kind::WorkerDraining,
        Kind::WorkerStuck,
        Kind::WorkerExit,
        Kind::WorkerLost,
        Kind::WorkerHung,
        Kind::WorkerRecovered,
    ];

    /// The name, as in the directive `on`.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::MasterStart => "master_start",
            Kind::MasterExit => "master_exit",
            Kind::WorkerStart => "worker_start",
            Kind::WorkerExit => "worker_exit",
            Kind::WorkerLost => "worker_lost",
            Kind::WorkerHung => "worker_hung",
            Kind::WorkerRecovered => "worker_recovered",
            Kind::MasterReady => "master_ready",
            Kind::WorkerDraining => "worker_draining",
            Kind::WorkerStuck => "worker_stuck",
            Kind::ReloadFailed => "reload_failed",
            Kind::MasterLost => "master_lost",
        }
    }

    /// Finds a kind by its name.
    pub fn from_name(name: &str) -> Option<Kind> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Whether programs started for it are awaited. The rest are notifications.
    pub const fn is_awaited(self) -> bool {
        matches!(self, Kind::MasterStart | Kind::MasterExit | Kind::WorkerStart | Kind::WorkerExit)
    }

    /// Whether it is about a generation as a whole, not one worker.
    pub const fn is_about_master(self) -> bool {
        matches!(
            self,
            Kind::MasterStart
                | Kind::MasterReady
                | Kind::MasterExit
                | Kind::MasterLost
                | Kind::ReloadFailed
        )
    }

    fn from_number(number: u8) -> Option<Kind> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == number)
    }
}

/// Why a worker was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Killed by a signal.
    Signal {
        /// The signal's number.
        number: u8,
        /// Whether it dumped core.
        core: bool,
    },
    /// Killed by the kernel, which had no memory left.
    Oom,
    /// It exited without passing its exit hooks.
    Exit(u8),
    /// Nobody could learn why.
    Unknown,
}

impl Reason {
    /// From a wait status as `waitpid` gives it.
    pub fn from_wait_status(status: i32) -> Reason {
        // The encoding is the kernel's and the same on every Linux: low 7 bits the signal, bit 7
        // the core flag, the next 8 bits the exit code.
        match status & 0x7f {
            0 => Reason::Exit((status >> 8) as u8),
            signal => Reason::Signal { number: signal as u8, core: status & 0x80 != 0 },
        }
    }

    /// How many different ones are counted, each at its [`Reason::index`].
    pub const INDICES: usize = 68;

    /// Where losses for this reason are counted: exit codes together, signals each.
    pub fn index(self) -> usize {
        match self {
            Reason::Unknown => 0,
            Reason::Oom => 1,
            Reason::Exit(_) => 2,
            // Linux has signals 1 to 64.
            Reason::Signal { number, .. } => 3 + usize::from(number.min(64)),
        }
    }

    fn to_bits(reason: Option<Reason>) -> u32 {
        match reason {
            None => 0,
            Some(Reason::Unknown) => 1 << 24,
            Some(Reason::Oom) => 4 << 24,
            Some(Reason::Exit(code)) => 2 << 24 | u32::from(code),
            Some(Reason::Signal { number, core }) => {
                3 << 24 | u32::from(core) << 8 | u32::from(number)
            }
        }
    }

    fn from_bits(bits: u32) -> Option<Reason> {
        match bits >> 24 {
            1 => Some(Reason::Unknown),
            4 => Some(Reason::Oom),
            2 => Some(Reason::Exit(bits as u8)),
            3 => Some(Reason::Signal { number: bits as u8, core: bits & 0x100 != 0 }),
            _ => None,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Signal { number, .. } => write!(f, "signal {number}"),
            Reason::Oom => f.write_str("oom"),
            Reason::Exit(code) => write!(f, "exit {code}"),
            Reason::Unknown => f.write_str("unknown"),
        }
    }
}

/// One event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Number on this node, from 1, without gaps.
    pub seq: u64,
    /// Wall clock, milliseconds since 1970.
    pub time: i64,
    /// What happened.
    pub kind: Kind,
    /// The generation it belongs to.
    pub generation: u64,
    /// The process it is about.
    pub pid: i32,
    /// The worker's index, none for a master.
    pub worker: Option<u32>,
    /// Running workers of the nearest older generation that has not finished, none if there is none. Of
    /// the start of a generation by a reload it is always a number.
    pub n_prev: Option<u32>,
    /// Running workers of the event's own generation.
    pub n_mine: u32,
    /// Running workers of the nearest newer generation that has not finished, none if there is none.
    pub n_next: Option<u32>,
    /// Running workers of all generations before the one of `n_prev`.
    pub n_older: u32,
    /// Running workers of the event's own generation once the event is over: `n_mine`, one less at
    /// an exit, at the loss of a worker that was counted, and at a hang.
    pub n_left: u32,
    /// Whether the node stops, as far as it is known.
    pub stopping: bool,
    /// Of a worker's start: the worker whose place it takes, by its process; none at a first start.
    pub respawn_of: Option<i32>,
    /// Names the history that `seq` and `generation` are of, see [`Roster::create`].
    ///
    /// [`Roster::create`]: crate::Roster::create
    pub history: u64,
    /// Why a worker was lost.
    pub reason: Option<Reason>,
    /// Connections of a worker that drains.
    pub connections: Option<u32>,
    /// Milliseconds: of a load of the configuration until now, or since a worker began to drain.
    pub duration: Option<u32>,
}

/// The bit beside the kind that says that the node stops.
const STOPPING: u32 = 8;

/// How an absent number lies in the zone.
const NIL: u32 = u32::MAX;

fn pack(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

fn unpack(word: u64) -> (u32, u32) {
    (word as u32, (word >> 32) as u32)
}

fn some(number: u32) -> Option<u32> {
    (number != NIL).then_some(number)
}

impl Event {
    /// How many words of the zone an event takes.
    pub(crate) const WORDS: usize = 10;

    /// As it lies in the zone.
    pub(crate) fn to_words(self) -> [u64; Self::WORDS] {
        [
            self.seq,
            self.time as u64,
            pack(
                self.kind as u32 | u32::from(self.stopping) << STOPPING,
                self.worker.unwrap_or(NIL),
            ),
            self.generation,
            pack(self.pid as u32, Reason::to_bits(self.reason)),
            pack(self.n_prev.unwrap_or(NIL), self.n_mine),
            pack(self.n_next.unwrap_or(NIL), self.n_older),
            pack(self.connections.unwrap_or(NIL), self.duration.unwrap_or(NIL)),
            // No process has the number 0.
            pack(self.n_left, self.respawn_of.unwrap_or(0) as u32),
            self.history,
        ]
    }

    /// Back from the zone; none if the words are not an event.
    pub(crate) fn from_words(words: &[u64; Self::WORDS]) -> Option<Event> {
        let (kind, worker) = unpack(words[2]);
        let (pid, reason) = unpack(words[4]);
        let (n_prev, n_mine) = unpack(words[5]);
        let (n_next, n_older) = unpack(words[6]);
        let (connections, duration) = unpack(words[7]);
        let (n_left, respawn_of) = unpack(words[8]);
        Some(Event {
            seq: words[0],
            time: words[1] as i64,
            kind: Kind::from_number(u8::try_from(kind & !(1 << STOPPING)).ok()?)?,
            generation: words[3],
            pid: pid as i32,
            worker: some(worker),
            n_prev: some(n_prev),
            n_mine,
            n_next: some(n_next),
            n_older,
            n_left,
            stopping: kind >> STOPPING & 1 != 0,
            respawn_of: (respawn_of != 0).then_some(respawn_of as i32),
            history: words[9],
            reason: Reason::from_bits(reason),
            connections: some(connections),
            duration: some(duration),
        })
    }

    /// The id: `3` for a master, `3-1234` for a worker.
    pub fn id(&self) -> impl fmt::Display + '_ {
        Id(self)
    }
}

/// The name of a history as text: 16 digits of lower-case hex, so that texts sort as the numbers do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct History(pub u64);

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

struct Id<'a>(&'a Event);

impl fmt::Display for Id<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.kind.is_about_master() {
            write!(f, "{}", self.0.generation)
        } else {
            write!(f, "{}-{}", self.0.generation, self.0.pid)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: Kind) -> Event {
        Event {
            seq: 7,
            time: 1_700_000_000_123,
            kind,
            generation: 3,
            pid: 1234,
            worker: Some(0),
            n_prev: None,
            n_mine: 2,
            n_next: Some(0),
            n_older: 1,
            n_left: 1,
            stopping: true,
            respawn_of: Some(1233),
            history: u64::MAX,
            reason: Some(Reason::Signal { number: 11, core: true }),
            connections: Some(17),
            duration: None,
        }
    }

    #[test]
    fn every_event_survives_the_zone() {
        for kind in Kind::ALL {
            for reason in [
                None,
                Some(Reason::Unknown),
                Some(Reason::Oom),
                Some(Reason::Exit(0)),
                Some(Reason::Exit(255)),
                Some(Reason::Signal { number: 9, core: false }),
                Some(Reason::Signal { number: 11, core: true }),
            ] {
                let event = Event { reason, ..event(kind) };
                assert_eq!(Event::from_words(&event.to_words()), Some(event));
                let event = Event { stopping: false, respawn_of: None, ..event };
                assert_eq!(Event::from_words(&event.to_words()), Some(event));
            }
        }
    }

    #[test]
    fn words_that_are_no_event_are_refused() {
        assert_eq!(Event::from_words(&[0; Event::WORDS]), None);
        assert_eq!(Event::from_words(&[u64::MAX; Event::WORDS]), None);
    }

    #[test]
    fn names_are_unique_and_found() {
        for kind in Kind::ALL {
            assert_eq!(Kind::from_name(kind.name()), Some(kind));
        }
        assert_eq!(Kind::from_name("worker_born"), None);
    }

    #[test]
    fn ids_read_as_in_the_contract() {
        assert_eq!(event(Kind::MasterExit).id().to_string(), "3");
        assert_eq!(event(Kind::WorkerLost).id().to_string(), "3-1234");
    }

    #[test]
    fn reasons_come_from_wait_statuses() {
        assert_eq!(Reason::from_wait_status(9).to_string(), "signal 9");
        assert_eq!(Reason::from_wait_status(11 | 0x80), Reason::Signal { number: 11, core: true });
        assert_eq!(Reason::from_wait_status(2 << 8).to_string(), "exit 2");
    }
}
