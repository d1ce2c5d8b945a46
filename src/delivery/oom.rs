//! Whether the kernel killed a worker for memory. A wait status says signal 9 then as well; what
//! tells is that the count of such kills in the cgroup has moved.
//!
//! The count is compared with what it was in the same cgroup: a node may be moved to another one, by its
//! master first. One that a node is moved to is noted by the first worker that settles there.

use std::cell::OnceCell;

use linux::cgroup::{MemoryController, OomKills};
use roster::{Reason, Roster};

use crate::nginx::failpoint;
use crate::nginx::main_thread::MainThreadCell;

/// Where the counts lie. Looked for once, in the process that starts the node; workers inherit it.
static CONTROLLER: MainThreadCell<OnceCell<Option<MemoryController>>> =
    MainThreadCell::new(OnceCell::new());

/// The kernel's count of processes of this process's cgroup that it killed for memory.
fn kills() -> Option<OomKills> {
    if let Some(simulated) = failpoint::content("oom-kills") {
        // How many, and the number of a cgroup if it is another than the first.
        let mut numbers = simulated.split_ascii_whitespace().map(str::parse);
        let (count, cgroup) = (numbers.next()?.ok()?, numbers.next());
        return Some(OomKills { count, cgroup: cgroup.map_or(Some(1), Result::ok)? });
    }
    CONTROLLER.here()?.get_or_init(MemoryController::find).as_ref()?.oom_kills()
}

/// Notes what the count is if nobody knows what it was in this cgroup: kills until then are not those
/// of workers lost later.
pub fn begin(roster: Roster<'_>) {
    if let Some(now) = kills() {
        if roster.oom_kills(now.cgroup).is_none() {
            roster.set_oom_kills(now.cgroup, now.count);
        }
    }
}

/// Notes what the count is now. `before` is what this returned the last time in this process: a worker
/// killed a moment ago may not be told yet, so it is that count that is accounted for.
pub fn look(roster: Roster<'_>, before: Option<OomKills>) -> Option<OomKills> {
    let now = kills()?;
    let seen = roster.oom_kills(now.cgroup);
    match (before.filter(|before| before.cgroup == now.cgroup), seen) {
        (_, None) => roster.set_oom_kills(now.cgroup, now.count),
        // Never back: what has explained a loss does not explain another.
        (Some(before), Some(seen)) if before.count > seen => {
            roster.set_oom_kills(now.cgroup, before.count);
        }
        _ => {}
    }
    Some(now)
}

/// The reason of a loss, seen in the light of the count. The caller holds the lock.
pub fn judge(roster: Roster<'_>, reason: Reason) -> Reason {
    if !matches!(reason, Reason::Signal { number: 9, .. }) {
        return reason;
    }
    let Some(now) = kills() else {
        return reason;
    };
    match roster.oom_kills(now.cgroup) {
        Some(seen) if now.count > seen => {
            // One kill explains one loss.
            roster.set_oom_kills(now.cgroup, seen.saturating_add(1));
            Reason::Oom
        }
        _ => reason,
    }
}
