//! Text with `$fields` of an event in it, as the directives `log` and `exec` take it.

use std::fmt;

use crate::event::{Event, History, Reason};

/// A field of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// The event's name.
    Event,
    /// The generation, or generation and process.
    Id,
    /// Running workers of the nearest older generation that has not finished.
    NPrev,
    /// Running workers of the event's generation.
    NMine,
    /// Running workers of the nearest newer generation that has not finished.
    NNext,
    /// Running workers of still older generations.
    NOlder,
    /// Running workers of the event's generation once the event is over.
    NLeft,
    /// Whether the node stops, 1 or 0.
    Stopping,
    /// The generation.
    Generation,
    /// The process.
    Pid,
    /// The worker's index.
    Worker,
    /// The process whose place a worker takes.
    RespawnOf,
    /// The history that the numbers are of.
    History,
    /// The event's number on this node.
    Seq,
    /// The wall-clock time, seconds since 1970 with milliseconds.
    Time,
    /// Why a worker was lost.
    Reason,
    /// Whether a lost worker dumped core, 1 or 0.
    Core,
    /// Connections of a worker that drains.
    Connections,
    /// How long a load took or a worker drains, seconds with milliseconds.
    Duration,
    /// Why a load failed: what nginx logged.
    Error,
}

impl Field {
    /// All fields, in the order of documentation and messages.
    pub const ALL: [Field; 20] = [
        Field::Event,
        Field::Id,
        Field::NPrev,
        Field::NMine,
        Field::NNext,
        Field::NOlder,
        Field::NLeft,
        Field::Stopping,
        Field::Generation,
        Field::Pid,
        Field::Worker,
        Field::RespawnOf,
        Field::History,
        Field::Seq,
        Field::Time,
        Field::Reason,
        Field::Core,
        Field::Connections,
        Field::Duration,
        Field::Error,
    ];

    /// The name that follows the `$`.
    pub const fn name(self) -> &'static str {
        match self {
            Field::Event => "event",
            Field::Id => "id",
            Field::NPrev => "n_prev",
            Field::NMine => "n_mine",
            Field::NNext => "n_next",
            Field::NOlder => "n_older",
            Field::NLeft => "n_left",
            Field::Stopping => "stopping",
            Field::Generation => "generation",
            Field::Pid => "pid",
            Field::Worker => "worker",
            Field::RespawnOf => "respawn_of",
            Field::History => "history",
            Field::Seq => "seq",
            Field::Time => "time",
            Field::Reason => "reason",
            Field::Core => "core",
            Field::Connections => "connections",
            Field::Duration => "duration",
            Field::Error => "error",
        }
    }

    /// Writes the value and returns true, or returns false if the event has none. `error` is what
    /// [`Roster::error_of`] says of the event.
    ///
    /// [`Roster::error_of`]: crate::Roster::error_of
    pub fn write(
        self,
        event: &Event,
        error: Option<&str>,
        to: &mut dyn fmt::Write,
    ) -> Result<bool, fmt::Error> {
        match self {
            Field::Event => to.write_str(event.kind.name())?,
            Field::Id => write!(to, "{}", event.id())?,
            Field::NPrev => return number(event.n_prev, to),
            Field::NMine => write!(to, "{}", event.n_mine)?,
            Field::NNext => return number(event.n_next, to),
            Field::NOlder => write!(to, "{}", event.n_older)?,
            Field::NLeft => write!(to, "{}", event.n_left)?,
            Field::Stopping => to.write_char(if event.stopping { '1' } else { '0' })?,
            Field::Generation => write!(to, "{}", event.generation)?,
            Field::Pid => write!(to, "{}", event.pid)?,
            Field::Worker => return number(event.worker, to),
            Field::RespawnOf => return number(event.respawn_of, to),
            Field::History => write!(to, "{}", History(event.history))?,
            Field::Seq => write!(to, "{}", event.seq)?,
            Field::Time => {
                write!(to, "{}.{:03}", event.time.div_euclid(1000), event.time.rem_euclid(1000))?
            }
            Field::Reason => match event.reason {
                Some(reason) => write!(to, "{reason}")?,
                None => return Ok(false),
            },
            Field::Error => return number(error, to),
            Field::Connections => return number(event.connections, to),
            Field::Duration => match event.duration {
                Some(ms) => write!(to, "{}.{:03}", ms / 1000, ms % 1000)?,
                None => return Ok(false),
            },
            Field::Core => match event.reason {
                Some(Reason::Signal { core: true, .. }) => to.write_char('1')?,
                Some(_) => to.write_char('0')?,
                None => return Ok(false),
            },
        }
        Ok(true)
    }
}

