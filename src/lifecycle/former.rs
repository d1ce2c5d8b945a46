//! Zones that this node has left by a reload, while workers of theirs live. Nobody of the new zone is
//! told of those workers, but the status counts them, and a reload is not done as long as they drain.

use std::cell::{Cell, RefCell};

use linux::mapping::Mapping;
use linux::process::is_gone;

use crate::config::Conf;
use crate::delivery::uncounted;
use crate::nginx::clock;
use crate::nginx::log::Log;
use crate::nginx::main_thread::MainThreadCell;
use crate::nginx::zone::Zone;

/// How often to see which of their workers live, milliseconds: of each worker the kernel is asked. That
/// they end in an orderly way is seen at once.
const LOOK: u64 = 1000;

/// A zone that was left. nginx unmaps it in the master, and workers of a later generation would never
/// have it; so the master maps it a second time, for those that it forks from then on.
struct Former {
    zone: Zone<'static>,
    /// Keeps the zone's memory.
    _mapping: Mapping,
}

static FORMER: MainThreadCell<RefCell<Vec<Former>>> = MainThreadCell::new(RefCell::new(Vec::new()));

/// The last look: when (monotonic, milliseconds), what the zones' epochs added up to, and how many workers
/// there were.
static SEEN: MainThreadCell<Cell<(u64, u64, usize)>> = MainThreadCell::new(Cell::new((0, 0, 0)));

/// The master leaves the zone of a configuration.
pub fn keep(conf: &Conf, zone: Zone, log: Log) {
    workers_now();
    if count(zone) == 0 {
        return;
    }
    let Some((addr, size)) = conf.mapping() else {
        return;
    };
    // SAFETY: nginx unmaps a zone only after init_module; its zones are shared mappings of their own
    // (ngx_shm_alloc), whole pages since it maps as many. The mapping is kept with the zone.
    let kept = unsafe {
        Mapping::duplicate(addr, size).map(|mapping| (zone.moved(addr, mapping.address()), mapping))
    };
    match kept {
        Ok((zone, mapping)) => {
            FORMER.with(|former| former.push(Former { zone, _mapping: mapping }));
        }
        Err(error) => log!(
            log,
            Warn,
            error = error,
            "could not keep the zone that is left, workers that drain there are not seen"
        ),
    }
}

/// How many workers of such zones live.
pub fn workers() -> usize {
    let epochs = FORMER.with(|former| {
        let epochs = former.iter().map(|former| former.zone.roster().epoch());
        epochs.reduce(u64::wrapping_add)
    });
    let Some(epoch) = epochs.flatten() else {
        return 0;
    };
    let (at, seen, workers) = SEEN.get_or((0, 0, 0));
    if seen == epoch && clock::monotonic().saturating_sub(at) < LOOK {
        return workers;
    }
    let workers = workers_now();
    SEEN.set((clock::monotonic(), epoch, workers));
    workers
}

/// The same, by a look at each. Zones without any are given up.
fn workers_now() -> usize {
    let workers = FORMER.with(|former| {
        let mut workers = 0usize;
        former.retain(|former| {
            let here = count(former.zone);
            workers = workers.saturating_add(here);
            here > 0
        });
        workers
    });
    workers.unwrap_or(0)
}

fn count(zone: Zone) -> usize {
    let counted = zone.roster().workers().filter(|w| !is_gone(w.pid, w.since_boot)).count();
    counted.saturating_add(uncounted::count(zone))
}
