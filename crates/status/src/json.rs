//! JSON, as `doc/status.schema.json` describes it. Times are seconds.

use roster::{Event, GenerationView, History, Kind, Reason, Snapshot, WorkerView};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde::Serialize as DeriveSerialize;

use crate::cursor::{Cursor, Missed};
use crate::holders::{self, HeldBy};
use crate::losses::Recent;
use crate::{count, moment, seconds, wall, Age, Facts, WorkerState};

/// How many events the status shows at most.
pub const EVENTS: usize = 32;

/// Version of what this writes. It changes when something is taken away or gets another meaning; what is
/// added does not change it.
pub const SCHEMA: u32 = 1;

#[derive(DeriveSerialize)]
struct Status<'a> {
    schema: u32,
    node: Node<'a>,
    lock: Lock,
    generations: Vec<Generation>,
    workers: Vec<Worker<'a>>,
    losses: Losses,
    callbacks: Callbacks<'a>,
    zone: Zone,
    event_log: EventLog,
    events: Vec<Line<'a>>,
}

#[derive(DeriveSerialize)]
struct Node<'a> {
    version: &'a str,
    nginx: &'a str,
    time: f64,
    started: Option<f64>,
    master: i32,
    master_lost: bool,
    history: String,
    generation: u64,
    reload_token: String,
    seq: u64,
    loading_since: Option<f64>,
    reloads: Reloads,
}

#[derive(DeriveSerialize)]
struct Reloads {
    succeeded: u64,
    failed: u64,
    succeeded_at: Option<f64>,
    failed_at: Option<f64>,
    last: Option<&'static str>,
    duration: Option<f64>,
    error: Option<String>,
}

#[derive(DeriveSerialize)]
struct Lock {
    holder: Option<i32>,
    callback: Option<Callback>,
}

#[derive(DeriveSerialize)]
struct Callback {
    event: &'static str,
    id: String,
    seq: u64,
    number: u32,
    running: f64,
}

#[derive(DeriveSerialize)]
struct Generation {
    generation: u64,
    state: &'static str,
    age: &'static str,
    started: Option<f64>,
    ready_after: Option<f64>,
    expected: u32,
    workers: States,
}

#[derive(DeriveSerialize)]
struct States {
    running: usize,
    draining: usize,
    stuck: usize,
    hung: usize,
}

#[derive(DeriveSerialize)]
struct Worker<'a> {
    id: String,
    pid: i32,
    worker: u32,
    generation: u64,
    state: &'static str,
    age: f64,
    heartbeat_age: f64,
    respawns: u32,
    connections: Option<Connections>,
    draining_since: Option<f64>,
    held_by: Option<HeldBy<'a>>,
}

#[derive(DeriveSerialize)]
struct Connections {
    active: u32,
    idle: u32,
}

#[derive(DeriveSerialize)]
struct Losses {
    total: u64,
    recent: u64,
    since: f64,
}

struct Callbacks<'a>(&'a Snapshot);

#[derive(DeriveSerialize)]
struct CallbackStats {
    runs: u64,
    failures: u64,
    time: f64,
}

#[derive(DeriveSerialize)]
struct Zone {
    workers: Slots,
    generations: Slots,
    events: Slots,
    uncounted: usize,
    former_workers: usize,
}

#[derive(DeriveSerialize)]
struct Slots {
    used: usize,
    total: usize,
}

#[derive(DeriveSerialize)]
struct EventLog {
    lost_lines: u64,
}

/// An event, as it also stands in the event log.
#[derive(DeriveSerialize)]
struct Line<'a> {
    seq: u64,
    time: f64,
    event: &'a str,
    id: String,
    generation: u64,
    pid: i32,
    worker: Option<u32>,
    n_prev: Option<u32>,
    n_mine: u32,
    n_next: Option<u32>,
    n_older: u32,
    n_left: u32,
    stopping: bool,
    respawn_of: Option<i32>,
    history: String,
    reason: Option<String>,
    core: Option<bool>,
    connections: Option<u32>,
    duration: Option<f64>,
    error: Option<String>,
    took: Option<f64>,
}

