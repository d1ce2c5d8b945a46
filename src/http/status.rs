//! `worker_manager_status`: the roster for people, scripts and Prometheus. What is said is in
//! `crates/status`; here is what nginx has to do with it.

use core::ffi::{c_char, c_void};
use core::ptr;

use ::status::cursor::{Cursor, Remembered};
use ::status::health::{Answerer, Probe};
use ::status::losses::Recent;
use ::status::metrics::{self, Format};
use ::status::request::{self, Page};
use ::status::wait::Wait;
use ::status::{json, Facts};
use ngx::ffi::{
    ngx_command_t, ngx_conf_t, ngx_http_request_t, ngx_int_t, ngx_uint_t, NGINX_VERSION,
    NGX_HTTP_GET, NGX_HTTP_HEAD,
};
use ngx::http::{HttpModuleLocationConf, NgxHttpCoreModule, Request};
use roster::{Event, Geometry, Snapshot};

use crate::config::{place, Conf};
use crate::delivery::{member, uncounted};
use crate::lifecycle::former;
use crate::nginx::clock;
use crate::nginx::cycle::Cycle;
use crate::nginx::process;
use crate::nginx::zone::Zone;

mod live;
mod page;
mod pending;
mod respond;
mod stream;
mod tick;
mod wait;

use respond::{header, Response};

/// Reads the directive.
pub unsafe extern "C" fn cmd_worker_manager_status(
    cf: *mut ngx_conf_t,
    _cmd: *mut ngx_command_t,
    _conf: *mut c_void,
) -> *mut c_char {
    // SAFETY: nginx passes the configuration being read, in a location.
    let (cycle, location) =
        unsafe { (Cycle::from_ptr((*cf).cycle), NgxHttpCoreModule::location_conf_mut(&*cf)) };
    let Some(location) = location else {
        return c"has no location".as_ptr().cast_mut();
    };
    if location.handler.is_some_and(|other| ptr::fn_addr_eq(other, OURS)) {
        return c"is duplicate".as_ptr().cast_mut();
    }
    location.handler = Some(OURS);
    // Whether there is a `worker_manager` block is known at the end only.
    if let Some(conf) = cycle.and_then(Conf::of_module) {
        // SAFETY: as above. The first place stays.
        let _ = conf.status.set(unsafe { place(cf) });
    }
    ptr::null_mut()
}

type Handler = unsafe extern "C" fn(*mut ngx_http_request_t) -> ngx_int_t;

const OURS: Handler = handler;

/// nginx's content handler.
unsafe extern "C" fn handler(r: *mut ngx_http_request_t) -> ngx_int_t {
    // SAFETY: nginx passes a live request, whose location's configuration is complete.
    let (request, location) = unsafe {
        let location = NgxHttpCoreModule::location_conf(&*r);
        let name = location.map_or(&[] as &[u8], |location| location.name.as_bytes());
        (Request::from_ngx_http_request(r), name)
    };
    answer(request, location)
}

fn answer(request: &mut Request, location: &[u8]) -> ngx_int_t {
    let r = request.as_ref();
    let Some(page) = Page::of(r.uri.as_bytes(), location) else {
        let known =
            "there are the status itself, /metrics, /events, /wait, /live and /ready below it";
        return Response::error(404, known).send(request);
    };
    if r.method & (NGX_HTTP_GET | NGX_HTTP_HEAD) as ngx_uint_t == 0 {
        let response = Response::error(405, "only GET and HEAD are answered");
        return response.with("Allow", "GET, HEAD").send(request);
    }
    let discarded = request.discard_request_body();
    if !discarded.is_ok() {
        return discarded.0;
    }
    // SAFETY: nothing of the configuration is kept when this returns to nginx.
    let conf = unsafe { Conf::in_force() };
    let Some(zone) = conf.and_then(Conf::zone) else {
        return Response::error(503, "this process has no zone").send(request);
    };
    if let Some(member) = member() {
        let (active, idle) = process::connections();
        zone.roster().set_connections(member.slot, member.registration, active, idle);
    }
    let arguments = request.as_ref().args;
    let arguments = arguments.as_bytes();
    if let (Page::Status | Page::Metrics | Page::Probe(_), Err(error)) =
        (page, request::none(arguments))
    {
        return Response::error(400, &error.to_string()).send(request);
    }
    match page {
        Page::Status => status(request, zone),
        Page::Metrics => metrics(request, zone),
        Page::Probe(probe) => answer_probe(request, zone, probe),
        Page::Events => {
            let last = header(request, "Last-Event-ID");
            match request::after(arguments, last.as_deref()) {
                Ok(after) => events(request, zone, after),
                Err(error) => Response::error(400, &error.to_string()).send(request),
            }
        }
        Page::Wait => match Wait::parse(arguments) {
            Ok(wait) => wait::answer(request, zone, wait),
            Err(error) => Response::error(400, &error.to_string()).send(request),
        },
    }
}

