//! What holds workers that drain: the oldest connections of each, in a room of its own at the end of the
//! zone. Each worker writes to its own area and nobody else does; who reads needs no lock.
//!
//! The texts are a client's. They come in without control characters, and what is read is taken for any
//! bytes at all: a worker may die in the middle of a store, and leave another's words.

use std::fmt;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use crate::sync::{fence, AtomicU64};
use crate::words::{load, store, Words};

mod text;

pub use text::{clean, path};

/// How many connections of a worker are noted at most.
pub const HELD: usize = 8;

/// Words of one connection.
const ENTRY: usize = 32;
/// Words before its texts.
const FIXED: usize = 6;
/// Bytes of its texts.
const TEXTS: usize = (ENTRY - FIXED) * 8;

/// How many areas a zone has at most.
const AREAS: usize = 64;

/// The room for what holds one worker.
#[derive(Debug, Default)]
#[repr(C)]
pub struct HeldArea {
    /// Whose it is, see `WorkerRecord::registration`; 0 if it is nobody's.
    pub(crate) owner: AtomicU64,
    /// Odd while the words below are written, one more at each end of that.
    pub(crate) version: AtomicU64,
    /// Whose connections these are: not always the owner's, who may have noted none yet.
    pub(crate) registration: AtomicU64,
    /// Low half how many connections are noted, high half how many there were.
    pub(crate) number: AtomicU64,
    /// When, milliseconds of the monotonic clock.
    pub(crate) looked_at: AtomicU64,
    pub(crate) connections: [Words<ENTRY>; HELD],
}

// loom's atomics are larger.
#[cfg(not(loom))]
const _: () = assert!(std::mem::size_of::<HeldArea>() == 2088);

/// What a connection speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Protocol {
    /// It is not one of those that are known.
    #[default]
    Unknown = 0,
    /// HTTP, and which one is not known before a request.
    Http = 1,
    /// HTTP/1.1 or older.
    Http1 = 2,
    /// HTTP/2.
    Http2 = 3,
    /// HTTP/3.
    Http3 = 4,
    /// A websocket.
    Websocket = 5,
    /// Another protocol that HTTP/1.1 was given up for.
    Upgraded = 6,
    /// The module stream has it.
    Stream = 7,
    /// The module mail has it.
    Mail = 8,
}

impl Protocol {
    const ALL: [Protocol; 9] = [
        Protocol::Unknown,
        Protocol::Http,
        Protocol::Http1,
        Protocol::Http2,
        Protocol::Http3,
        Protocol::Websocket,
        Protocol::Upgraded,
        Protocol::Stream,
        Protocol::Mail,
    ];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Protocol::Unknown => "unknown",
            Protocol::Http => "http",
            Protocol::Http1 => "http/1",
            Protocol::Http2 => "http/2",
            Protocol::Http3 => "http/3",
            Protocol::Websocket => "websocket",
            Protocol::Upgraded => "upgraded",
            Protocol::Stream => "stream",
            Protocol::Mail => "mail",
        }
    }

    /// Whether there are requests.
    pub const fn is_http(self) -> bool {
        !matches!(self, Protocol::Unknown | Protocol::Stream | Protocol::Mail)
    }
}

/// A connection of a client. Texts are empty if there is nothing to say. Times are milliseconds of the
/// monotonic clock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// What it speaks.
    pub protocol: Protocol,
    /// Since when it is open.
    pub since: u64,
    /// Since when its oldest request is under way; 0 if none is.
    pub request_since: u64,
    /// Since when no byte has moved on it, as far as is known; 0 if one has, of late.
    pub idle_since: u64,
    /// How many bytes were sent to the client.
    pub sent: u64,
    /// How many requests are under way.
    pub requests: u32,
    /// The client's address and port.
    pub client: String,
    /// The name of the server, or the address that it listens on.
    pub server: String,
    /// The method of its oldest request.
    pub method: String,
    /// The path of that, without arguments.
    pub path: String,
    /// Where that is passed to.
    pub upstream: String,
}

impl Held {
    /// How many bytes of each text there is room for, in the order of `texts`; the path, which is last, gets
    /// what the others leave.
    const ROOM: [usize; 5] = [48, 40, 16, 48, TEXTS];

    fn texts(&self) -> [&str; 5] {
        [&self.client, &self.server, &self.method, &self.upstream, &self.path]
    }

    fn to_words(&self) -> [u64; ENTRY] {
        let mut texts = Vec::with_capacity(TEXTS);
        let mut lengths = [0u8; 8];
        for ((text, room), length) in self.texts().into_iter().zip(Self::ROOM).zip(&mut lengths) {
            let fitting = text::cut(text, room.min(TEXTS.saturating_sub(texts.len())));
            texts.extend_from_slice(fitting.as_bytes());
            *length = u8::try_from(fitting.len()).unwrap_or_default();
        }
        let fixed = [
            u64::from(self.protocol as u8) | u64::from(self.requests) << 32,
            self.since,
            self.request_since,
            self.idle_since,
            self.sent,
            u64::from_le_bytes(lengths),
        ];
        let word = |bytes: &[u8]| {
            let mut word = [0; 8];
            word.iter_mut().zip(bytes).for_each(|(to, byte)| *to = *byte);
            u64::from_le_bytes(word)
        };
        let mut words = fixed.into_iter().chain(texts.chunks(8).map(word));
        std::array::from_fn(|_| words.next().unwrap_or_default())
    }

