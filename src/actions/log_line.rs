//! `log LEVEL TEXT`: one line in nginx's error log.

use roster::{Event, Template};

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
    pub fn run(&self, event: &Event, log: Log) {
        log.write(self.level, 0, format_args!("{}", self.text.fill(event)));
    }
}