fn number(value: Option<impl fmt::Display>, to: &mut dyn fmt::Write) -> Result<bool, fmt::Error> {
    match value {
        Some(value) => write!(to, "{value}").map(|()| true),
        None => Ok(false),
    }
}

/// A `$name` that is no field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownField(pub String);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Field(Field),
}

/// Text with fields, ready to be filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

impl Template {
    /// Reads `$name` and `${name}`. A `$` before anything but a letter, `_` or `{` is itself.
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
    /// # let load = Transition::MasterStart { pid: 100, workers: 2, began: 1, reload: false };
    /// # let event = roster.record(load, now, &mut |_| ()).expect("there is room").event;
    /// let template = Template::parse("$event of ${id}: $n_mine running, before: $n_prev").unwrap();
    /// let line = template.fill(&event, None).to_string();
    /// assert_eq!(line, "master_start of 1: 0 running, before: -");
    ///
    /// assert_eq!(Template::parse("$evnt").unwrap_err().0, "evnt");
    /// ```
    pub fn parse(text: &str) -> Result<Template, UnknownField> {
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            plain.push_str(before);
            let (name, left) = match after.strip_prefix('{') {
                Some(braced) => {
                    braced.split_once('}').ok_or_else(|| UnknownField(after.to_string()))?
                }
                None => {
                    let end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
                    end.and_then(|end| after.split_at_checked(end)).unwrap_or((after, ""))
                }
            };
            let is_name = after.starts_with(|c: char| c.is_ascii_alphabetic() || "_{".contains(c));
            if !is_name {
                plain.push('$');
                rest = after;
                continue;
            }
            let field = Field::ALL.into_iter().find(|field| field.name() == name);
            let field = field.ok_or_else(|| UnknownField(name.to_string()))?;
            if !plain.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut plain)));
            }
            pieces.push(Piece::Field(field));
            rest = left;
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain));
        }
        Ok(Template(pieces))
    }

    /// Whether there is a field in it.
    pub fn has_fields(&self) -> bool {
        self.0.iter().any(|piece| matches!(piece, Piece::Field(_)))
    }

    /// The text for one event; what the event has not is a `-`. `error` is as in [`Field::write`].
    pub fn fill<'a>(&'a self, event: &'a Event, error: Option<&'a str>) -> impl fmt::Display + 'a {
        Filled(self, event, error)
    }
}

struct Filled<'a>(&'a Template, &'a Event, Option<&'a str>);

impl fmt::Display for Filled<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for piece in &self.0 .0 {
            match piece {
                Piece::Text(text) => f.write_str(text)?,
                Piece::Field(field) => {
                    if !field.write(self.1, self.2, f)? {
                        f.write_str("-")?;
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Kind;

    const EVENT: Event = Event {
        seq: 12,
        time: 1_700_000_000_007,
        kind: Kind::WorkerLost,
        generation: 3,
        pid: 99,
        worker: Some(1),
        n_prev: None,
        n_mine: 4,
        n_next: Some(0),
        n_older: 2,
        n_left: 3,
        stopping: true,
        respawn_of: Some(98),
        history: 0x1_8bcf_e568_0063,
        reason: Some(Reason::Signal { number: 9, core: false }),
        connections: None,
        duration: None,
    };

    fn filled(text: &str) -> String {
        Template::parse(text).unwrap().fill(&EVENT, None).to_string()
    }

    #[test]
    fn every_field_is_filled_in() {
        let text = "$event $id $n_prev $n_mine $n_next $n_older $n_left $stopping $generation \
                    $pid $worker $respawn_of $history $seq $time $reason $core";
        assert_eq!(
            filled(text),
            "worker_lost 3-99 - 4 0 2 3 1 3 99 1 98 00018bcfe5680063 12 1700000000.007 signal 9 0"
        );
    }

    #[test]
    fn braces_and_lone_dollars() {
        assert_eq!(filled("a${id}b$$ 5$ $5 ${pid}"), "a3-99b$$ 5$ $5 99");
        assert_eq!(filled(""), "");
        assert_eq!(filled("é$id"), "é3-99");
    }

    #[test]
    fn unknown_fields_are_named() {
        let unknown = |text| Template::parse(text).unwrap_err().0;
        assert_eq!(unknown("x $nope y"), "nope");
        assert_eq!(unknown("$ids"), "ids");
        assert_eq!(unknown("${}"), "");
        assert_eq!(unknown("${id"), "{id");
    }

    #[test]
    fn absent_fields_are_dashes() {
        let event = Event { kind: Kind::MasterStart, worker: None, reason: None, ..EVENT };
        let event = Event { respawn_of: None, ..event };
        let template = Template::parse("$worker $reason $core $respawn_of").unwrap();
        assert_eq!(template.fill(&event, None).to_string(), "- - - -");
    }
}
