//! A worker, or the node, ends.

use roster::{Mode, Plan};

use crate::config::Conf;
use crate::delivery::{member, set_member, uncounted, LockGuard, Occasion};
use crate::monitor::{self, drain, order, ThisProcess};
use crate::nginx::cycle::Cycle;
use crate::nginx::log::Log;
use crate::nginx::process;

/// A worker ends in an orderly way: `exit_process`.
pub fn worker_exited(cycle: Cycle<'_>) {
    uncounted::end();
    let member = member();
    // A worker that is not counted, since the zone was full, still records the others' ends if it is the last.
    if member.is_none() && !process::is_orphan() {
        return;
    }
    let (log, conf) = (Log::of(cycle), Conf::of(cycle));
    let Some((conf, zone)) = conf.and_then(|conf| Some((conf, conf.zone()?))) else {
        return;
    };
    order::await_master(drain::is_told());
    // What the event loop has begun is finished first.
    let zone = member.map_or(zone, |member| member.zone);
    let guard = monitor::stop().or_else(|| LockGuard::take(zone, conf, log, Occasion::End));
    let Some(mut guard) = guard else {
        return;
    };
    let me = member.and_then(|member| member.view());
    let plan = guard.roster().worker_end(me.as_ref(), &ThisProcess::PLAIN);
    let was_orphan = plan.retires;
    carry_out(&mut guard, plan);
    order::end();
    // The slot is another's from here on: no more heartbeats.
    set_member(None);
    if !was_orphan && process::is_orphaned() {
        // The master has died meanwhile.
        let plan = guard.roster().orphan_end(None, &ThisProcess::PLAIN);
        carry_out(&mut guard, plan);
    }
}

/// Does under the lock what the roster says that this process, which ends, has to do.
fn carry_out(guard: &mut LockGuard<'_>, plan: Plan) {
    plan.begin(guard.roster());
    guard.commit(plan.transitions, Mode::Blocking);
}

/// The node stops: `exit_master`. Every worker has ended by now.
pub fn node_exited(cycle: Cycle<'_>) {
    let (log, conf) = (Log::of(cycle), Conf::of(cycle));
    let Some((conf, zone)) = conf.and_then(|conf| Some((conf, conf.zone()?))) else {
        return;
    };
    let Some(mut guard) = LockGuard::take(zone, conf, log, Occasion::End) else {
        return;
    };
    let plan = guard.roster().master_end(&ThisProcess::PLAIN);
    carry_out(&mut guard, plan);
}
