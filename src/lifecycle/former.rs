//! Zones that this node has left by a reload, while workers of theirs live. Nobody of the new zone is
//! told of those workers, but the status counts them, and a reload is not done as long as they drain.

use std::cell::{Cell, RefCell};

use linux::mapping::Mapping;
use linux::process::is_gone;
use ngx::ffi::ngx_shm_t;

use crate::config::Conf;
use crate::delivery::uncounted;
use crate::nginx::clock;
use crate::nginx::log::Log;
use crate::nginx::process::PerProcess;
use crate::nginx::zone::Zone;

/// How often to see which of their workers live, milliseconds: of each worker the kernel is asked. That
/// they end in an orderly way is seen at once.
const LOOK: u64 = 1000;

/// A zone that was left. nginx unmaps it in the master, and workers of a later generation would never
/// have it; so the master maps it a second time, for those that it forks from then on.
struct Former {
    zone: Zone,
    /// Keeps the zone's memory.
    _mapping: Mapping,
}

static FORMER: PerProcess<RefCell<Vec<Former>>> = PerProcess(RefCell::new(Vec::new()));

/// The last look: when (monotonic, milliseconds), what the zones' epochs added up to, and how many workers
/// there were.
static SEEN: PerProcess<Cell<(u64, u64, usize)>> = PerProcess(Cell::new((0, 0, 0)));

/// The master leaves the zone of a configuration.
pub fn keep(conf: &Conf, zone: Zone, log: Log) {
    workers_now();
    if count(zone) == 0 {
        return;
    }
    // SAFETY: nginx unmaps a zone only after init_module; its zones are shared mappings of their own
    // (ngx_shm_alloc), whole pages since it maps as many.
    let mapping = unsafe {
        let ngx_shm_t { addr, size, .. } = (*conf.shm_zone).shm;
        Mapping::duplicate(addr, size).map(|mapping| (zone.moved(addr, mapping.address()), mapping))
    };
    match mapping {
        Ok((zone, mapping)) => FORMER.borrow_mut().push(Former { zone, _mapping: mapping }),
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
    if FORMER.borrow().is_empty() {
        return 0;
    }
    let epoch = FORMER
        .borrow()
        .iter()
        .fold(0, |sum: u64, former| sum.wrapping_add(former.zone.roster().epoch()));
    let (at, seen, workers) = SEEN.get();
    if seen == epoch && clock::monotonic().saturating_sub(at) < LOOK {
        return workers;
    }
    let workers = workers_now();
    SEEN.set((clock::monotonic(), epoch, workers));
    workers
}

/// The same, by a look at each. Zones without any are given up.
fn workers_now() -> usize {
    let mut workers = 0;
    FORMER.borrow_mut().retain(|former| {
        let here = count(former.zone);
        workers += here;
        here > 0
    });
    workers
}

fn count(zone: Zone) -> usize {
    let counted = zone.roster().workers().filter(|w| !is_gone(w.pid, w.since_boot)).count();
    counted + uncounted::count(zone)
}