    /// Of any words.
    fn from_words(words: &[u64; ENTRY]) -> Held {
        let [protocol, since, request_since, idle_since, sent, lengths, ..] = *words;
        let bytes: Vec<u8> = words.iter().skip(FIXED).flat_map(|word| word.to_le_bytes()).collect();
        let mut rest = bytes.as_slice();
        let mut texts = lengths.to_le_bytes().into_iter().map(|length| {
            let (text, after) = rest.split_at(usize::from(length).min(rest.len()));
            rest = after;
            clean(text, TEXTS)
        });
        let mut next = || texts.next().unwrap_or_default();
        let (client, server, method, upstream, path) = (next(), next(), next(), next(), next());
        let number = protocol as u8;
        Held {
            protocol: Protocol::ALL.get(usize::from(number)).copied().unwrap_or_default(),
            since,
            request_since,
            idle_since,
            sent,
            requests: (protocol >> 32) as u32,
            client,
            server,
            method,
            path,
            upstream,
        }
    }
}

/// As in a line of a log: what it is, and what it asks for.
impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.protocol.name(), self.client)?;
        if !self.method.is_empty() {
            write!(f, ", \"{} {}\"", self.method, self.path)?;
        }
        if !self.server.is_empty() {
            write!(f, ", server {}", self.server)?;
        }
        if !self.upstream.is_empty() {
            write!(f, ", upstream {}", self.upstream)?;
        }
        write!(f, ", {} bytes sent", self.sent)
    }
}

/// What holds one worker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holders {
    /// The worker, see `WorkerView::registration`.
    pub registration: u64,
    /// When its connections were looked at, milliseconds of the monotonic clock.
    pub looked_at: u64,
    /// How many clients' connections it had.
    pub total: u32,
    /// The oldest of them, oldest first, [`HELD`] at most.
    pub connections: Vec<Held>,
}

/// The areas of a zone.
#[derive(Clone, Copy, Debug)]
pub struct HeldAreas<'a>(pub &'a [HeldArea]);

impl HeldAreas<'_> {
    /// How many areas a zone of so many bytes has: an eighth of it, up to 64 of them.
    pub const fn number(bytes: usize) -> usize {
        const AREA: usize = size_of::<HeldArea>();
        let number = bytes / 8 / AREA;
        if number < AREAS {
            number
        } else {
            AREAS
        }
    }

    /// How many bytes at the end of such a zone they take.
    pub const fn bytes(bytes: usize) -> usize {
        HeldAreas::number(bytes).saturating_mul(size_of::<HeldArea>())
    }

    /// Notes what holds a worker, which is the one that runs this. `lives` tells of a registration whether
    /// the worker has not ended: areas of others are free. False if all areas are taken.
    pub fn note(&self, holders: &Holders, lives: impl Fn(u64) -> bool) -> bool {
        let registration = holders.registration;
        let own = |area: &&HeldArea| area.owner.load(Acquire) == registration;
        let Some(area) = self.0.iter().find(own).or_else(|| self.claim(registration, lives)) else {
            return false;
        };
        // Odd also if who had the area before died in the middle.
        let writing = area.version.load(Acquire) | 1;
        area.version.store(writing, Release);
        // Each word is stored with Release: who reads one sees that the version is odd, or another.
        area.looked_at.store(holders.looked_at, Release);
        area.registration.store(registration, Release);
        let connections = holders.connections.iter().take(HELD);
        let number = connections.len() as u64 | u64::from(holders.total) << 32;
        area.number.store(number, Release);
        for (to, held) in area.connections.iter().zip(connections) {
            store(&to[..], &held.to_words());
        }
        area.version.store(writing.wrapping_add(1), Release);
        true
    }

    fn claim(&self, registration: u64, lives: impl Fn(u64) -> bool) -> Option<&HeldArea> {
        self.0.iter().find(|area| {
            let owner = area.owner.load(Acquire);
            (owner == 0 || !lives(owner))
                && area.owner.compare_exchange(owner, registration, AcqRel, Relaxed).is_ok()
        })
    }

    /// What holds workers, in no order. Some of them may have ended.
    pub fn read(&self) -> Vec<Holders> {
        const ATTEMPTS: usize = 8;
        let whole = |area: &HeldArea| (0..ATTEMPTS).find_map(|_| area.read());
        self.0.iter().filter(|area| area.owner.load(Acquire) != 0).filter_map(whole).collect()
    }
}

impl HeldArea {
    /// None if it is being written to, or nothing was.
    fn read(&self) -> Option<Holders> {
        let version = self.version.load(Acquire);
        if version == 0 || version & 1 == 1 {
            return None;
        }
        let registration = self.registration.load(Acquire);
        let number = self.number.load(Acquire);
        let looked_at = self.looked_at.load(Acquire);
        let used = (number as u32 as usize).min(HELD);
        let words: Vec<_> = self.connections.iter().take(used).map(|words| load(words)).collect();
        // Whatever was read above of another version was stored after that one became odd: having seen
        // the former, this load sees the latter.
        fence(Acquire);
        if self.version.load(Relaxed) != version {
            return None;
        }
        Some(Holders {
            registration,
            looked_at,
            total: (number >> 32) as u32,
            connections: words.iter().map(Held::from_words).collect(),
        })
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
