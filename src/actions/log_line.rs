//! `log LEVEL TEXT`: one line in nginx's error log.

use roster::{Event, Roster, Template};

use crate::nginx::log::{Level, Log};

/// A line to write.
pub struct LogLine {
    /// At which level.
    pub level: Level,
    /// What.
    pub text: Template,
}

impl LogLine {
    /// Writes it.
    pub fn run(&self, event: &Event, roster: Roster<'_>, log: Log) {
        let error = roster.error_of(event);
        log.write(self.level, 0, format_args!("{}", self.text.fill(event, error.as_deref())));
    }
}
