//! Who told this worker to end: the master, since the node stops, or somebody who means this worker
//! alone.

use roster::{Roster, WorkerView};

/// Whether a worker that ends, or begins to drain, does so since its node stops. The caller holds the
/// lock.
pub fn is_stopping(roster: Roster<'_>, me: &WorkerView) -> bool {
    // A retired generation makes way for the next.
    roster.generation(me.generation).is_some_and(|generation| !generation.retired)
}
