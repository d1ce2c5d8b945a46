//! What a request asks for. All of it is text from outside.

use std::borrow::Cow;

use crate::cursor::Cursor;
use crate::health::Probe;
use crate::wait::{Until, Wait};

/// Why a request is refused. The text is for the client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// No cursor in the header `Last-Event-ID` or in the argument `after`.
    #[error("{name} is \"{text}\", not the id or the number of an event")]
    Cursor {
        /// The header or the argument.
        name: &'static str,
        /// What it says.
        text: String,
    },
    /// An argument where there are none.
    #[error("\"{0}\" is not an argument here, there are none")]
    NoArguments(String),
    /// An argument that is none of the known ones.
    #[error("\"{name}\" is not an argument here, known: {known}")]
    UnknownArgument {
        /// Its name.
        name: String,
        /// Those that there are.
        known: &'static str,
    },
    /// A wait without the argument `after`.
    #[error("after is missing: the generation to wait beyond")]
    AfterIsMissing,
    /// No generation in the argument `after` of a wait.
    #[error("after is \"{0}\", not a generation or what \"node.reload_token\" of the status says")]
    Generation(String),
    /// Another word in the argument `until`.
    #[error("until is \"{0}\", not ready or done")]
    Until(String),
    /// No time in the argument `timeout`, or a longer one than there may be.
    #[error("timeout is \"{0}\", not a time like 500ms, 30s or 1m, of an hour at most")]
    Timeout(String),
}

/// What there is below the location.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// The location itself: the status.
    Status,
    /// `metrics`.
    Metrics,
    /// `events`.
    Events,
    /// `wait`.
    Wait,
    /// `live` or `ready`.
    Probe(Probe),
}

impl Page {
    /// Finds it by the path, without arguments, and the name of the location. A location that is not
    /// a prefix of the path, one of a regular expression, is taken to be all but a last part that
    /// names a page.
    pub fn of(path: &[u8], location: &[u8]) -> Option<Page> {
        let Some(rest) = path.strip_prefix(location) else {
            let last = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
            return Some(Page::named(last).unwrap_or(Page::Status));
        };
        let rest = match rest.strip_prefix(b"/") {
            Some(rest) => rest,
            // `location /workers` also matches /workersandmore.
            None if rest.is_empty() || location.ends_with(b"/") => rest,
            None => return None,
        };
        Page::named(rest)
    }

    fn named(name: &[u8]) -> Option<Page> {
        match name {
            b"" => Some(Page::Status),
            b"metrics" => Some(Page::Metrics),
            b"events" => Some(Page::Events),
            b"wait" => Some(Page::Wait),
            b"live" => Some(Page::Probe(Probe::Live)),
            b"ready" => Some(Page::Probe(Probe::Ready)),
            _ => None,
        }
    }
}

/// Whether a header `Accept` asks for `wanted` by name, and for nothing of `others` more than that.
pub fn accepts(accept: &[u8], wanted: &str, others: &[&str]) -> bool {
    let accept = String::from_utf8_lossy(accept);
    let quality = quality(&accept, wanted);
    quality > 0.0 && others.iter().all(|other| self::quality(&accept, other) <= quality)
}

/// How much a header `Accept` asks for a type that it names, 0 to 1; 0 if it does not.
fn quality(accept: &str, wanted: &str) -> f32 {
    let of_part = |part: &str| {
        let mut parameters = part.split(';').map(str::trim);
        if !parameters.next()?.eq_ignore_ascii_case(wanted) {
            return None;
        }
        let q = parameters.find_map(|p| p.strip_prefix("q=").or_else(|| p.strip_prefix("Q=")));
        Some(q.map_or(1.0, |q| q.parse().unwrap_or(0.0)))
    };
    accept.split(',').filter_map(of_part).fold(0.0, f32::max).min(1.0)
}

/// After which event to go on: that of the header `Last-Event-ID`, or else of the argument `after`, or
/// else from the beginning.
pub fn after(arguments: &[u8], last_event_id: Option<&[u8]>) -> Result<Cursor, RequestError> {
    let cursor = |name: &'static str, text: &str| {
        Cursor::parse(text.trim())
            .ok_or_else(|| RequestError::Cursor { name, text: text.to_string() })
    };
    if let Some(id) = last_event_id.filter(|id| !id.is_empty()) {
        return cursor("Last-Event-ID", &String::from_utf8_lossy(id));
    }
    let mut after = Cursor::START;
    for (name, value) in pairs(arguments) {
        match &*name {
            "after" => after = cursor("after", &value)?,
            _ => return Err(unknown(&name, "after")),
        }
    }
    Ok(after)
}

