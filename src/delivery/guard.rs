//! Holding the lock: recording what happens and telling it.

use linux::mutex::{MutexError, Taken};
use linux::process::is_gone;
use roster::{Admission, Full, Mode, Recorded, Roster, Transaction, Transition};

use super::alarm;
use super::dispatcher::Dispatcher;
use super::membership::beat;
use super::wait::{await_return, Occasion, Wait};
use crate::actions::{detached, Running};
use crate::config::Conf;
use crate::nginx::clock;
use crate::nginx::log::Log;
use crate::nginx::process;
use crate::nginx::zone::Zone;

/// The lock, held by this process, and what it has begun with it. Dropping it releases the lock.
pub struct LockGuard<'a> {
    pub(super) zone: Zone<'a>,
    pub(super) conf: &'a Conf,
    pub(super) log: Log<'a>,
    pub(super) transaction: Transaction,
    /// The program that the transaction awaits.
    pub(super) program: Option<Running>,
}

/// What came of taking the lock.
enum Entry<'a> {
    Held(LockGuard<'a>),
    /// Somebody is to come back to it.
    Reserved,
    Failed,
}

impl<'a> LockGuard<'a> {
    /// Takes the lock, however long that takes. None if this process was told to end meanwhile, or the
    /// lock can't be had at all, both of which are logged.
    pub fn take(
        zone: Zone<'a>,
        conf: &'a Conf,
        log: Log<'a>,
        occasion: Occasion,
    ) -> Option<LockGuard<'a>> {
        let mut wait = Wait::new(zone, conf, log, occasion);
        loop {
            if !await_return(zone.roster(), &mut wait) {
                return None;
            }
            match Self::enter(zone.lock().take(&mut || wait.goes_on()), zone, conf, log) {
                Entry::Held(guard) => return Some(guard),
                Entry::Failed => return None,
                Entry::Reserved => {}
            }
        }
    }

    /// Takes the lock if it is free.
    pub fn try_take(zone: Zone<'a>, conf: &'a Conf, log: Log<'a>) -> Option<LockGuard<'a>> {
        match zone.lock().try_take() {
            Err(MutexError::Busy) => None,
            taken => match Self::enter(taken, zone, conf, log) {
                Entry::Held(guard) => Some(guard),
                Entry::Reserved | Entry::Failed => None,
            },
        }
    }

    fn enter(
        taken: Result<Taken, MutexError>,
        zone: Zone<'a>,
        conf: &'a Conf,
        log: Log<'a>,
    ) -> Entry<'a> {
        if !is_mine(taken, zone, log) {
            return Entry::Failed;
        }
        let roster = zone.roster();
        match roster.admit(clock::monotonic(), |r| is_gone(r.pid, r.since_boot)) {
            Admission::Granted => {}
            Admission::Orphaned(pid) => {
                log!(log, Warn, "process {pid} died holding the lock, going on");
            }
            Admission::Expired(pid) => log!(
                log,
                Warn,
                "process {pid} does not come back to the event that it was \
                 telling, going on"
            ),
            Admission::Reserved => {
                zone.lock().release();
                return Entry::Reserved;
            }
        }
        detached::reap(|| Some(zone));
        roster.set_holder(Some(process::pid()));
        let transaction = Transaction::default();
        Entry::Held(LockGuard { zone, conf, log, transaction, program: None })
    }

    /// The roster.
    pub fn roster(&self) -> Roster<'_> {
        self.zone.roster()
    }

    /// From here on the callbacks of another configuration run.
    pub fn use_conf(&mut self, conf: &'a Conf) {
        self.conf = conf;
    }

    /// Whether a program runs that is to be awaited before the next hook.
    pub fn is_awaiting(&self) -> bool {
        self.transaction.is_awaiting()
    }

    /// Records a transition. Its event is dispatched by the next `commit`.
    pub fn record(&mut self, transition: Transition) -> Result<Recorded, Full> {
        let LockGuard { zone, conf, log, transaction, program } = self;
        let (zone, log) = (*zone, *log);
        transaction.record(transition, zone.roster(), &mut Dispatcher { zone, conf, log, program })
    }

    /// Dispatches what is recorded, then records and dispatches these transitions in turn, and then that
    /// generations are ready or over by that. True once all is done; false if it is to be suspended,
    /// which only [`Mode::NonBlocking`] asks for.
    pub fn commit(
        &mut self,
        transitions: impl IntoIterator<Item = Transition>,
        mode: Mode,
    ) -> bool {
        let LockGuard { zone, conf, log, transaction, program } = self;
        let (zone, log) = (*zone, *log);
        let reported = |transition: &Transition| alarm::report(zone.roster(), transition, log);
        transaction.add(transitions.into_iter().inspect(reported));
        transaction.commit(zone.roster(), &mut Dispatcher { zone, conf, log, program }, mode)
    }
}

impl Drop for LockGuard<'_> {
    fn drop(&mut self) {
        // Its callbacks may have taken longer than a heartbeat.
        beat();
        if self.roster().reservation().is_none() {
            self.roster().set_holder(None);
        }
        self.zone.lock().release();
    }
}

/// Whether the lock was taken. What a holder that died left undone is done then.
pub(super) fn is_mine(taken: Result<Taken, MutexError>, zone: Zone, log: Log) -> bool {
    match taken {
        Ok(Taken::Clean) => true,
        Ok(Taken::HolderDied) => {
            let roster = zone.roster();
            let recovery = roster.recover();
            zone.lock().mended();
            log!(
                log,
                Warn,
                "process {} died holding the lock, going on",
                roster.holder().unwrap_or(0)
            );
            if recovery.corrected > 0 {
                log!(log, Alert, "{} counts were wrong", recovery.corrected);
            }
            true
        }
        // Told to end, which is logged where it was found.
        Err(MutexError::Cancelled) => false,
        Err(error) => {
            log!(log, Alert, error = error, "could not take the lock");
            false
        }
    }
}
