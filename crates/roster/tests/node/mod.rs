//! A small node as a model: a master, the workers of its generations, their lock, and the memory of
//! a zone. What the holder of the lock records is the roster's own decision, and what it does its
//! transaction, step by step; what is modelled is who takes the lock when, what a process knows of
//! others, and who is killed before which store.

#![allow(dead_code)] // Not every test uses all of it.

mod choices;
mod host;
mod moves;
mod witness;

use std::cell::RefCell;

use roster::{Did, Geometry, Plan, Roster, Transaction};

use crate::common::{law, Broken, Law, Ledger, Memory};

/// How many callbacks each event has.
const CALLBACKS: u32 = 2;

const MASTER_PID: i32 = 1;

const GEOMETRY: Geometry = Geometry { generations: 3, workers: 6, events: 4, messages: 0 };

/// How large a node, what may befall it, and what is wrong with it.
#[derive(Clone, Debug)]
pub struct Node {
    pub generations: usize,
    pub workers: usize,
    /// How many processes are killed at most, and how many workers hang.
    pub deaths: u8,
    pub hangs: u8,
    /// How often a worker that serves suspends its transaction at most: from then on its programs are
    /// over at once.
    pub suspensions: u8,
    /// How many reloads fail at most.
    pub failures: u8,
    /// Whether workers record that they drain.
    pub drains: bool,
    /// Whether workers learn of deaths by pidfds. Without, by heartbeats that are overdue, one by one.
    pub pidfds: bool,
    pub dying: Dying,
    /// Whether free slots are put in order after each hold of the lock, as a recovery does. Without,
    /// all orders in which they can have been given back are told apart.
    pub relinks: bool,
    /// Whether somebody reads each table that a dead holder leaves, without the lock.
    pub reads: bool,
}

/// Where the holder of the lock may be killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dying {
    /// Before every store, of a recovery too, and after the last.
    AtStores,
    /// At the steps that `record` names, before and after what else it stores.
    AtSteps,
}

/// A process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Who {
    Master,
    Worker { generation: usize, index: usize },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Master {
    Down,
    Up,
    /// It was told to stop, and so were its workers.
    Stopping,
    Gone,
    Dead,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Life {
    Unborn,
    Forked,
    /// With its slot.
    Registered(u32),
    /// It serves and is not in the roster.
    Uncounted,
    Gone,
    Dead,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Worker {
    life: Life,
    /// How many there were before it with its index.
    predecessors: u8,
    /// Whether it has told, or is about to, that it drains.
    drains: bool,
    /// What it has suspended.
    suspended: Option<Box<Holder>>,
}

/// Why a process takes the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// The next generation.
    Commit,
    /// A reload has failed.
    Fail,
    /// To register.
    Start,
    /// A worker in its event loop has something to record or to dispatch.
    Look,
    /// A worker in its event loop comes back to what it has suspended.
    Resume,
    /// A worker that ends finishes first what it has suspended.
    Finish,
    /// The worker in this slot has missed its heartbeat.
    Judge(u32),
    /// A worker ends.
    Exit,
    /// A worker that has ended under a master finds that this has died meanwhile.
    Orphan,
    /// The master ends.
    Stop,
}

/// The lock, held.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Holder {
    who: Who,
    purpose: Purpose,
    /// By whose configuration it dispatches.
    generation: u64,
    /// What comes before the transaction.
    plan: Option<Plan>,
    transaction: Transaction,
    /// Whether the program that it awaits runs.
    runs: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Lock {
    Free,
    Held(Holder),
    /// Its holder died.
    Dirty(In),
}

/// What a holder died in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum In {
    Transition,
    Telling,
    Mending,
}