/// Refuses any argument.
pub fn none(arguments: &[u8]) -> Result<(), RequestError> {
    match pairs(arguments).next() {
        Some((name, _)) => Err(RequestError::NoArguments(name.into_owned())),
        None => Ok(()),
    }
}

impl Wait {
    /// The arguments `after`, `until` and `timeout`.
    ///
    /// ```
    /// use status::wait::{Until, Wait};
    ///
    /// // Beyond generation 7, if two reloads had failed before.
    /// let wait = Wait::parse(b"after=7.2&until=done&timeout=90s")?;
    /// assert_eq!((wait.after, wait.failed, wait.until), (7, Some(2), Until::Done));
    /// assert_eq!(wait.timeout, 90_000);
    /// assert_eq!(Wait::parse(wait.arguments().as_bytes()), Ok(wait));
    ///
    /// assert!(Wait::parse(b"until=done").unwrap_err().to_string().starts_with("after is missing"));
    /// # Ok::<(), status::request::RequestError>(())
    /// ```
    pub fn parse(arguments: &[u8]) -> Result<Wait, RequestError> {
        let mut after = None;
        let mut until = Until::Ready;
        let mut timeout = Wait::TIMEOUT;
        for (name, value) in pairs(arguments) {
            match &*name {
                "after" => after = Some(parse_after(&value)?),
                "until" => {
                    until = match &*value {
                        "ready" => Until::Ready,
                        "done" => Until::Done,
                        _ => return Err(RequestError::Until(value.into_owned())),
                    }
                }
                "timeout" => timeout = parse_time(&value)?,
                _ => return Err(unknown(&name, "after, until and timeout")),
            }
        }
        let (after, failed) = after.ok_or(RequestError::AfterIsMissing)?;
        Ok(Wait { after, failed, until, timeout })
    }
}

fn pairs(arguments: &[u8]) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    form_urlencoded::parse(arguments)
}

fn unknown(name: &str, known: &'static str) -> RequestError {
    RequestError::UnknownArgument { name: name.to_string(), known }
}

/// `3`, a generation, or `3.1`, with the number of reloads that had failed.
fn parse_after(text: &str) -> Result<(u64, Option<u64>), RequestError> {
    let (generation, failed) = match text.split_once('.') {
        Some((generation, failed)) => (generation, Some(failed)),
        None => (text, None),
    };
    let parsed =
        || Some((digits(generation)?, failed.map(digits).map_or(Some(None), |n| n.map(Some))?));
    parsed().ok_or_else(|| RequestError::Generation(text.to_string()))
}

