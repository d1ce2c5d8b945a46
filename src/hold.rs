//! Holding the lock: recording what happens and telling it.

use std::fmt::Display;
use std::mem::take;

use linux::mutex::Taken;
use linux::process::is_gone;
use roster::{Full, Kind, Pending, Recorded, Reservation, Roster, Step, Transition};

use crate::callback::Running;
use crate::clock;
use crate::conf::Conf;
use crate::kill_point::kill_point;
use crate::lifecycle::beat;
use crate::log::Log;
use crate::oom;
use crate::process;
use crate::watch;
use crate::zone::Zone;

mod parked;
mod wait;

pub use parked::{Parked, Resumed};
use wait::Wait;
pub use wait::{Blocked, Occasion};

/// Whether to stand still while a program runs that is to be awaited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// At a start or an exit: nothing else is to be done.
    Wait,
    /// In the event loop of a worker that serves: come back later.
    ComeBack,
}

/// A callback that is over when its program is.
struct Awaited {
    running: Running,
    kind: Kind,
    /// Monotonic clock, microseconds.
    since: u64,
}

/// How far this process has come with the events it tells.
#[derive(Default)]
struct Progress {
    /// The event whose callbacks this process is running, and since when (monotonic, microseconds).
    telling: Option<(u64, u64)>,
    /// A program that is to be awaited before the next callback.
    awaited: Option<Awaited>,
}

/// The lock, held by this process. Dropping it lets go.
pub struct Hold<'a> {
    zone: Zone,
    conf: &'a Conf,
    log: Log,
    progress: Progress,
}

/// What came of taking the lock.
enum Entry<'a> {
    Held(Hold<'a>),
    /// Somebody is to come back to it.
    Reserved,
    Failed,
}

