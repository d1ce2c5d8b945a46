//! What can be wrong with a directive. Each reads after `"name" directive `, and nginx adds file
//! and line.

use roster::Kind;
use thiserror::Error;

use crate::actions::LoadError;
use crate::nginx::log::Level;

#[derive(Debug, Error)]
pub enum ConfError {
    #[error("is duplicate")]
    Duplicate,
    #[error(
        "can't be used: the module was built with headers that differ from this nginx, as those of the \
         same version without a distribution's patches do"
    )]
    Headers,
    #[error("is not valid UTF-8")]
    NotUtf8,
    #[error("has the invalid time \"{0}\", a number with a unit like 500ms, 10s or 1m is needed")]
    Time(String),
    #[error("must be greater than 0")]
    ZeroTime,
    #[error("has the invalid size \"{0}\", a number with a unit like 256k or 1m is needed")]
    Size(String),
    #[error("has an empty zone name")]
    ZoneName,
    #[error("asks for a zone of {0} bytes, which is too small, at least {1}k are needed")]
    SmallZone(usize, usize),
    #[error("could not register the zone")]
    Zone,
    #[error("has the unknown event \"{0}\", known are {known} and *", known = known_events())]
    Event(String),
    #[error("has the unknown action \"{0}\", known are log, exec, exec_nowait and call")]
    Action(String),
    #[error("has the unknown format \"{0}\", known are json and text")]
    Format(String),
    #[error("has a format after \"off\"")]
    FormatOfOff,
    #[error("does not support \"{0}\", a file, stderr or off is needed")]
    NoFile(String),
    #[error("has an empty name of a file")]
    FileName,
    #[error("could not list the file \"{0}\"")]
    File(String),
    #[error("needs a level and one text after \"log\"")]
    LogArguments,
    #[error("has the unknown log level \"{0}\", known are {known}", known = known_levels())]
    Level(String),
    #[error("has the unknown field \"${0}\", known are {known}", known = known_fields())]
    Field(String),
    #[error("can't have a field in the name of a program, \"{0}\"")]
    FieldInProgram(String),
    #[error("names the program \"{0}\", which can't be run ({code}: {text})",
        code = .1.raw_os_error().unwrap_or(0), text = os_text(.1))]
    Program(String, std::io::Error),
    #[error("names the program \"{0}\", which is not a file")]
    NotAFile(String),
    #[error("needs the executable \"{0}\", which can't be run ({code}: {text})",
        code = .1.raw_os_error().unwrap_or(0), text = os_text(.1))]
    Helper(String, std::io::Error),
    #[error("needs the executable \"{0}\" of the module's own version, this is another")]
    OtherHelper(String),
    #[error("needs the executable beside the module, and it is unknown where the module is")]
    UnknownHelper,
    #[error("needs a program after \"exec\" or \"exec_nowait\"")]
    ExecArguments,
    #[error("needs a library, a symbol and at most one text after \"call\"")]
    CallArguments,
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("has a text with a zero byte")]
    ZeroByte,
}

fn known_events() -> String {
    listed(Kind::ALL.iter().map(|kind| kind.name().to_string()))
}

fn known_levels() -> String {
    listed(Level::NAMES.iter().map(|(name, _)| name.to_string()))
}

fn known_fields() -> String {
    listed(roster::Field::ALL.iter().map(|field| format!("${}", field.name())))
}

// By a vector: LLVM unrolls what is done to an array of so many strings, and takes minutes for it.
fn listed(names: impl Iterator<Item = String>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

/// The error as nginx words it, without the number that Rust puts behind it.
fn os_text(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_string()
}
