//! What the holder of the node's lock does with it: it records transitions and dispatches their
//! events to the configured hooks. This is the state machine that ships; the model checker drives
//! the same code.
//!
//! A process that takes the lock begins a [`Transaction`]. One [`Transaction::step`] is one thing that others
//! can see: a transition recorded, a hook begun, an event delivered. A process may die between any two
//! of them, or inside of one; the next holder begins a transaction of its own and continues from what
//! is in the roster. There is an example at [`Transaction`].

use std::collections::VecDeque;

use crate::delivery::Pending;
use crate::event::{Event, Kind, Reason};
use crate::table::Roster;
use crate::transition::{Full, Now, Recorded, Step, Transition};

/// The process that holds the lock, as a transaction sees it.
pub trait Host {
    /// The time, on all clocks.
    fn now(&self) -> Now;
    /// The monotonic clock, microseconds.
    fn microseconds(&self) -> u64;
    /// This process.
    fn pid(&self) -> i32;
    /// The generation of the configuration whose hooks this process runs.
    fn generation(&self) -> u64;
    /// The first hook for events of a kind, from an index on.
    fn next_hook(&self, kind: Kind, from: u32) -> Option<u32>;
    /// Runs a hook.
    fn run_hook(&mut self, event: &Event, index: u32) -> Ran;
    /// Whether the program that [`Host::run_hook`] started last and that is awaited succeeded; none
    /// while it runs. If `blocking`, waits until it has ended.
    fn poll_program(&mut self, blocking: bool) -> Option<bool>;
    /// Writes an event whose hooks have finished to the event log, unless a process that died has done so.
    /// `took` is in microseconds.
    fn write_event(&mut self, event: &Event, took: u64);
    /// The reason that a loss is recorded with, given the one that its observer saw.
    fn judge(&mut self, reason: Reason) -> Reason;
    /// Something that an operator should know.
    fn report(&mut self, report: Report<'_>);
    /// A moment at which a test may kill this process.
    fn failpoint(&mut self, kind: Kind, point: Point);
}

/// What became of a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ran {
    /// It is over. If it failed, that is counted.
    Finished,
    /// It started a program that is to be awaited before the next hook.
    Awaited,
    /// It started a program that nobody waits for.
    Started,
}

/// What an operator should know.
#[derive(Clone, Copy, Debug)]
pub enum Report<'a> {
    /// The process that recorded an event did not live to begin a hook.
    NotDispatched(&'a Event),
    /// The process that ran a hook died in it.
    Interrupted(&'a Pending),
    /// The words of an event make no sense; it is skipped.
    Unreadable,
    /// A transition can't be recorded.
    Refused(&'a Transition, Full),
}

/// The moments at which a test may kill a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// A step of recording a transition.
    Recording(Step),
    /// A hook has finished.
    Called,
    /// An event is delivered.
    Delivered,
}

/// Whether this process may sleep while a program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// At a start or an exit: nothing else is to be done.
    Blocking,
    /// In the event loop of a worker that serves.
    NonBlocking,
}

/// What one step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Did {
    /// Nothing: the program that is awaited runs. Only in [`Mode::NonBlocking`].
    Wait,
    /// It started a program that nobody waits for, which takes a moment: a worker that serves returns
    /// to its requests. Only in [`Mode::NonBlocking`].
    Yield,
    /// It began a hook of an event.
    Begin(Event, u32),
    /// The program that was awaited has ended.
    Return,
    /// It delivered an event: its hooks have finished.
    Deliver(Event),
    /// It skipped an event that can't be read.
    Skip,
    /// It recorded a transition.
    Record(Transition, Result<Recorded, Full>),
    /// Nothing is left to do.
    Finish,
}

/// A program that is awaited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Awaited {
    kind: Kind,
    /// Monotonic clock, microseconds.
    since: u64,
}

