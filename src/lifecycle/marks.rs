//! Marks on workers: of their starts and exits, which were told in which VM of a configuration. Each VM
//! counts for itself, as the original library does.

use roster::Roster;

use crate::actions::VMS;

/// The mark of a worker whose start a VM was told.
pub fn started(vm: usize) -> u32 {
    1 << vm
}

/// The mark of a worker whose exit callback has run in a VM.
pub fn left(vm: usize) -> u32 {
    1 << VMS.saturating_add(vm)
}

/// How many workers of a generation run that have a mark, or that have it not.
pub fn count(roster: Roster<'_>, generation: u64, mark: u32, has: bool) -> u32 {
    let fits = |slot| (roster.marks(slot) & mark != 0) == has;
    let all = roster.workers().filter(|w| w.generation == generation && !w.hung && fits(w.slot));
    u32::try_from(all.count()).unwrap_or(u32::MAX)
}
