//! Waiting for a reload to be complete.

use ::status::json;
use ::status::wait::{Until, Verdict, Wait, Waiting};
use ngx::ffi::{ngx_int_t, NGX_DONE, NGX_ERROR};
use ngx::http::Request;
use roster::Snapshot;

use super::live::Live;
use super::pending::{self, PendingRequest};
use super::respond::Response;
use super::tick::Tick;
use crate::lifecycle::former;
use crate::nginx::clock;
use crate::nginx::process;
use crate::nginx::zone::Zone;

/// A request that waits.
pub struct Pending {
    waiting: Waiting,
    /// Until when, monotonic, milliseconds.
    until: u64,
}

/// Answers at once or begins to wait.
pub fn answer(request: &mut Request, zone: Zone, wait: Wait) -> ngx_int_t {
    if !request.is_main() {
        return Response::error(400, "a subrequest can't wait").send(request);
    }
    let Some(seen) = zone.roster().snapshot(0) else {
        let response = Response::error(503, "the roster changes too fast to be read");
        return response.with("Retry-After", "1").send(request);
    };
    let now = clock::now();
    let waiting = Waiting::begin(wait, &seen, now.wall, now.monotonic);
    let mut waits = Pending { waiting, until: now.monotonic.saturating_add(wait.timeout) };
    let loading = zone.roster().loading_since().is_some();
    if let Some(response) =
        waits.response(request, &seen, loading, process::is_exiting(), now.monotonic)
    {
        return response.send(request);
    }
    let r = Live::of(request);
    if pending::add(&r, Box::new(waits)) && pending::keep(&r) {
        NGX_DONE as ngx_int_t
    } else {
        NGX_ERROR as ngx_int_t
    }
}

impl PendingRequest for Pending {
    fn is_due(&self, _tick: &Tick) -> bool {
        true
    }

    fn go_on(&mut self, r: &mut Live, tick: &mut Tick) -> Option<ngx_int_t> {
        let request = r.request();
        let response = match tick.seen() {
            (Some(seen), loading) => self.response(request, seen, loading, tick.exiting, tick.now),
            // All is as it was.
            (None, _) => self.give_up(request, tick.exiting, tick.now, 0),
        };
        response.map(|response| response.send(request))
    }
}

impl Pending {
    /// What to answer now; none if there is more to wait for.
    fn response(
        &mut self,
        request: &Request,
        seen: &Snapshot,
        loading: bool,
        exiting: bool,
        now: u64,
    ) -> Option<Response> {
        match self.waiting.judge(seen, loading, now) {
            // Workers of a zone that the reload has left are in no snapshot.
            Verdict::Come(_)
                if self.waiting.asked().until == Until::Done && former::workers() > 0 =>
            {
                self.give_up(request, exiting, now, seen.generation)
            }
            Verdict::Come(g) => Some(Response::json(200, json::generation(&g, seen))),
            Verdict::Failed => {
                let goes_on = format!("a reload failed, generation {} goes on", seen.generation);
                let why = seen
                    .reload_error
                    .as_ref()
                    .map_or(goes_on.clone(), |why| format!("{goes_on}: {why}"));
                Some(Response::error(409, &why))
            }
            Verdict::NotYet => self.give_up(request, exiting, now, seen.generation),
        }
    }

    /// What to answer if it has not come.
    fn give_up(
        &self,
        request: &Request,
        exiting: bool,
        now: u64,
        generation: u64,
    ) -> Option<Response> {
        let left = self.until.saturating_sub(now);
        let after = self.waiting.asked().after;
        if left == 0 {
            let text = if generation > after {
                let former = match former::workers() {
                    0 => String::new(),
                    1 => ", 1 worker drains in a zone before this one".to_string(),
                    workers => format!(", {workers} workers drain in a zone before this one"),
                };
                format!("generation {generation} is not there yet in full{former}")
            } else {
                format!("there is no generation after {after}")
            };
            return Some(Response::error(504, &format!("timed out: {text}")));
        }
        exiting.then(|| {
            let arguments = self.waiting.left(left).arguments();
            let location = format!("{}?{arguments}", page(request.unparsed_uri().as_bytes()));
            Response::error(307, "this worker is to quit, another goes on waiting")
                .with("Location", location)
                .last()
        })
    }
}

/// How a client finds this page from where it is: a relative reference, since a proxy may have another
/// name for the location, and one without a path, since a path from outside may be that of another host
/// (`//host/../workers/wait`). Where the last part of the client's path is another, after a rewrite, it
/// stays as it is; that not all clients know this form (RFC 2396) is why it is not the only one. nginx's
/// header filters leave this header alone: they only complete a `headers_out.location`.
fn page(unparsed_uri: &[u8]) -> &'static str {
    let path = unparsed_uri.split(|byte| *byte == b'?').next().unwrap_or_default();
    if path.ends_with(b"/wait") {
        "wait"
    } else {
        ""
    }
}