impl<'a> Hold<'a> {
    /// Takes the lock, however long that takes. None if this process was told to end meanwhile, or the
    /// lock can't be had at all, both of which are logged.
    pub fn take(zone: Zone, conf: &'a Conf, log: Log, occasion: Occasion) -> Option<Hold<'a>> {
        let mut wait = Wait::new(zone, conf, log, occasion);
        loop {
            if !parked::await_return(zone.roster(), &mut wait) {
                return None;
            }
            match Self::enter(zone.lock().take(&mut || wait.goes_on()), zone, conf, log) {
                Entry::Held(hold) => return Some(hold),
                Entry::Failed => return None,
                Entry::Reserved => {}
            }
        }
    }

    /// Takes the lock if it is free.
    pub fn try_take(zone: Zone, conf: &'a Conf, log: Log) -> Option<Hold<'a>> {
        match zone.lock().try_take() {
            Err(libc::EBUSY) => None,
            taken => match Self::enter(taken, zone, conf, log) {
                Entry::Held(hold) => Some(hold),
                Entry::Reserved | Entry::Failed => None,
            },
        }
    }

    fn enter(taken: Result<Taken, i32>, zone: Zone, conf: &'a Conf, log: Log) -> Entry<'a> {
        if !is_mine(taken, zone, log) {
            return Entry::Failed;
        }
        let roster = zone.roster();
        if let Some(Reservation { pid, since_boot, until }) = roster.reservation() {
            if is_gone(pid, since_boot) {
                log!(log, Warn, "worker_manager: process {pid} died holding the lock, going on");
            } else if clock::monotonic() >= until {
                log!(
                    log,
                    Warn,
                    "worker_manager: process {pid} does not come back to the event that it was \
                     telling, going on"
                );
            } else {
                zone.lock().release();
                return Entry::Reserved;
            }
            roster.end_reservation();
        }
        watch::reap(Some(roster));
        roster.set_holder(process::pid());
        Entry::Held(Hold { zone, conf, log, progress: Progress::default() })
    }

    /// The roster.
    pub fn roster(&self) -> Roster<'_> {
        self.zone.roster()
    }

    /// From here on the callbacks of another configuration run.
    pub fn use_conf(&mut self, conf: &'a Conf) {
        self.conf = conf;
    }

    /// Whether a program runs that is to be awaited before the next callback.
    pub fn is_awaiting(&self) -> bool {
        self.progress.awaited.is_some()
    }

    /// Records a transition. Its event is told by the next `run`.
    pub fn record(&mut self, transition: Transition) -> Result<Recorded, Full> {
        let kind = kind_of(&transition);
        let recorded = self.zone.roster().record(transition, clock::now(), &mut |step| {
            let point = match step {
                Step::Planned => "planned",
                Step::Journaled => "journaled",
                Step::Applying => "applying",
                Step::Recorded => "recorded",
            };
            kill_point(kind, point);
        })?;
        self.progress.telling = Some((recorded.event.seq, clock::microseconds()));
        Ok(recorded)
    }

    /// Tells what is recorded, then records and tells the transitions in turn, and then that
    /// generations are ready or over by that. True once all is done; false if it has to be called
    /// again, which only [`Patience::ComeBack`] does.
    pub fn run(&mut self, transitions: &mut Vec<Transition>, patience: Patience) -> bool {
        loop {
            if !self.tell(patience) {
                return false;
            }
            let next = if transitions.is_empty() {
                let (roster, pid) = (self.zone.roster(), process::pid());
                if let Some(generation) = roster.ready() {
                    Transition::MasterReady { generation, pid }
                } else if let Some(generation) = roster.over() {
                    Transition::MasterExit { generation, pid }
                } else {
                    return true;
                }
            } else {
                transitions.remove(0)
            };
            let next = match next {
                Transition::WorkerLost { slot, reason } => {
                    let reason = oom::judge(self.zone.roster(), reason);
                    Transition::WorkerLost { slot, reason }
                }
                next => next,
            };
            if let Err(full) = self.record(next) {
                log!(self.log, Alert, "worker_manager: {next:?} can't be recorded: {full}");
                if let Transition::MasterReady { .. } | Transition::MasterExit { .. } = next {
                    // It would be next again.
                    return true;
                }
            }
        }
    }

    /// Runs the callbacks of all events that are recorded and not told.
    fn tell(&mut self, patience: Patience) -> bool {
        let zone = self.zone;
        let roster = zone.roster();
        loop {
            if let Some(awaited) = &mut self.progress.awaited {
                if patience == Patience::ComeBack && awaited.running.poll().is_none() {
                    return false;
                }
                self.wait();
            }
            if roster.skip_unreadable() {
                log!(self.log, Alert, "worker_manager: an event in the zone is unreadable");
                continue;
            }
            let Some(pending) = roster.pending() else {
                return true;
            };
            let event = pending.event;
            let (begun, since) = match self.progress.telling {
                Some((seq, since)) if seq == event.seq => (pending.begun, since),
                _ => self.take_over(&pending),
            };
            let conf = self.conf;
            let left = conf.callbacks.iter().enumerate().skip(begun as usize);
            let mut fitting = left.filter(|(_, on)| on.matches(event.kind));
            let Some((index, on)) = fitting.next() else {
                let took = clock::microseconds().saturating_sub(since);
                if let Some(log) = &conf.event_log {
                    log.write(roster, &event, took, self.log);
                }
                roster.delivered(event.seq, took);
                self.progress.telling = None;
                kill_point(event.kind, "delivered");
                continue;
            };
            self.progress.telling = Some((event.seq, since));
            roster.begin_callback(event.seq, conf.generation.get(), index as u32);
            let (kind, since) = (event.kind, clock::microseconds());
            roster.callback_begins(kind, since / 1000);
            zone.label().set(&on.label);
            kill_point(kind, "begun");
            let running = on.callback.run(&event, conf, roster, self.log);
            if running.as_ref().is_some_and(Running::is_awaited) {
                self.progress.awaited = running.map(|running| Awaited { running, kind, since });
            } else if let Some(running) = running {
                watch::adopt(running, roster);
                if patience == Patience::ComeBack {
                    // Starting one takes a moment: requests come in between.
                    self.over(kind, since);
                    kill_point(kind, "called");
                    return false;
                }
            }
            if self.progress.awaited.is_none() {
                self.over(kind, since);
            } else if patience == Patience::Wait {
                self.wait();
            }
            kill_point(kind, "called");
        }
    }

    /// Waits for the program that is awaited, if there is one.
    fn wait(&mut self) {
        if let Some(Awaited { running, kind, since }) = take(&mut self.progress.awaited) {
            if !running.wait(&mut beat) {
                self.zone.roster().callback_failed(kind);
            }
            self.over(kind, since);
        }
    }

    /// A callback is over that began at `since` (monotonic, microseconds).
    fn over(&self, kind: Kind, since: u64) {
        let took = clock::microseconds().saturating_sub(since);
        self.zone.roster().callback_over(kind, took);
        self.zone.label().set("");
    }

    /// Takes over an event that another process recorded and did not live to tell. Returns how
    /// many of this process's callbacks count as run.
    fn take_over(&mut self, pending: &Pending) -> (u32, u64) {
        let Pending { event, begun, generation } = *pending;
        let name = event.kind.name();
        let id = event.id();
        let begun = if begun == 0 {
            log!(self.log, Notice, "worker_manager: {name} {id} was not told yet, telling it now");
            0
        } else {
            let label = self.zone.label().get();
            let label = label.as_ref().map_or(&"a callback" as &dyn Display, |label| label);
            log!(
                self.log,
                Warn,
                "worker_manager: {label} did not finish, its process died: callback {begun} of \
                 generation {generation} was interrupted at {name} {id}"
            );
            self.zone.label().set("");
            self.zone.roster().callback_failed(event.kind);
            if generation == self.conf.generation.get() {
                begun
            } else {
                u32::MAX
            }
        };
        (begun, clock::microseconds())
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        // Its callbacks may have taken longer than a heartbeat.
        beat();
        if self.roster().reservation().is_none() {
            self.roster().set_holder(0);
        }
        self.zone.lock().release();
    }
}

/// Whether the lock was taken. What a holder that died left undone is done then.
fn is_mine(taken: Result<Taken, i32>, zone: Zone, log: Log) -> bool {
    match taken {
        Ok(Taken::Clean) => true,
        Ok(Taken::HolderDied) => {
            let roster = zone.roster();
            let recovery = roster.recover();
            zone.lock().mended();
            log!(
                log,
                Warn,
                "worker_manager: process {} died holding the lock, going on",
                roster.holder()
            );
            if recovery.corrected > 0 {
                log!(log, Alert, "worker_manager: {} counts were wrong", recovery.corrected);
            }
            true
        }
        // Told to end, which is logged where it was found.
        Err(libc::ECANCELED) => false,
        Err(errno) => {
            log!(log, Alert, errno = errno, "worker_manager: could not take the lock");
            false
        }
    }
}

fn kind_of(transition: &Transition) -> Kind {
    match transition {
        Transition::MasterStart { .. } => Kind::MasterStart,
        Transition::MasterReady { .. } => Kind::MasterReady,
        Transition::MasterLost { .. } => Kind::MasterLost,
        Transition::ReloadFailed { .. } => Kind::ReloadFailed,
        Transition::WorkerDraining { .. } => Kind::WorkerDraining,
        Transition::WorkerStuck { .. } => Kind::WorkerStuck,
        Transition::MasterExit { .. } => Kind::MasterExit,
        Transition::WorkerStart { .. } => Kind::WorkerStart,
        Transition::WorkerExit { .. } => Kind::WorkerExit,
        Transition::WorkerLost { .. } => Kind::WorkerLost,
        Transition::WorkerHung { .. } => Kind::WorkerHung,
        Transition::WorkerRecovered { .. } => Kind::WorkerRecovered,
    }
}