fn digits(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// A time as in nginx's directives, `1m30s`, `500ms`; a number alone is seconds. In milliseconds.
fn parse_time(text: &str) -> Result<u64, RequestError> {
    let parsed = || {
        let (mut rest, mut total) = (text, 0u64);
        while !rest.is_empty() {
            let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            let (number, after) = rest.split_at_checked(end)?;
            let number: u64 = number.parse().ok()?;
            // The longer name first: "ms" begins as "m" does.
            const UNITS: [(&str, u64); 4] =
                [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)];
            let mut units = UNITS.into_iter();
            let named = units.find_map(|(name, unit)| Some((unit, after.strip_prefix(name)?)));
            let (unit, left) = named.or_else(|| after.is_empty().then_some((1000, "")))?;
            rest = left;
            total = total.checked_add(number.checked_mul(unit)?)?;
        }
        (!text.is_empty() && total <= Wait::LONGEST).then_some(total)
    };
    parsed().ok_or_else(|| RequestError::Timeout(text.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_below_their_location() {
        let page = |path: &str, location: &str| Page::of(path.as_bytes(), location.as_bytes());
        for (path, location, expected) in [
            ("/workers", "/workers", Some(Page::Status)),
            ("/workers/", "/workers", Some(Page::Status)),
            ("/workers/metrics", "/workers", Some(Page::Metrics)),
            ("/workers/events", "/workers/", Some(Page::Events)),
            ("/wait", "/", Some(Page::Wait)),
            ("/", "/", Some(Page::Status)),
            ("/workersandmore", "/workers", None),
            ("/workers/metrics/", "/workers", None),
            ("/workers//metrics", "/workers", None),
            ("/workers/else", "/workers", None),
            ("/a/workers/metrics", "^/a/", Some(Page::Metrics)),
            ("/a/workers", "^/a/", Some(Page::Status)),
        ] {
            assert_eq!(page(path, location), expected, "{path} in {location}");
        }
    }

    #[test]
    fn a_browser_asks_for_a_page_and_a_script_does_not() {
        let page = |accept: &str| accepts(accept.as_bytes(), "text/html", &["application/json"]);
        assert!(page("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"));
        assert!(page("Text/HTML;q=0.5"));
        assert!(!page("*/*"));
        assert!(!page(""));
        assert!(!page("application/json, text/html;q=0.9"));
        assert!(!page("text/html;q=0"));
        assert!(!page("text/html;q=x"));
    }

    #[test]
    fn a_stream_goes_on_where_it_was() {
        let number = |seq| Ok(Cursor { history: None, seq });
        assert_eq!(after(b"", None), number(0));
        assert_eq!(after(b"after=7", None), number(7));
        assert_eq!(after(b"after=7", Some(b"9")), number(9));
        assert_eq!(after(b"after=7", Some(b"")), number(7));
        let of_history = Ok(Cursor { history: Some(0xab), seq: 7 });
        assert_eq!(after(b"after=00000000000000ab:7", None), of_history);
        assert_eq!(after(b"after=00000000000000ab%3a7", None), of_history);
        assert_eq!(after(b"after=1", Some(b"00000000000000ab:7")), of_history);
        assert!(after(b"after=x", None).is_err());
        assert!(after(b"", Some(b"-1")).is_err());
        assert!(after(b"afterr=7", None).is_err());
    }

    #[test]
    fn where_there_are_no_arguments_any_is_refused() {
        assert_eq!(none(b""), Ok(()));
        assert_eq!(none(b"&"), Ok(()));
        for bad in ["format=json", "format", "=", "after=1"] {
            assert!(none(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_to_wait_for() {
        let wait = |text: &str| Wait::parse(text.as_bytes());
        let ready = Wait { after: 3, failed: None, until: Until::Ready, timeout: 30_000 };
        assert_eq!(wait("after=3"), Ok(ready));
        let done = Wait { failed: Some(1), until: Until::Done, timeout: 1_500, ..ready };
        assert_eq!(wait("after=3.1&until=done&timeout=1500ms"), Ok(done));
        assert_eq!(wait("after=%33&timeout=1m30s"), Ok(Wait { timeout: 90_000, ..ready }));
        assert_eq!(wait("after=3&timeout=5"), Ok(Wait { timeout: 5_000, ..ready }));
        for bad in [
            "",
            "after=",
            "after=-1",
            "after=+1",
            "after=3.",
            "after=.1",
            "after=3.1.2",
            "after=x",
            "after=99999999999999999999",
            "after=3&until=gone",
            "after=3&timeout=",
            "after=3&timeout=s",
            "after=3&timeout=1d",
            "after=3&timeout=2h",
            "after=3&timeout=99999999999999999999s",
            "after=3&else=1",
        ] {
            assert!(wait(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_refusal_says_what_is_wrong() {
        let text = |arguments: &[u8]| Wait::parse(arguments).map_err(|error| error.to_string());
        let generation =
            r#"after is "x", not a generation or what "node.reload_token" of the status says"#;
        for (arguments, expected) in [
            (&b""[..], "after is missing: the generation to wait beyond"),
            (b"after=x", generation),
            (b"after=1&until=x", r#"until is "x", not ready or done"#),
            (
                b"after=1&timeout=x",
                r#"timeout is "x", not a time like 500ms, 30s or 1m, of an hour at most"#,
            ),
            (b"else=1", r#""else" is not an argument here, known: after, until and timeout"#),
        ] {
            assert_eq!(text(arguments), Err(expected.to_string()));
        }
        assert_eq!(
            none(b"x=1").map_err(|error| error.to_string()),
            Err(r#""x" is not an argument here, there are none"#.to_string())
        );
        assert_eq!(
            after(b"", Some(b"x")).map_err(|error| error.to_string()),
            Err(r#"Last-Event-ID is "x", not the id or the number of an event"#.to_string())
        );
    }

    #[test]
    fn what_is_parsed_can_be_asked_again() {
        let wait = Wait { after: 3, failed: Some(2), until: Until::Done, timeout: 1_234 };
        assert_eq!(Wait::parse(wait.arguments().as_bytes()), Ok(wait));
    }
}