/// What the holder of the lock has begun and not finished.
///
/// ```
/// # use roster::*;
/// # let head = Head::default();
/// # let generations: [GenerationRecord; 4] = Default::default();
/// # let workers: [WorkerRecord; 4] = Default::default();
/// # let events: [EventRecord; 16] = Default::default();
/// # let roster =
/// #     Roster { head: &head, generations: &generations, workers: &workers, events: &events, messages: &[] };
/// # roster.create(0, 77);
/// # let now = Now { wall: 1_700_000_000_000, monotonic: 5, since_boot: 6 };
/// /// A process with one hook for each kind of event, which never starts a program.
/// struct Process(Vec<Kind>);
///
/// impl Host for Process {
///     fn run_hook(&mut self, event: &Event, _: u32) -> Ran {
///         self.0.push(event.kind);
///         Ran::Finished
///     }
///     fn next_hook(&self, _: Kind, from: u32) -> Option<u32> {
///         (from == 0).then_some(0)
///     }
/// #   fn now(&self) -> Now { Now { wall: 1_700_000_000_000, monotonic: 5, since_boot: 6 } }
/// #   fn microseconds(&self) -> u64 { 5_000 }
/// #   fn pid(&self) -> i32 { 100 }
/// #   fn generation(&self) -> u64 { 1 }
/// #   fn poll_program(&mut self, _: bool) -> Option<bool> { None }
/// #   fn write_event(&mut self, _: &Event, _: u64) {}
/// #   fn judge(&mut self, reason: Reason) -> Reason { reason }
/// #   fn report(&mut self, _: Report<'_>) {}
/// #   fn failpoint(&mut self, _: Kind, _: Point) {}
///     // … the clocks, the event log, and so on.
/// }
///
/// // A process that records an event and dies before it dispatches it.
/// let load = Transition::MasterStart { pid: 100, workers: 1, began: 1, reload: false };
/// roster.record(load, now, &mut |_| ()).expect("there is room");
///
/// // The next one dispatches that first, then what it came for, and then that all workers are there.
/// let mut process = Process(Vec::new());
/// let mut transaction = Transaction::default();
/// transaction.add([Transition::WorkerStart {
///     generation: 1,
///     pid: 101,
///     index: 0,
///     process_slot: 0,
///     heartbeat_timeout: 10_000,
///     respawn_of: None,
/// }]);
/// assert!(transaction.commit(roster, &mut process, Mode::Blocking));
/// assert_eq!(process.0, [Kind::MasterStart, Kind::WorkerStart, Kind::MasterReady]);
/// assert_eq!(roster.pending(), None);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Transaction {
    /// To be recorded, in this order.
    transitions: VecDeque<Transition>,
    /// The event that this process dispatches, and since when (monotonic clock, microseconds).
    dispatching: Option<(u64, u64)>,
    awaited: Option<Awaited>,
}

impl Transaction {
    /// Records these transitions, after whatever is recorded already.
    pub fn add(&mut self, transitions: impl IntoIterator<Item = Transition>) {
        self.transitions.extend(transitions);
    }

    /// What is still to be recorded.
    pub fn transitions(&self) -> impl Iterator<Item = &Transition> {
        self.transitions.iter()
    }

    /// Whether a program is awaited.
    pub fn is_awaiting(&self) -> bool {
        self.awaited.is_some()
    }

    /// Steps until nothing is left to do (true), or until a worker that serves has to return to its
    /// requests (false, in [`Mode::NonBlocking`]).
    pub fn commit(&mut self, roster: Roster<'_>, host: &mut impl Host, mode: Mode) -> bool {
        loop {
            match self.step(roster, host, mode) {
                Did::Finish => return true,
                Did::Wait | Did::Yield => return false,
                _ => {}
            }
        }
    }

    /// Does the next thing: what is recorded is dispatched before anything else is recorded; then
    /// follow the transitions of this transaction, and then what they leave to be derived: that a
    /// generation is ready, or has finished.
    pub fn step(&mut self, roster: Roster<'_>, host: &mut impl Host, mode: Mode) -> Did {
        if let Some(awaited) = self.awaited {
            return self.await_program(awaited, roster, host, mode);
        }
        if roster.skip_unreadable() {
            host.report(Report::Unreadable);
            return Did::Skip;
        }
        match roster.pending() {
            Some(pending) => self.dispatch(&pending, roster, host, mode),
            None => self.record_next(roster, host),
        }
    }

