//! Event streams: Server-Sent Events, the history and then what comes. The history in the zone is the
//! only buffer: a client that does not read falls behind there.

use ::status::cursor::{Cursor, Remembered};
use ngx::ffi::{
    ngx_add_timer, ngx_buf_t, ngx_chain_t, ngx_del_timer, ngx_handle_write_event,
    ngx_http_output_filter, ngx_http_request_t, ngx_http_send_special, ngx_int_t, ngx_pcalloc,
    NGX_DONE, NGX_ERROR, NGX_HTTP_LAST, NGX_HTTP_REQUEST_TIME_OUT, NGX_OK,
};
use ngx::http::Request;
use roster::Roster;
use thiserror::Error;

use super::live::Live;
use super::pending::{self, PendingRequest};
use super::respond::{self, Response};
use super::tick::{Lines, Tick};
use crate::nginx::clock;
use crate::nginx::log::{Level, Log};
use crate::nginx::zone::Zone;

/// How much is sent at a time, bytes; a line more or less.
const PIECE: usize = 16 * 1024;
/// How often a stream on which nothing happens says that it lives, milliseconds.
const PING: u64 = 15_000;
/// How soon a client that lost its stream is to come back, milliseconds.
const BACK: u64 = 1000;

/// One stream.
pub struct Stream {
    /// The newest event that was sent.
    after: Cursor,
    /// What nginx is sending; it refers to `bytes`, and lies in the request's pool.
    buffer: *mut ngx_buf_t,
    chain: *mut ngx_chain_t,
    bytes: Vec<u8>,
    ping_at: u64,
}

/// Begins a stream after an event.
pub fn answer(request: &mut Request, zone: Zone, after: Cursor) -> ngx_int_t {
    if !request.is_main() {
        return Response::error(400, "a subrequest can't be a stream").send(request);
    }
    let error = NGX_ERROR as ngx_int_t;
    // For an nginx in front of this one.
    let headers = [("X-Accel-Buffering", "no"), ("Vary", "Accept")].into_iter();
    if respond::begin(request, 200, "text/event-stream", headers).is_none() {
        return error;
    }
    let status = request.send_header().0;
    if status == error || status > 0 || request.header_only() {
        return status;
    }
    let mut r = Live::of(request);
    let Some(stream) = Stream::new(&r, after) else {
        return error;
    };
    if !pending::add(&r, Box::new(stream)) {
        return error;
    }
    // SAFETY: the request is there.
    unsafe { (*r.as_ptr()).write_event_handler = Some(on_writable) };
    let failed = pending::with(&mut r, |stream, r| stream.on_writable(r, Some(zone))).flatten();
    if failed.is_some() || !pending::keep(&r) {
        return error;
    }
    NGX_DONE as ngx_int_t
}

/// Why a stream can't go on. nginx has logged what there is to log.
#[derive(Debug, Error)]
enum StreamError {
    #[error("the output filters failed")]
    Filters,
    #[error("the request has no location")]
    NoLocation,
    #[error("the event loop does not wait for the client")]
    EventLoop,
}

impl PendingRequest for Stream {
    fn is_due(&self, tick: &Tick) -> bool {
        tick.moved || tick.exiting || tick.now >= self.ping_at
    }

    fn go_on(&mut self, r: &mut Live, tick: &mut Tick) -> Option<ngx_int_t> {
        match tick.zone.filter(|_| !tick.exiting) {
            Some(zone) => self.pump(r, zone, &mut tick.lines).err().map(|_| NGX_ERROR as ngx_int_t),
            None => Some(self.end(r)),
        }
    }

    fn on_writable(&mut self, r: &mut Live, zone: Option<Zone>) -> Option<ngx_int_t> {
        let zone = zone.filter(|_| !r.is_blocked())?;
        self.pump(r, zone, &mut Lines::default()).err().map(|_| NGX_ERROR as ngx_int_t)
    }
}

impl Stream {
    /// None if there is no memory.
    fn new(r: &Live, after: Cursor) -> Option<Stream> {
        // SAFETY: a request has a pool.
        let zeros = |size| unsafe { ngx_pcalloc((*r.as_ptr()).pool, size) };
        let buffer = zeros(size_of::<ngx_buf_t>()).cast::<ngx_buf_t>();
        let chain = zeros(size_of::<ngx_chain_t>()).cast::<ngx_chain_t>();
        if buffer.is_null() || chain.is_null() {
            return None;
        }
        let mut stream = Stream { after, buffer, chain, bytes: Vec::new(), ping_at: 0 };
        stream.set(format!("retry: {BACK}\n\n").into_bytes());
        Some(stream)
    }

    /// Whether all was sent that was to be.
    fn is_idle(&self) -> bool {
        // SAFETY: the buffer lives as long as the request.
        unsafe { (*self.buffer).pos == (*self.buffer).last }
    }

