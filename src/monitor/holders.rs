//! What holds this worker while it drains: its clients' oldest connections, noted in the zone once nginx has
//! closed the idle ones, and again at each heartbeat.

use std::cell::RefCell;

use ngx::ffi::ngx_atomic_uint_t;
use roster::held::Holders;

use crate::config::Conf;
use crate::delivery::Member;
use crate::monitor::drain;
use crate::nginx::connections::{self, Seen};
use crate::nginx::log::Log;
use crate::nginx::main_thread::MainThreadCell;

/// How a connection was found at the last look.
struct Found {
    number: ngx_atomic_uint_t,
    moved: u64,
    /// The first look that found it so, milliseconds of the monotonic clock.
    at: u64,
}

/// Those of the last look; none before the first.
static FOUND: MainThreadCell<RefCell<Option<Vec<Found>>>> = MainThreadCell::new(RefCell::new(None));

/// Notes in the zone what holds this worker, if it drains and there is a status to show it.
pub fn note(member: &Member, conf: Option<&Conf>, now: u64) {
    if drain::is_draining() && is_shown(conf) {
        put(member, &look(member, now));
    }
}

/// The same, when this worker has just begun to drain.
pub fn note_first(member: &Member, conf: Option<&Conf>, now: u64) {
    if FOUND.with(|found| found.is_none()) == Some(true) {
        note(member, conf, now);
    }
}

/// Tells in nginx's log what holds this worker for too long.
pub fn tell(member: &Member, conf: &Conf, now: u64, log: Log) {
    let holders = look(member, now);
    for held in &holders.connections {
        let age = now.saturating_sub(held.since) / 1000;
        log!(log, Warn, "this worker is held by a connection of {age} s: {held}");
    }
    let more = (holders.total as usize).saturating_sub(holders.connections.len());
    if more > 0 {
        log!(log, Warn, "this worker is held by {more} younger connections, too");
    }
    if is_shown(Some(conf)) {
        put(member, &holders);
    }
}

fn is_shown(conf: Option<&Conf>) -> bool {
    conf.is_some_and(|conf| conf.status.get().is_some())
}

fn put(member: &Member, holders: &Holders) {
    let workers: Vec<u64> = member.zone.roster().workers().map(|w| w.registration).collect();
    // If all places are taken, nothing is known of this worker, until one that has one ends.
    member.zone.held().note(holders, |other| workers.contains(&other));
}

fn look(member: &Member, now: u64) -> Holders {
    let connections::Look { total, oldest } = connections::look(now);
    let before = FOUND.with(Option::take).flatten().unwrap_or_default();
    let mut found = Vec::with_capacity(oldest.len());
    let mut connections = Vec::with_capacity(oldest.len());
    for Seen { number, moved, mut held } in oldest {
        let same = before.iter().find(|f| f.number == number && f.moved == moved);
        held.idle_since = same.map_or(0, |f| f.at);
        found.push(Found { number, moved, at: same.map_or(now, |f| f.at) });
        connections.push(held);
    }
    FOUND.with(|seen| *seen = Some(found));
    Holders { registration: member.registration, looked_at: now, total, connections }
}
