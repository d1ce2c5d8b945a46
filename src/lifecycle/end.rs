//! A worker, or the node, ends.

use ngx::ffi::ngx_cycle_t;
use roster::{Mode, Transition};

use super::losses;
use crate::config::Conf;
use crate::delivery::{member, set_member, uncounted, Hold, Occasion};
use crate::monitor::{self, drain, order};
use crate::nginx::log::Log;
use crate::nginx::process;

/// A worker ends in an orderly way: `exit_process`.
///
/// # Safety
/// `cycle` is what nginx called `exit_process` with.
pub unsafe fn worker_exited(cycle: *const ngx_cycle_t) {
    uncounted::end();
    let member = member();
    // Who is not counted, since the zone was full, has still to bury the others if it is the last.
    if member.is_none() && !process::is_orphan() {
        return;
    }
    // SAFETY: the cycle is live.
    let (log, conf) = unsafe { (Log::of(cycle), Conf::of(cycle)) };
    let Some((conf, zone)) = conf.and_then(|conf| Some((conf, conf.zone()?))) else {
        return;
    };
    order::await_master(drain::is_told());
    // What the event loop has begun is finished first.
    let zone = member.map_or(zone, |member| member.zone);
    let hold = monitor::stop().or_else(|| Hold::take(zone, conf, log, Occasion::End));
    let Some(mut hold) = hold else {
        return;
    };
    let me = member.and_then(|member| member.view());
    let orphan = process::is_orphan();
    let lost = if orphan { losses::seen_by_orphan(&hold) } else { Vec::new() };
    let stopping = match me {
        _ if orphan => is_last(&hold, &lost),
        Some(me) => order::is_stopping(hold.roster(), &me),
        None => false,
    };
    // A worker that drains and has nothing to do ends before it could say the former.
    let draining = me.and_then(|me| monitor::untold_draining(me, stopping));
    let mut transitions: Vec<_> = draining.into_iter().collect();
    transitions.extend(lost);
    if orphan {
        // Nobody will start another generation, and nobody else buries the dead.
        hold.roster().retire_all();
        if stopping {
            hold.roster().set_stopping();
        }
    }
    if let Some(me) = me {
        if me.hung {
            transitions.push(Transition::WorkerRecovered { slot: me.slot });
        }
        transitions.push(Transition::WorkerExit { slot: me.slot, stopping });
    }
    hold.run(transitions, Mode::Blocking);
    order::end();
    // The slot is another's from here on: no more heartbeats.
    set_member(None);
    if !orphan && process::is_bereft() {
        // The master has died meanwhile.
        hold.roster().retire_all();
        let losses = losses::seen_by_orphan(&hold);
        if is_last(&hold, &losses) {
            hold.roster().set_stopping();
        }
        hold.run(losses, Mode::Blocking);
    }
}

/// Whether the node ends with this worker: its master is gone, and so are all other workers but those
/// that are about to be told lost, and no other binary goes on.
fn is_last(hold: &Hold<'_>, lost: &[Transition]) -> bool {
    let me = member().map(|me| me.registration);
    let others = hold.roster().workers().filter(|w| Some(w.registration) != me);
    others.count() == lost.len() && !order::has_other_binary()
}

/// The node stops: `exit_master`. Every worker has ended by now.
///
/// # Safety
/// `cycle` is what nginx called `exit_master` with.
pub unsafe fn node_exited(cycle: *const ngx_cycle_t) {
    // SAFETY: the cycle is live.
    let (log, conf) = unsafe { (Log::of(cycle), Conf::of(cycle)) };
    let Some((conf, zone)) = conf.and_then(|conf| Some((conf, conf.zone()?))) else {
        return;
    };
    let Some(mut hold) = Hold::take(zone, conf, log, Occasion::End) else {
        return;
    };
    hold.roster().retire_all();
    if !order::has_other_binary() {
        hold.roster().set_stopping();
    }
    let transitions = losses::at_the_end(&hold);
    hold.run(transitions, Mode::Blocking);
}