impl Serialize for Callbacks<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(Kind::ALL.len()))?;
        for (kind, stats) in Kind::ALL.iter().zip(&self.0.callbacks) {
            let roster::CallbackStats { runs, failures, time, .. } = *stats;
            let stats = CallbackStats { runs, failures, time: time as f64 / 1e6 };
            map.serialize_entry(kind.name(), &stats)?;
        }
        map.end()
    }
}

/// The status of a node.
pub fn status(snapshot: &Snapshot, facts: &Facts, recent: Recent) -> String {
    render(&Status {
        schema: SCHEMA,
        node: node(snapshot, facts),
        lock: lock(snapshot, facts),
        generations: snapshot.generations.iter().map(|g| describe(g, snapshot)).collect(),
        workers: snapshot.workers.iter().map(|w| worker(w, facts)).collect(),
        losses: Losses {
            total: snapshot.losses.iter().sum(),
            recent: recent.number,
            since: recent.since as f64 / 1000.0,
        },
        callbacks: Callbacks(snapshot),
        zone: zone(snapshot, facts),
        event_log: EventLog { lost_lines: facts.lost_lines },
        events: snapshot
            .events
            .iter()
            .map(|(event, took)| line(event, *took, snapshot.error_of(event.seq)))
            .collect(),
    })
}

/// One generation.
pub fn generation(g: &GenerationView, snapshot: &Snapshot) -> String {
    render(&describe(g, snapshot))
}

/// An event, and how long its callbacks took in microseconds, none until they have finished. `error` is what
/// [`roster::Roster::error_of`] says of it.
pub fn event(event: &Event, took: Option<u64>, error: Option<&str>) -> String {
    render(&line(event, took, error))
}

/// What a client has missed.
pub fn missed(missed: &Missed) -> String {
    #[derive(DeriveSerialize)]
    struct Line {
        event: &'static str,
        history: String,
        after: After,
        next: u64,
    }
    #[derive(DeriveSerialize)]
    #[serde(untagged)]
    enum After {
        Number(u64),
        Id(String),
    }
    let event = missed.name();
    let after = match event {
        "restart" => After::Id(missed.after.to_string()),
        _ => After::Number(missed.after.seq),
    };
    render(&Line { event, history: History(missed.history).to_string(), after, next: missed.next })
}

impl Missed {
    /// As a message of an event stream.
    pub fn message(&self) -> String {
        let id = Cursor { history: Some(self.history), seq: self.next.saturating_sub(1) };
        format!("event: {}\nid: {id}\ndata: {}\n\n", self.name(), missed(self))
    }
}

/// What is wrong with a request, or what came of it.
pub fn error(text: &str) -> String {
    #[derive(DeriveSerialize)]
    struct Error<'a> {
        error: &'a str,
    }
    render(&Error { error: text })
}

pub(crate) fn render(value: &impl DeriveSerialize) -> String {
    // Numbers, texts and maps with texts as keys can't fail to be written.
    serde_json::to_string(value).unwrap_or_default()
}

fn node<'a>(snapshot: &Snapshot, facts: &'a Facts) -> Node<'a> {
    let reloads = snapshot.reloads;
    Node {
        version: facts.version,
        nginx: &facts.nginx,
        time: facts.now.wall as f64 / 1000.0,
        started: (facts.started != 0).then(|| moment(facts.started)),
        master: facts.master,
        master_lost: snapshot.lost_master.is_some(),
        history: History(snapshot.history).to_string(),
        generation: snapshot.generation,
        reload_token: format!("{}.{}", snapshot.generation, reloads.failed),
        seq: snapshot.seq,
        loading_since: facts.loading_since.map(moment),
        reloads: describe_reloads(snapshot),
    }
}

