//! Those whose death this worker learns at once, from their pidfds: the master, the next worker in
//! the roster, and the worker of the same index in the generation before.
//!
//! The next ones make a ring, so that everybody is watched by somebody, and the descriptors of the
//! whole node grow with the number of its workers, not with its square. Who starts later than its
//! watcher looked is missed until that one's next heartbeat; by the one of the same index a worker
//! that drains, and has no successor who would tell its end, is watched from before it is told to
//! quit.

use linux::pidfd::Ending;
use linux::process::is_replaced;
use ngx::ffi::ngx_event_t;
use roster::{Cause, Peer, Reason, Roster, Transition, WorkerView};

use super::schedule::retry_after;
use super::witness::ThisProcess;
use crate::delivery::Member;
use crate::nginx::clock;
use crate::nginx::log::Log;
use crate::nginx::pidfd::Pidfd;
use crate::nginx::process;

#[derive(Clone, Copy, Debug)]
struct Target {
    who: Peer,
    pid: i32,
    /// When it registered, milliseconds since boot: a process that began later is another one.
    since_boot: u64,
}

/// One that is watched.
struct Watched {
    pidfd: Pidfd,
    target: Option<Target>,
    /// When its death was noticed, monotonic, milliseconds; 0 while it lives.
    dead_since: u64,
}

impl Watched {
    const NOBODY: Watched = Watched { pidfd: Pidfd::new(), target: None, dead_since: 0 };
}

const MASTER: usize = 0;
const NEXT: usize = 1;
const ELDER: usize = 2;

static mut WATCHED: [Watched; 3] = [Watched::NOBODY; 3];

/// The watched, as a place that the event loop refers to.
fn watched(index: usize) -> *mut Watched {
    // SAFETY: the index is one of the constants above.
    unsafe { (&raw mut WATCHED).cast::<Watched>().add(index) }
}

/// What the event loop calls when one of them has died: it is to call `note_deaths`.
type OnDeath = unsafe extern "C" fn(*mut ngx_event_t);

/// Sees to it that the right ones are watched.
pub fn tend(member: &Member, now: u64, on_death: OnDeath, log: Log) {
    if !process::is_worker() {
        return;
    }
    let roster = member.zone.roster();
    let master = process::master();
    let lost = roster.lost_master() == master;
    let master = Target { who: Peer::Master(master), pid: master, since_boot: u64::MAX };
    let target = |w: WorkerView| Target {
        who: Peer::Worker { slot: w.slot, registration: w.registration },
        pid: w.pid,
        since_boot: w.since_boot,
    };
    watch(MASTER, (!lost).then_some(master), now, on_death, log);
    if !Pidfd::is_supported() {
        return;
    }

    let next = next(roster, member.slot);
    watch(NEXT, next.map(target), now, on_death, log);
    let elder = elder(roster, member).filter(|w| next.is_none_or(|next| next.slot != w.slot));
    watch(ELDER, elder.map(target), now, on_death, log);
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

fn watch(index: usize, target: Option<Target>, now: u64, on_death: OnDeath, log: Log) {
    let watched = watched(index);
    // SAFETY: a static of this module, and the event loop is this thread's.
    unsafe {
        let who = |target: &Target| (target.who, target.pid);
        if (*watched).target.as_ref().map(who) == target.as_ref().map(who) {
            return;
        }
        Pidfd::close(&raw mut (*watched).pidfd);
        (*watched).target = None;
        (*watched).dead_since = 0;
        let Some(target) = target else {
            return;
        };
        let opened = Pidfd::open(&raw mut (*watched).pidfd, target.pid, on_death, log);
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
            Pidfd::close(&raw mut (*watched).pidfd);
            (*watched).dead_since = now;
        } else if opened.is_err() {
            // No such system call, another event method, no descriptor left: the next heartbeat
            // tries again, and finds the dead itself.
            return;
        }
        (*watched).target = Some(target);
        if (*watched).dead_since != 0 {
            retry_after(0);
        }
    }
}

/// The event loop says that one of them has died. Whether that is news.
pub fn note_deaths() -> bool {
    let now = clock::monotonic();
    let mut news = false;
    for index in [MASTER, NEXT, ELDER] {
        let watched = watched(index);
        // SAFETY: a static of this module, and the event loop is this thread's.
        unsafe {
            if (*watched).pidfd.has_died() {
                // It stays readable for ever.
                Pidfd::silence(&raw mut (*watched).pidfd);
                if (*watched).target.is_some() && (*watched).dead_since == 0 {
                    (*watched).dead_since = now;
                    news = true;
                }
            }
        }
    }
    news
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

/// What there is to tell of those that were watched and have died. Who holds the lock has to tell
/// it; without the lock it is only a guess.
pub fn news(roster: Roster<'_>, now: u64) -> News {
    let mut news = News::default();
    for index in [MASTER, NEXT, ELDER] {
        // SAFETY: a static of this module, and nobody changes it meanwhile.
        let watched = unsafe { &*watched(index) };
        let Some(target) = watched.target.filter(|_| watched.dead_since != 0) else {
            continue;
        };
        let waited = now.saturating_sub(watched.dead_since);
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
    match watched.pidfd.ending() {
        Ending::Known(status) => Cause::Known(Reason::from_wait_status(status)),
        Ending::Untold => Cause::Untold,
        Ending::NotReaped => {
            let reason = process::zombie(target.pid, target.since_boot);
            reason.map_or(Cause::NotReaped, Cause::Known)
        }
    }
}
