//! Whether the kernel killed a worker for memory. A wait status says signal 9 then as well; what
//! tells is that the count of such kills in nginx's cgroup has moved.

use std::fs;

use roster::{Reason, Roster};

use crate::kill_point;

/// The kernel's count of processes of this cgroup that it killed for memory.
fn kills() -> Option<u64> {
    if let Some(simulated) = kill_point::content("oom-kills") {
        return simulated.trim().parse().ok();
    }
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    // `4:memory:/path` in version 1, `0::/path` in version 2; with both, memory is in only one.
    own.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        let file = match controllers {
            "" => format!("/sys/fs/cgroup{path}/memory.events"),
            _ if controllers.split(',').any(|controller| controller == "memory") => {
                format!("/sys/fs/cgroup/memory{path}/memory.oom_control")
            }
            _ => return None,
        };
        let text = fs::read_to_string(file).ok()?;
        text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok())
    })
}

/// Notes what the count is now: kills until then are not those of workers lost later. `before` is
/// what it was at the last call in this process, since a worker killed a moment ago may not be told
/// yet. Returns what to pass the next time.
pub fn look(roster: Roster<'_>, before: Option<u64>) -> Option<u64> {
    let now = kills()?;
    match (before, roster.oom_kills()) {
        (_, None) => roster.set_oom_kills(now),
        // Never back: what has explained a loss does not explain another.
        (Some(before), Some(seen)) if before > seen => roster.set_oom_kills(before),
        _ => {}
    }
    Some(now)
}

/// The reason of a loss, seen in the light of the count. The caller holds the lock.
pub fn judge(roster: Roster<'_>, reason: Reason) -> Reason {
    if !matches!(reason, Reason::Signal { number: 9, .. }) {
        return reason;
    }
    match (kills(), roster.oom_kills()) {
        (Some(now), Some(seen)) if now > seen => {
            // One kill explains one loss.
            roster.set_oom_kills(seen + 1);
            Reason::Oom
        }
        _ => reason,
    }
}
