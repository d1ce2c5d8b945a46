//! What the helper is to do, as its arguments: readable in `ps`, limited by what the kernel allows the
//! program itself, and in no memory of nginx's.
//!
//! `TITLE protocol=2 status=FD [KEY=VALUE...] -- PROGRAM [ARGUMENT...]`. The program's environment is
//! the helper's.

use std::ffi::{c_int, CStr, CString};
use std::fmt::Write;
use std::str::FromStr;
use std::time::Duration;

use crate::status::PROTOCOL;

/// A program to run and all that there is to know for that.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Job {
    /// Where the helper reports; see [`crate::status`].
    pub status: c_int,
    /// Closes when the process that awaits the program has ended; none if no process does.
    pub control: Option<c_int>,
    /// The file of the queue; see [`crate::queue`].
    pub queue: Option<c_int>,
    /// Closes when the last of nginx's processes has ended.
    pub node: Option<c_int>,
    /// Where it waits to begin, if no process awaits it.
    pub ticket: Option<Ticket>,
    /// How long the program may run, milliseconds.
    pub timeout: u64,
    /// The process of nginx's that starts it, as the log names it.
    pub pid: i32,
    /// Whether errors go to the console too, as nginx's own do at its start.
    pub console: bool,
    /// nginx's error logs.
    pub logs: Vec<Log>,
    /// The user that it runs as, if not that of the process that starts it.
    pub user: Option<User>,
    /// What begins each line in the log.
    pub label: String,
    /// The program, an absolute path, and its arguments.
    pub argv: Vec<CString>,
}

/// A place in the queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ticket {
    /// Its number.
    pub number: u32,
    /// The place that it leads to.
    pub place: u32,
    /// The number of the one that begins before it, and its place.
    pub after: u32,
    /// See `after`.
    pub after_place: u32,
}

/// One of nginx's error logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// A file, or the socket of a syslog server.
    pub fd: c_int,
    /// The least serious level that it takes, nginx's number.
    pub level: u8,
    /// For syslog.
    pub syslog: Option<Syslog>,
}

/// How nginx writes to a syslog server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Syslog {
    /// The facility, syslog's number.
    pub facility: u32,
    /// What follows the time: host and tag.
    pub header: String,
}

/// A user, as nginx's `user` directive names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its name, which its other groups go by.
    pub name: String,
}

impl Job {
    /// The helper's arguments. `title` is what `ps` shows first.
    pub fn arguments(&self, title: &str) -> Vec<CString> {
        let mut words = vec![title.to_string()];
        let mut word = |key: &str, value: String| words.push(format!("{key}={value}"));
        word("protocol", PROTOCOL.to_string());
        word("status", self.status.to_string());
        for (key, fd) in [("control", self.control), ("queue", self.queue), ("node", self.node)] {
            if let Some(fd) = fd {
                word(key, fd.to_string());
            }
        }
        if let Some(Ticket { number, place, after, after_place }) = self.ticket {
            word("ticket", format!("{number}:{place}:{after}:{after_place}"));
        }
        word("timeout", self.timeout.to_string());
        word("pid", self.pid.to_string());
        if self.console {
            word("console", String::new());
        }
        for log in &self.logs {
            let mut value = format!("{}:{}", log.fd, log.level);
            if let Some(syslog) = &log.syslog {
                let _ = write!(value, ":{}:{}", syslog.facility, syslog.header);
            }
            word("log", value);
        }
        if let Some(user) = &self.user {
            word("user", format!("{}:{}:{}", user.uid, user.gid, user.name));
        }
        word("label", self.label.clone());
        words.push("--".to_string());
        // None of them has a zero byte: they come from configurations and numbers.
        let words = words.into_iter().map(|word| CString::new(word).unwrap_or_default());
        words.chain(self.argv.iter().cloned()).collect()
    }

    /// Reads them; none if they are not of this protocol.
    pub fn parse(arguments: &[&CStr]) -> Option<Job> {
        let mut job = Job::default();
        let mut words = arguments.iter().skip(1);
        if words.next()?.to_str().ok()? != format!("protocol={PROTOCOL}") {
            return None;
        }
        for word in words.by_ref() {
            match word.to_str().ok()? {
                "--" => break,
                word => {
                    let (key, value) = word.split_once('=')?;
                    job.take(key, value)?;
                }
            }
        }
        job.argv = words.map(|&word| word.to_owned()).collect();
        (!job.argv.is_empty()).then_some(job)
    }

