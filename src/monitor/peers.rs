//! Those whose death this worker learns at once, from their pidfds: the master, the next worker in
//! the roster, and the worker of the same index in the generation before.
//!
//! The next ones make a ring, so that everybody is watched by somebody, and the descriptors of the
//! whole node grow with the number of its workers, not with its square. A worker that starts later than its
//! watcher looked is missed until that one's next heartbeat; by the one of the same index a worker
//! that drains, and has no successor who would tell its end, is watched from before it is told to
//! quit.

use std::cell::Cell;

use linux::process::is_replaced;
use roster::{Cause, Peer, Reason, Roster, Transition, WorkerView};

use super::schedule::retry_after;
use super::witness::ThisProcess;
use crate::delivery::Member;
use crate::nginx::clock;
use crate::nginx::log::Log;
use crate::nginx::main_thread::MainThreadCell;
use crate::nginx::process;
use crate::nginx::watch::{Ending, Watch};

#[derive(Clone, Copy, Debug)]
struct Target {
    who: Peer,
    pid: i32,
    /// When it registered, milliseconds since boot: a process that began later is another one.
    since_boot: u64,
}

/// One that is watched.
struct Watched {
    watch: Watch,
    target: Cell<Option<Target>>,
    /// When its death was noticed, monotonic, milliseconds; 0 while it lives.
    dead_since: Cell<u64>,
}

impl Watched {
    const fn nobody() -> Watched {
        Watched { watch: Watch::new(), target: Cell::new(None), dead_since: Cell::new(0) }
    }
}

/// Those whom this worker watches.
struct Peers {
    master: Watched,
    next: Watched,
    elder: Watched,
}

impl Peers {
    fn all(&'static self) -> [&'static Watched; 3] {
        [&self.master, &self.next, &self.elder]
    }
}

static PEERS: MainThreadCell<Peers> = MainThreadCell::new(Peers {
    master: Watched::nobody(),
    next: Watched::nobody(),
    elder: Watched::nobody(),
});

/// What the event loop calls when one of them has died: it is to call `note_deaths`.
type OnDeath = fn();

/// Sees to it that the right ones are watched.
pub fn tend(member: &Member, now: u64, on_death: OnDeath, log: Log) {
    let Some(peers) = PEERS.here().filter(|_| process::is_worker()) else {
        return;
    };
    let roster = member.zone.roster();
    let master = process::master();
    let lost = roster.lost_master() == Some(master);
    let master = Target { who: Peer::Master(master), pid: master, since_boot: u64::MAX };
    let target = |w: WorkerView| Target {
        who: Peer::Worker { slot: w.slot, registration: w.registration },
        pid: w.pid,
        since_boot: w.since_boot,
    };
    peers.master.watch((!lost).then_some(master), now, on_death, log);
    if !Watch::is_supported() {
        return;
    }

    let next = next(roster, member.slot);
    peers.next.watch(next.map(target), now, on_death, log);
    let elder = elder(roster, member).filter(|w| next.is_none_or(|next| next.slot != w.slot));
    peers.elder.watch(elder.map(target), now, on_death, log);
}

/// The one after this worker in the roster, round its end.
fn next(roster: Roster<'_>, slot: u32) -> Option<WorkerView> {
    let mut first = None;
    for w in roster.workers().filter(|w| w.slot != slot) {
        if w.slot > slot {
            return Some(w);
        }
        first = first.or(Some(w));
    }
    first
}

/// The worker of the same index in the newest generation before this worker's.
fn elder(roster: Roster<'_>, member: &Member) -> Option<WorkerView> {
    let older = roster.workers().filter(|w| w.generation < member.generation);
    older.filter(|w| w.index == process::worker_index()).max_by_key(|w| w.generation)
}

impl Watched {
    fn watch(&'static self, target: Option<Target>, now: u64, on_death: OnDeath, log: Log) {
        let who = |target: Target| (target.who, target.pid);
        if self.target.get().map(who) == target.map(who) {
            return;
        }
        self.watch.close();
        self.target.set(None);
        self.dead_since.set(0);
        let Some(target) = target else {
            return;
        };
        let opened = self.watch.open(target.pid, on_death, log);
        let is_dead = match target.who {
            // Asked after the opening: it may have been another process that was opened.
            Peer::Master(_) => process::is_orphan(),
            // Another process that has the pid now says nothing about the one that had it.
            Peer::Worker { .. } => match &opened {
                Ok(()) => is_replaced(target.pid, target.since_boot),
                Err(error) => error.raw_os_error() == Some(libc::ESRCH),
            },
        };
        if is_dead {
            self.watch.close();
            self.dead_since.set(now);
        } else if opened.is_err() {
            // No such system call, another event method, no descriptor left: the next heartbeat
            // tries again, and finds the dead itself.
            return;
        }
        self.target.set(Some(target));
        if self.dead_since.get() != 0 {
            retry_after(0);
        }
    }

    /// The event loop says that some peer has died. Whether it is this one, and nobody knew.
    fn note_death(&'static self, now: u64) -> bool {
        if !self.watch.has_died() {
            return false;
        }
        // It stays readable for ever.
        self.watch.silence();
        let is_news = self.target.get().is_some() && self.dead_since.get() == 0;
        if is_news {
            self.dead_since.set(now);
        }
        is_news
    }
}

/// The event loop says that one of them has died. Whether that is news.
pub fn note_deaths() -> bool {
    let now = clock::monotonic();
    let deaths = |peers: &'static Peers| peers.all().map(|watched| watched.note_death(now));
    PEERS.here().map(deaths).is_some_and(|deaths| deaths.contains(&true))
}

/// What is known of the dead.
#[derive(Default)]
pub struct News {
    /// What is to be told.
    pub transitions: Vec<Transition>,
    /// Whether the cause of some death may become known in a moment.
    pub wait: bool,
    /// Whether some of those that were watched are no longer in the roster.
    pub tend: bool,
}

/// What there is to tell of those that were watched and have died. The holder of the lock records
/// it; without the lock it is only a guess.
pub fn news(roster: Roster<'_>, now: u64) -> News {
    let mut news = News::default();
    for watched in PEERS.here().into_iter().flat_map(Peers::all) {
        let dead_since = watched.dead_since.get();
        let Some(target) = watched.target.get().filter(|_| dead_since != 0) else {
            continue;
        };
        let waited = now.saturating_sub(dead_since);
        let cause = || cause(watched, &target);
        match roster.news_of_peer(target.who, waited, cause, &ThisProcess::PLAIN) {
            roster::News::Record(transition) => news.transitions.push(transition),
            roster::News::Wait => news.wait = true,
            roster::News::Settled => news.tend = true,
        }
    }
    news
}

/// How one that was watched ended.
fn cause(watched: &Watched, target: &Target) -> Cause {
    match watched.watch.ending() {
        Ending::Known(status) => Cause::Known(Reason::from_wait_status(status)),
        Ending::Untold => Cause::Untold,
        Ending::NotReaped => {
            let reason = process::zombie(target.pid, target.since_boot);
            reason.map_or(Cause::NotReaped, Cause::Known)
        }
    }
}