    fn set(&mut self, bytes: Vec<u8>) {
        self.bytes = bytes;
        self.ping_at = clock::monotonic().saturating_add(PING);
        let range = self.bytes.as_mut_ptr_range();
        // SAFETY: both live as long as the request; nginx does not use them while this runs. Zeros, as the
        // pool has made them, are how nginx makes them too.
        let (buffer, chain) = unsafe { (&mut *self.buffer, &mut *self.chain) };
        // The bytes stay until they are sent.
        (buffer.pos, buffer.last) = (range.start, range.end);
        (buffer.start, buffer.end) = (range.start, range.end);
        buffer.set_memory(1);
        buffer.set_flush(1);
        chain.buf = buffer;
        chain.next = core::ptr::null_mut();
    }

    /// Makes the next piece; false if there is nothing to say.
    fn fill(&mut self, roster: Roster<'_>, lines: &mut Lines) -> bool {
        let (newest, oldest) = (roster.last_delivered(), roster.oldest());
        let (history, seq) = (roster.history_id(), roster.seq());
        // It may have been away for too long, or seen another history.
        let (after, missed) = Remembered { history, oldest, newest, seq }.resume(self.after);
        let mut piece = missed.map_or(String::new(), |missed| missed.message());
        self.after = after;
        while self.after.seq < newest && piece.len() < PIECE {
            let next = self.after.seq.saturating_add(1);
            match lines.get(roster, next) {
                Some(line) => piece.push_str(line),
                // It was overwritten a moment ago: there is a gap, which is told the next time.
                None if next < roster.oldest() => break,
                // Somebody else wrote to the zone.
                None => {}
            }
            self.after.seq = next;
        }
        if piece.is_empty() && clock::monotonic() >= self.ping_at {
            piece.push_str(":\n\n");
        }
        if piece.is_empty() {
            return false;
        }
        self.set(piece.into_bytes());
        true
    }

    /// Sends pieces until there is nothing to say or the client is to read first.
    fn pump(&mut self, r: &Live, zone: Zone, lines: &mut Lines) -> Result<(), StreamError> {
        loop {
            // What is not idle is the first piece, or one that nginx has already.
            let has =
                if self.is_idle() { self.fill(zone.roster(), lines) } else { !r.is_blocked() };
            if !has {
                return Ok(());
            }
            send(r, Some(self))?;
            if r.is_blocked() {
                return Ok(());
            }
        }
    }

    /// Ends the stream. The client comes back, to another worker.
    fn end(&self, r: &Live) -> ngx_int_t {
        if self.is_idle() {
            // SAFETY: the request is there, and its header was sent.
            unsafe { ngx_http_send_special(r.as_ptr(), NGX_HTTP_LAST as usize) }
        } else {
            // A client that does not read what there is would keep this worker.
            NGX_ERROR as ngx_int_t
        }
    }
}

/// Passes on what a stream has, or what nginx has already; waits for the client where that is needed.
fn send(r: &Live, stream: Option<&Stream>) -> Result<(), StreamError> {
    let chain = stream.map_or(core::ptr::null_mut(), |stream| stream.chain);
    // SAFETY: the request is there, and its header was sent; the chain is the stream's, in its pool.
    if unsafe { ngx_http_output_filter(r.as_ptr(), chain) } == NGX_ERROR as ngx_int_t {
        return Err(StreamError::Filters);
    }
    let write = r.write_event();
    // SAFETY: the event of a connection that is open; nothing else refers to it.
    let (is_armed, is_delayed) = unsafe { ((*write).timer_set() != 0, (*write).delayed() != 0) };
    if !r.is_blocked() {
        if is_armed {
            // SAFETY: it is in nginx's tree of timers.
            unsafe { ngx_del_timer(write) };
        }
        return Ok(());
    }
    let location = r.location().ok_or(StreamError::NoLocation)?;
    if !is_armed && !is_delayed {
        // SAFETY: it is not in nginx's tree of timers.
        unsafe { ngx_add_timer(write, location.send_timeout) };
    }
    // SAFETY: the event of a connection that is open.
    let watched = unsafe { ngx_handle_write_event(write, location.send_lowat) };
    if watched == NGX_OK as ngx_int_t {
        Ok(())
    } else {
        Err(StreamError::EventLoop)
    }
}

/// The client reads again.
unsafe extern "C" fn on_writable(r: *mut ngx_http_request_t) {
    // SAFETY: nginx passes a request that is there until it is finalized.
    let Some(mut r) = (unsafe { Live::from_ptr(r) }) else {
        return;
    };
    // SAFETY: the event of its connection.
    if unsafe { (*r.write_event()).timedout() } != 0 {
        // SAFETY: the connection is there, and so is its log.
        let log = unsafe {
            (*r.connection()).set_timedout(1);
            Log::from_ptr((*r.connection()).log)
        };
        // As nginx's own writer says it.
        log.write(Level::Info, libc::ETIMEDOUT, format_args!("client timed out"));
        pending::finalize(r, NGX_HTTP_REQUEST_TIME_OUT as ngx_int_t);
        return;
    }
    if send(&r, None).is_err() {
        pending::finalize(r, NGX_ERROR as ngx_int_t);
        return;
    }
    // SAFETY: a stream does not keep it.
    let zone = unsafe { pending::current_zone() };
    let rc = pending::with(&mut r, |stream, r| stream.on_writable(r, zone)).flatten();
    if let Some(rc) = rc {
        pending::finalize(r, rc);
    }
}