    fn take(&mut self, key: &str, value: &str) -> Option<()> {
        match key {
            "status" => self.status = number(value)?,
            "control" => self.control = Some(number(value)?),
            "queue" => self.queue = Some(number(value)?),
            "node" => self.node = Some(number(value)?),
            "timeout" => self.timeout = number(value)?,
            "pid" => self.pid = number(value)?,
            "console" => self.console = true,
            "label" => self.label = value.to_string(),
            "ticket" => {
                let mut parts = value.split(':');
                self.ticket = Some(Ticket {
                    number: number(parts.next()?)?,
                    place: number(parts.next()?)?,
                    after: number(parts.next()?)?,
                    after_place: number(parts.next()?)?,
                });
            }
            "log" => {
                let mut parts = value.splitn(4, ':');
                let (fd, level) = (number(parts.next()?)?, number(parts.next()?)?);
                let syslog = match parts.next() {
                    Some(facility) => Some(Syslog {
                        facility: number(facility)?,
                        header: parts.next()?.to_string(),
                    }),
                    None => None,
                };
                self.logs.push(Log { fd, level, syslog });
            }
            "user" => {
                let mut parts = value.splitn(3, ':');
                self.user = Some(User {
                    uid: number(parts.next()?)?,
                    gid: number(parts.next()?)?,
                    name: parts.next()?.to_string(),
                });
            }
            _ => return None,
        }
        Some(())
    }

    /// All descriptors that it names.
    pub fn descriptors(&self) -> Vec<c_int> {
        let single = [Some(self.status), self.control, self.queue, self.node];
        let console = self.console.then_some(2);
        let logs = self.logs.iter().map(|log| log.fd);
        single.into_iter().flatten().chain(console).chain(logs).collect()
    }

    /// How long the program may run.
    pub fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout)
    }

    /// The program's name without its folder.
    pub fn name(&self) -> &str {
        let path = self.argv.first().and_then(|path| path.to_str().ok()).unwrap_or("program");
        path.rsplit('/').next().unwrap_or(path)
    }
}

fn number<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job() -> Job {
        Job {
            status: 9,
            control: Some(10),
            queue: Some(4),
            node: Some(5),
            ticket: Some(Ticket { number: u32::MAX, place: 18, after: 7, after_place: 8 }),
            timeout: 10_000,
            pid: 1234,
            console: true,
            logs: vec![
                Log { fd: 2, level: 8, syslog: None },
                Log {
                    fd: 7,
                    level: 4,
                    syslog: Some(Syslog { facility: 23, header: " host: a nginx: ".into() }),
                },
            ],
            user: Some(User { uid: 65534, gid: 65533, name: "no:body".into() }),
            label: "worker_manager: worker_start 3-1234".into(),
            argv: vec![c"/bin/echo".into(), c"--".into(), c"a=b".into(), c"".into()],
        }
    }

    fn reread(job: &Job) -> Option<Job> {
        let words = job.arguments("nginx: worker_manager exec echo");
        Job::parse(&words.iter().map(CString::as_c_str).collect::<Vec<_>>())
    }

    #[test]
    fn arguments_are_read_as_they_are_written() {
        assert_eq!(reread(&job()), Some(job()));
        let least = Job { argv: vec![c"/bin/true".into()], ..Job::default() };
        assert_eq!(reread(&least), Some(least));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for words in [
            vec![c"title"],
            vec![c"title", c"protocol=2", c"status=3"],
            vec![c"title", c"protocol=99", c"status=3", c"--", c"/bin/true"],
            vec![c"title", c"protocol=2", c"status=x", c"--", c"/bin/true"],
            vec![c"title", c"protocol=2", c"status=3", c"colour=red", c"--", c"/bin/true"],
            vec![c"title", c"protocol=2", c"status=3", c"log=3", c"--", c"/bin/true"],
        ] {
            assert_eq!(Job::parse(&words), None, "{words:?}");
        }
    }

    #[test]
    fn a_program_is_named_without_its_folder() {
        assert_eq!(job().name(), "echo");
    }
}
