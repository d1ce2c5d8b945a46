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
    let now = facts.now;
    let reloads = snapshot.reloads;
    let last = match (reloads.succeeded, reloads.failed) {
        (0, 0) => None,
        _ if reloads.last_failed => Some("failed"),
        _ => Some("succeeded"),
    };
    render(&Status {
        schema: SCHEMA,
        node: Node {
            version: facts.version,
            nginx: &facts.nginx,
            time: now.wall as f64 / 1000.0,
            started: moment(facts.started),
            master: facts.master,
            master_lost: snapshot.lost_master != 0,
            history: History(snapshot.history).to_string(),
            generation: snapshot.generation,
            reload_token: format!("{}.{}", snapshot.generation, reloads.failed),
            seq: snapshot.seq,
            loading_since: moment(facts.loading_since),
            reloads: Reloads {
                succeeded: reloads.succeeded,
                failed: reloads.failed,
                succeeded_at: moment(reloads.succeeded_at),
                failed_at: moment(reloads.failed_at),
                last,
                duration: last.map(|_| seconds(reloads.duration)),
            },
        },
        lock: Lock {
            holder: (snapshot.holder != 0).then_some(snapshot.holder),
            callback: snapshot.callback.map(|(pending, since)| Callback {
                event: pending.event.kind.name(),
                id: pending.event.id().to_string(),
                seq: pending.event.seq,
                number: pending.begun,
                running: seconds(now.monotonic.saturating_sub(since)),
            }),
        },
        generations: snapshot.generations.iter().map(|g| describe(g, snapshot)).collect(),
        workers: snapshot.workers.iter().map(|w| worker(w, facts)).collect(),
        losses: Losses {
            total: snapshot.losses.iter().sum(),
            recent: recent.number,
            since: recent.since as f64 / 1000.0,
        },
        callbacks: Callbacks(snapshot),
        zone: Zone {
            workers: Slots { used: snapshot.workers.len(), total: facts.room.workers },
            generations: Slots { used: snapshot.generations.len(), total: facts.room.generations },
            events: Slots {
                used: facts.room.events.min(usize::try_from(snapshot.seq).unwrap_or(usize::MAX)),
                total: facts.room.events,
            },
            uncounted: facts.uncounted,
            former_workers: facts.former_workers,
        },
        event_log: EventLog { lost_lines: facts.lost_lines },
        events: snapshot.events.iter().map(|(event, took)| line(event, *took)).collect(),
    })
}

/// One generation.
pub fn generation(g: &GenerationView, snapshot: &Snapshot) -> String {
    render(&describe(g, snapshot))
}

/// An event, and how long its callbacks took in microseconds, none while they are not over.
pub fn event(event: &Event, took: Option<u64>) -> String {
    render(&line(event, took))
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
        let id = Cursor { history: Some(self.history), seq: self.next - 1 };
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

fn render(value: &impl DeriveSerialize) -> String {
    // Numbers, texts and maps with texts as keys can't fail to be written.
    serde_json::to_string(value).unwrap_or_default()
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
        started: moment(g.started),
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
        draining_since: wall(w.draining_since, now),
        held_by: holders::of(w, facts),
    }
}

fn line(event: &Event, took: Option<u64>) -> Line<'static> {
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
        took: took.map(|took| took as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::fixture;

    fn parsed(text: &str) -> Value {
        serde_json::from_str(text).expect("JSON")
    }

    #[test]
    fn the_status_of_a_node_between_two_reloads() {
        let (snapshot, facts) = fixture::node();
        let recent = Recent { number: 1, since: 1_000_000 };
        let status = parsed(&status(&snapshot, &facts, recent));
        assert_eq!(status["losses"]["total"], 1);
        assert_eq!(status["losses"]["recent"], 1);
        assert_eq!(status["losses"]["since"], 1_000.0);
        assert_eq!(status["node"]["history"], "000000000000004d");
        assert_eq!(status["node"]["generation"], 2);
        assert_eq!(status["node"]["reload_token"], "2.1");
        assert_eq!(status["node"]["reloads"]["last"], "failed");
        assert_eq!(status["node"]["reloads"]["duration"], 0.5);
        assert_eq!(status["generations"][0]["state"], "ready");
        assert_eq!(status["generations"][0]["ready_after"], 0.25);
        assert_eq!(status["generations"][1]["state"], "retired");
        assert_eq!(status["generations"][1]["age"], "previous");
        assert_eq!(status["generations"][1]["workers"]["draining"], 1);
        assert_eq!(status["workers"][0]["id"], "2-20");
        assert_eq!(status["workers"][0]["connections"]["idle"], 7);
        assert_eq!(status["workers"][0]["respawns"], 1);
        assert_eq!(status["workers"][1]["connections"], Value::Null);
        assert_eq!(status["workers"][1]["state"], "draining");
        assert_eq!(status["workers"][0]["held_by"], Value::Null);
        let held_by = &status["workers"][1]["held_by"];
        assert_eq!((&held_by["looked_at"], &held_by["total"]), (&1_002.9.into(), &3.into()));
        let held = &held_by["connections"][0];
        assert_eq!((&held["protocol"], &held["path"]), (&"http/1".into(), &"/slow".into()));
        assert_eq!((&held["age"], &held["request_age"]), (&2.5.into(), &2.0.into()));
        assert_eq!((&held["idle_since"], &held["upstream"]), (&Value::Null, &Value::Null));
        assert_eq!(status["callbacks"]["worker_start"]["runs"], 1);
        assert_eq!(status["lock"]["callback"], Value::Null);
        assert_eq!(status["zone"]["workers"]["used"], 2);
        assert_eq!(status["zone"]["uncounted"], 3);
        assert_eq!(status["zone"]["former_workers"], 2);
        assert_eq!(status["events"].as_array().map(Vec::len), Some(snapshot.events.len()));
    }

    #[test]
    fn an_event_reads_as_in_the_event_log() {
        let (snapshot, _) = fixture::node();
        let (last, _) = snapshot.events.last().expect("there are some");
        let line = parsed(&event(last, Some(1500)));
        assert_eq!(line["event"], "reload_failed");
        assert_eq!(line["took"], 0.0015);
        assert_eq!(line["n_next"], Value::Null);
        assert_eq!((&line["n_left"], &line["stopping"]), (&1.into(), &false.into()));
        assert_eq!(line["respawn_of"], Value::Null);
        assert_eq!(line["history"], "000000000000004d");
        assert_eq!(parsed(&event(last, None))["took"], Value::Null);
    }

    #[test]
    fn errors_are_escaped() {
        assert_eq!(error("a \"b\"\n"), r#"{"error":"a \"b\"\n"}"#);
    }

    #[test]
    fn what_is_missed_is_told() {
        let gap = Missed { after: Cursor { history: None, seq: 3 }, history: 0xab, next: 9 };
        let line = r#"{"event":"gap","history":"00000000000000ab","after":3,"next":9}"#;
        assert_eq!(missed(&gap), line);
        assert_eq!(gap.message(), format!("event: gap\nid: 00000000000000ab:8\ndata: {line}\n\n"));
        let restart = Missed { after: Cursor { history: Some(1), seq: 3 }, history: 0xab, next: 1 };
        assert_eq!(
            missed(&restart),
            r#"{"event":"restart","history":"00000000000000ab","after":"0000000000000001:3","next":1}"#
        );
    }
}