fn status(request: &mut Request, zone: Zone) -> ngx_int_t {
    let accept = header(request, "Accept").unwrap_or_default();
    if request::accepts(&accept, "text/html", &["application/json"]) {
        return page::send(request);
    }
    with_snapshot(request, zone, json::EVENTS, |snapshot, facts| {
        let roster = zone.roster();
        let newest_first = (roster.oldest()..=snapshot.seq).rev();
        let events = newest_first.filter_map(|seq| Some(roster.told(seq)?.0));
        let recent = Recent::count(events, facts.now.wall);
        Response::json(200, json::status(&snapshot, &facts, recent)).with("Vary", "Accept")
    })
}

fn metrics(request: &mut Request, zone: Zone) -> ngx_int_t {
    let accept = header(request, "Accept").unwrap_or_default();
    let open = request::accepts(&accept, "application/openmetrics-text", &["text/plain"]);
    let format = if open { Format::OpenMetrics } else { Format::Text };
    with_snapshot(request, zone, 0, |snapshot, facts| {
        match metrics::encode(snapshot, facts, format) {
            Ok(text) => Response::new(200, format.content_type(), text).with("Vary", "Accept"),
            Err(_) => Response::error(500, "the metrics could not be written"),
        }
    })
}

fn answer_probe(request: &mut Request, zone: Zone, probe: Probe) -> ngx_int_t {
    let accept = header(request, "Accept").unwrap_or_default();
    let is_json = request::accepts(&accept, "application/json", &["text/plain"]);
    with_snapshot(request, zone, 0, |snapshot, _| {
        let answerer = answerer();
        let answer = probe.ask(&snapshot, answerer);
        let status = if answer.is_ok() { 200 } else { 503 };
        let response = if is_json {
            Response::json(status, probe.json(answer, answerer))
        } else {
            Response::new(status, "text/plain", probe.text(answer))
        };
        // A balancer that keeps its connection to a worker that drains would go on asking that one.
        let response = if answerer.draining { response.last() } else { response };
        response.with("Vary", "Accept")
    })
}

/// This process, for a probe.
fn answerer() -> Answerer {
    // SAFETY: the configuration is used in this function alone.
    let conf = unsafe { Conf::in_force() };
    Answerer {
        generation: conf.map_or(0, |conf| conf.generation.get()),
        draining: process::is_exiting() || process::is_terminated() || process::is_told_to_quit(),
        orphan: process::is_worker() && process::is_orphan(),
    }
}

fn events(request: &mut Request, zone: Zone, after: Cursor) -> ngx_int_t {
    let accept = header(request, "Accept").unwrap_or_default();
    if request::accepts(&accept, "application/x-ndjson", &["text/event-stream"]) {
        let lines = lines(zone, after);
        return Response::new(200, "application/x-ndjson", lines)
            .with("Vary", "Accept")
            .send(request);
    }
    stream::answer(request, zone, after)
}

/// The remembered events after one, each as a line of JSON; what is missing before them is one, too.
fn lines(zone: Zone, after: Cursor) -> String {
    let roster = zone.roster();
    // Read first: a client that knows an event has it from before that.
    let seq = roster.seq();
    let events: Vec<_> = roster.history().collect();
    let seq_of = |event: Option<&(Event, _)>| event.map(|(event, _)| event.seq);
    let oldest = seq_of(events.first()).unwrap_or_else(|| roster.oldest());
    let newest = seq_of(events.last()).unwrap_or(0);
    let (after, missed) =
        Remembered { history: roster.history_id(), oldest, newest, seq }.resume(after);
    let newer = events.iter().filter(|(event, _)| event.seq > after.seq);
    let texts = missed.iter().map(json::missed);
    texts
        .chain(
            newer.map(|(event, took)| json::event(event, *took, roster.error_of(event).as_deref())),
        )
        .map(|text| text + "\n")
        .collect()
}

fn with_snapshot(
    request: &mut Request,
    zone: Zone,
    events: usize,
    make: impl FnOnce(Snapshot, Facts) -> Response,
) -> ngx_int_t {
    let Some(snapshot) = zone.roster().snapshot(events) else {
        // Hundreds of changes within a few milliseconds.
        let response = Response::error(503, "the roster changes too fast to be read");
        return response.with("Retry-After", "1").send(request);
    };
    make(snapshot, facts(zone)).send(request)
}

fn facts(zone: Zone) -> Facts {
    let roster = zone.roster();
    Facts {
        version: env!("CARGO_PKG_VERSION"),
        nginx: String::from_utf8_lossy(NGINX_VERSION.to_bytes()).into_owned(),
        now: clock::now(),
        master: if process::is_worker() { process::master() } else { process::pid() },
        started: roster.started(),
        loading_since: roster.loading_since(),
        room: Geometry {
            generations: roster.generations.len(),
            workers: roster.workers.len(),
            events: roster.events.len(),
            messages: roster.messages.len(),
        },
        uncounted: uncounted::count(zone),
        former_workers: former::workers(),
        lost_lines: roster.log_failures(),
        holders: zone.held().read(),
    }
}

/// This worker is to quit: nothing here may keep it.
pub fn drain() {
    pending::drain();
}