fn describe_reloads(snapshot: &Snapshot) -> Reloads {
    let reloads = snapshot.reloads;
    let last = match (reloads.succeeded, reloads.failed) {
        (0, 0) => None,
        _ if reloads.last_failed => Some("failed"),
        _ => Some("succeeded"),
    };
    Reloads {
        succeeded: reloads.succeeded,
        failed: reloads.failed,
        succeeded_at: reloads.succeeded_at.map(moment),
        failed_at: reloads.failed_at.map(moment),
        last,
        duration: last.map(|_| seconds(reloads.duration)),
        error: snapshot.reload_error.clone(),
    }
}

fn lock(snapshot: &Snapshot, facts: &Facts) -> Lock {
    Lock {
        holder: snapshot.holder,
        callback: snapshot.callback.map(|(pending, since)| Callback {
            event: pending.event.kind.name(),
            id: pending.event.id().to_string(),
            seq: pending.event.seq,
            number: pending.begun,
            running: seconds(facts.now.monotonic.saturating_sub(since)),
        }),
    }
}

fn zone(snapshot: &Snapshot, facts: &Facts) -> Zone {
    let room = facts.room;
    Zone {
        workers: Slots { used: snapshot.workers.len(), total: room.workers },
        generations: Slots { used: snapshot.generations.len(), total: room.generations },
        events: Slots {
            used: room.events.min(usize::try_from(snapshot.seq).unwrap_or(usize::MAX)),
            total: room.events,
        },
        uncounted: facts.uncounted,
        former_workers: facts.former_workers,
    }
}

fn describe(g: &GenerationView, snapshot: &Snapshot) -> Generation {
    let state = match (g.retired, g.ready) {
        (true, _) => "retired",
        (false, true) => "ready",
        (false, false) => "starting",
    };
    let workers = |state| count(snapshot, state, |generation| generation == g.number);
    Generation {
        generation: g.number,
        state,
        age: Age::of(g.number, snapshot).name(),
        started: (g.started != 0).then(|| moment(g.started)),
        ready_after: g.ready.then(|| seconds(g.ready_after.into())),
        expected: g.expected,
        workers: States {
            running: workers(WorkerState::Running),
            draining: workers(WorkerState::Draining),
            stuck: workers(WorkerState::Stuck),
            hung: workers(WorkerState::Hung),
        },
    }
}

fn worker<'a>(w: &WorkerView, facts: &'a Facts) -> Worker<'a> {
    let now = facts.now;
    Worker {
        id: format!("{}-{}", w.generation, w.pid),
        pid: w.pid,
        worker: w.index,
        generation: w.generation,
        state: WorkerState::of(w).name(),
        age: seconds(now.since_boot.saturating_sub(w.since_boot)),
        heartbeat_age: seconds(now.monotonic.saturating_sub(w.beat)),
        respawns: w.respawns,
        connections: w.connections.map(|(active, idle)| Connections { active, idle }),
        draining_since: w.draining_since.map(|since| wall(since, now)),
        held_by: holders::of(w, facts),
    }
}

fn line(event: &Event, took: Option<u64>, error: Option<&str>) -> Line<'static> {
    Line {
        seq: event.seq,
        time: event.time as f64 / 1000.0,
        event: event.kind.name(),
        id: event.id().to_string(),
        generation: event.generation,
        pid: event.pid,
        worker: event.worker,
        n_prev: event.n_prev,
        n_mine: event.n_mine,
        n_next: event.n_next,
        n_older: event.n_older,
        n_left: event.n_left,
        stopping: event.stopping,
        respawn_of: event.respawn_of,
        history: History(event.history).to_string(),
        reason: event.reason.map(|reason| reason.to_string()),
        core: event.reason.map(|reason| matches!(reason, Reason::Signal { core: true, .. })),
        connections: event.connections,
        duration: event.duration.map(|ms| seconds(ms.into())),
        error: error.map(str::to_string),
        took: took.map(|took| took as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests;