    /// Records one transition now. The next step dispatches its event.
    pub fn record(
        &mut self,
        transition: Transition,
        roster: Roster<'_>,
        host: &mut impl Host,
    ) -> Result<Recorded, Full> {
        let (kind, now) = (transition.kind(), host.now());
        let recorded = roster
            .record(transition, now, &mut |step| host.failpoint(kind, Point::Recording(step)))?;
        self.dispatching = Some((recorded.event.seq, host.microseconds()));
        Ok(recorded)
    }

    fn await_program(
        &mut self,
        awaited: Awaited,
        roster: Roster<'_>,
        host: &mut impl Host,
        mode: Mode,
    ) -> Did {
        let Some(succeeded) = host.poll_program(mode == Mode::Blocking) else {
            return Did::Wait;
        };
        self.awaited = None;
        finish_hook(awaited, succeeded, roster, host);
        Did::Return
    }

    fn dispatch(
        &mut self,
        pending: &Pending,
        roster: Roster<'_>,
        host: &mut impl Host,
        mode: Mode,
    ) -> Did {
        let event = pending.event;
        let (begun, since) = match self.dispatching {
            Some((seq, since)) if seq == event.seq => (pending.begun, since),
            _ => take_over(pending, roster, host),
        };
        self.dispatching = Some((event.seq, since));
        let Some(index) = host.next_hook(event.kind, begun) else {
            let took = host.microseconds().saturating_sub(since);
            host.write_event(&event, took);
            roster.delivered(event.seq, took);
            self.dispatching = None;
            host.failpoint(event.kind, Point::Delivered);
            return Did::Deliver(event);
        };
        roster.begin_callback(event.seq, host.generation(), index);
        let hook = Awaited { kind: event.kind, since: host.microseconds() };
        roster.callback_begins(hook.kind, hook.since / 1000);
        match host.run_hook(&event, index) {
            Ran::Finished => finish_hook(hook, true, roster, host),
            Ran::Awaited => self.awaited = Some(hook),
            Ran::Started => {
                finish_hook(hook, true, roster, host);
                if mode == Mode::NonBlocking {
                    return Did::Yield;
                }
            }
        }
        Did::Begin(event, index)
    }

    fn record_next(&mut self, roster: Roster<'_>, host: &mut impl Host) -> Did {
        let (next, is_derived) = match self.transitions.pop_front() {
            Some(next) => (next, false),
            None => match derived(roster, host.pid()) {
                Some(next) => (next, true),
                None => return Did::Finish,
            },
        };
        let next = match next {
            Transition::WorkerLost { slot, reason } => {
                Transition::WorkerLost { slot, reason: host.judge(reason) }
            }
            next => next,
        };
        let recorded = self.record(next, roster, host);
        if let Err(full) = recorded {
            host.report(Report::Refused(&next, full));
            if is_derived {
                // It would be next again.
                return Did::Finish;
            }
        }
        Did::Record(next, recorded)
    }
}

/// Takes over an event that another process recorded and did not live to deliver. Returns how many
/// of this process's hooks count as run, and since when it dispatches.
fn take_over(pending: &Pending, roster: Roster<'_>, host: &mut impl Host) -> (u32, u64) {
    let begun = if pending.begun == 0 {
        host.report(Report::NotDispatched(&pending.event));
        0
    } else {
        host.report(Report::Interrupted(pending));
        roster.callback_failed(pending.event.kind);
        // The hooks of another configuration are others: which of them correspond to those that
        // have begun is not known.
        if pending.generation == host.generation() {
            pending.begun
        } else {
            u32::MAX
        }
    };
    (begun, host.microseconds())
}

fn derived(roster: Roster<'_>, pid: i32) -> Option<Transition> {
    let ready = roster.ready().map(|generation| Transition::MasterReady { generation, pid });
    ready.or_else(|| Some(Transition::MasterExit { generation: roster.finished()?, pid }))
}

fn finish_hook(hook: Awaited, succeeded: bool, roster: Roster<'_>, host: &mut impl Host) {
    if !succeeded {
        roster.callback_failed(hook.kind);
    }
    let took = host.microseconds().saturating_sub(hook.since);
    roster.callback_over(hook.kind, took);
    host.failpoint(hook.kind, Point::Called);
}
