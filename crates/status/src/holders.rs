//! What holds workers that drain, as JSON.

use roster::held::{Held, Holders};
use roster::{Now, WorkerView};
use serde::Serialize;

use crate::{seconds, wall, Facts};

#[derive(Serialize)]
pub(crate) struct HeldBy<'a> {
    looked_at: f64,
    total: u32,
    connections: Vec<Connection<'a>>,
}

#[derive(Serialize)]
struct Connection<'a> {
    client: &'a str,
    protocol: &'static str,
    server: Option<&'a str>,
    requests: Option<u32>,
    method: Option<&'a str>,
    path: Option<&'a str>,
    upstream: Option<&'a str>,
    age: f64,
    request_age: Option<f64>,
    sent: u64,
    idle_since: Option<f64>,
}

/// What holds a worker; none if it does not drain, or nothing is known.
pub(crate) fn of<'a>(w: &WorkerView, facts: &'a Facts) -> Option<HeldBy<'a>> {
    let holders = facts.holders.iter().find(|h| h.registration == w.registration)?;
    let Holders { looked_at, total, ref connections, .. } = *holders;
    Some(HeldBy {
        looked_at: wall(looked_at, facts.now),
        total,
        connections: connections.iter().map(|held| connection(held, facts.now)).collect(),
    })
}

fn connection(held: &Held, now: Now) -> Connection<'_> {
    let ago = |since: u64| seconds(now.monotonic.saturating_sub(since));
    let text = |text| Some(text).filter(|text: &&str| !text.is_empty());
    Connection {
        client: &held.client,
        protocol: held.protocol.name(),
        server: text(&held.server),
        requests: held.protocol.is_http().then_some(held.requests),
        method: text(&held.method),
        path: text(&held.path),
        upstream: text(&held.upstream),
        age: ago(held.since),
        request_age: (held.request_since != 0).then(|| ago(held.request_since)),
        sent: held.sent,
        idle_since: (held.idle_since != 0).then(|| wall(held.idle_since, now)),
    }
}