/// One moment of a node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    words: Box<[u64]>,
    lock: Lock,
    master: Master,
    workers: Vec<Vec<Worker>>,
    deaths: u8,
    hangs: u8,
    suspensions: u8,
    failures: u8,
    /// What was recorded.
    ledger: Ledger,
    /// The newest callback that ran: event and index.
    heard: (u64, u32),
    /// The event whose dispatch was interrupted last.
    interrupted: u64,
    /// Whether the time of the reservation is over.
    late: bool,
    /// Whether the last process to leave was killed.
    killed: bool,
    pub broken: Option<Broken>,
}

/// What happens next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Takes the lock, does what there is to do and lets go. What happens to others meanwhile comes
    /// to the same as right before or right after: a holder looks at them once, and they can't do
    /// more than read.
    Take(Who, Purpose),
    /// Takes the lock of a dead holder and is killed before this store of the mending.
    DieMending(Who, Purpose, u64),
    /// Takes the lock, and is killed at this step before this store of it.
    Die(Who, Purpose, usize, u64),
    Kill(Who),
    /// A worker that is not in the roster ends.
    Leave(Who),
    /// A worker ends, and its master is killed after the worker has looked at it.
    LoseMaster(Who),
    Respawn {
        generation: usize,
        index: usize,
    },
    /// Somebody takes the lock while a transaction is suspended, and has to come back.
    Knock,
    /// A suspended transaction is not resumed in time.
    Expire,
    /// The master is told to stop.
    Quit,
}

/// What a holder did.
enum Step {
    Retired,
    Did(Did),
    Suspended,
}

thread_local! {
    static MEMORY: RefCell<Memory> = RefCell::new(Memory::new(GEOMETRY));
}

impl Node {
    /// A worker's slot in the master's table of processes, which its successor inherits.
    fn process_slot(&self, who: Who) -> u32 {
        match who {
            Who::Master => 0,
            Who::Worker { generation, index } => (generation * self.workers + index) as u32,
        }
    }
}

impl State {
    /// Before anything has happened.
    pub fn first(node: &Node) -> State {
        let worker = Worker { life: Life::Unborn, predecessors: 0, drains: false, suspended: None };
        State {
            words: Memory::new(GEOMETRY).save(),
            lock: Lock::Free,
            master: Master::Down,
            workers: vec![vec![worker; node.workers]; node.generations],
            deaths: node.deaths,
            hangs: node.hangs,
            suspensions: node.suspensions,
            failures: node.failures,
            ledger: Ledger::new(node.workers as u32),
            heard: (0, 0),
            interrupted: 0,
            late: false,
            killed: false,
            broken: None,
        }
    }

    /// Looks at the memory of this state.
    fn with<T>(&self, look: impl FnOnce(Roster<'_>) -> T) -> T {
        MEMORY.with_borrow(|memory| {
            memory.restore(&self.words);
            look(memory.roster())
        })
    }

    fn pid(&self, who: Who) -> i32 {
        match who {
            Who::Master => MASTER_PID,
            Who::Worker { generation, index } => {
                let before = self.workers[generation][index].predecessors;
                100 * (generation as i32 + 1) + 10 * index as i32 + i32::from(before) + 1
            }
        }
    }

    /// Who has a pid, or had it before.
    fn who(&self, pid: i32) -> Option<Who> {
        let pid = usize::try_from(pid).ok()?;
        let (generation, index) = ((pid / 100).checked_sub(1)?, pid % 100 / 10);
        Some(Who::Worker { generation, index })
    }

    /// Whether a worker was told to end, or ends since the master is gone.
    fn quits(&self, who: Who, newest: usize) -> bool {
        let Who::Worker { generation, .. } = who else { return false };
        generation + 1 < newest || self.master != Master::Up
    }

    fn worker(&self, who: Who) -> Option<&Worker> {
        match who {
            Who::Master => None,
            Who::Worker { generation, index } => self.workers.get(generation)?.get(index),
        }
    }

    fn worker_mut(&mut self, who: Who) -> Option<&mut Worker> {
        match who {
            Who::Master => None,
            Who::Worker { generation, index } => self.workers.get_mut(generation)?.get_mut(index),
        }
    }

    fn is_master_alive(&self) -> bool {
        matches!(self.master, Master::Down | Master::Up | Master::Stopping)
    }

    /// The workers that live.
    fn living(&self) -> impl Iterator<Item = (Who, &Worker)> {
        let all = self.workers.iter().enumerate().flat_map(|(generation, workers)| {
            let workers = workers.iter().enumerate();
            workers.map(move |(index, worker)| (Who::Worker { generation, index }, worker))
        });
        all.filter(|(_, w)| matches!(w.life, Life::Forked | Life::Registered(_) | Life::Uncounted))
    }

    /// Whether a process lives.
    fn lives(&self, pid: i32) -> bool {
        self.living().any(|(who, _)| self.pid(who) == pid)
    }

    /// Whether somebody else than the process that has suspended a transaction may begin one.
    fn is_open(&self, roster: Roster<'_>) -> bool {
        self.late || roster.reservation().is_none_or(|r| !self.lives(r.pid))
    }

    /// The slots of workers that are in the roster and dead.
    fn dead<'a>(&self, roster: Roster<'a>) -> impl Iterator<Item = u32> + use<'a> {
        let pids = self.living().map(|(who, _)| self.pid(who)).collect::<Vec<_>>();
        roster.workers().filter(move |w| !pids.contains(&w.pid)).map(|w| w.slot)
    }

    /// Workers that have not begun are alike: it is enough that the first of them does something.
    fn is_like_one_before(&self, who: Who, worker: &Worker) -> bool {
        let Who::Worker { generation, index } = who else { return false };
        worker.life == Life::Forked
            && worker.predecessors == 0
            && self.workers[generation][..index].iter().any(|before| before == worker)
    }

    fn die(&mut self, who: Who) {
        match self.worker_mut(who) {
            Some(worker) => {
                worker.life = Life::Dead;
                worker.suspended = None;
            }
            None => self.master = Master::Dead,
        }
        self.killed = true;
        self.deaths -= 1;
    }

    /// Empties what no law asks for any more.
    fn forget_the_past(&mut self, roster: Roster<'_>) {
        let delivered = roster.pending().map_or(roster.seq(), |pending| pending.event.seq - 1);
        if self.heard.0 <= delivered {
            self.heard = (delivered, CALLBACKS);
        }
        if self.interrupted <= delivered {
            self.interrupted = 0;
        }
    }

    /// What the last holder of the lock died in, if it did.
    pub fn died_in(&self) -> Option<In> {
        match self.lock {
            Lock::Dirty(what) => Some(what),
            _ => None,
        }
    }

    /// Whether nobody is left.
    pub fn is_finished(&self) -> bool {
        !self.is_master_alive() && self.living().next().is_none()
    }

    /// Whether the last process ended in order, so that it should have told everything.
    pub fn is_finished_in_order(&self) -> bool {
        self.is_finished() && !self.killed
    }

    /// Whether everything has ended and was told.
    pub fn all_is_told(&self) -> bool {
        self.ledger.generations.is_empty() && self.with(|roster| roster.pending().is_none())
    }

    /// Takes what was recorded into the ledger, and holds the table to it if nothing is under way.
    fn check(&mut self, roster: Roster<'_>) -> Result<(), Broken> {
        while self.ledger.seq < roster.seq() {
            let event = roster.event(self.ledger.seq + 1);
            let Some(event) = event else {
                return law(false, Law::Gapless, || format!("no event {}", self.ledger.seq + 1));
            };
            self.ledger.take(&event)?;
        }
        let gone = self.ledger.seq == roster.seq();
        law(gone, Law::Gapless, || format!("{} became {}", self.ledger.seq, roster.seq()))?;
        if matches!(self.lock, Lock::Dirty(_)) {
            return Ok(());
        }
        self.ledger.check_table(roster)
    }
}
