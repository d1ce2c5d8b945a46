//! The directive `on EVENT ACTION …`.

use core::ffi::CStr;
use std::ffi::CString;
use std::fs;
use std::io;

use ngx::ffi::{ngx_conf_full_name, ngx_str_t, NGX_OK};
use roster::{Kind, Template};

use super::callbacks::On;
use super::error::ConfError;
use crate::actions::helper::{self, Unfit};
use crate::actions::{Call, Callback, Exec, LoadError, LogLine};
use crate::nginx::cycle::Cycle;
use crate::nginx::log::Level;
use crate::nginx::process;

/// Reads the words after `on`; whoever reads the file adds where they are.
pub fn parse(words: &[&str], cycle: Cycle<'_>) -> Result<On, ConfError> {
    let (event, rest) = words.split_first().unwrap_or((&"", &[]));
    let (action, rest) = rest.split_first().unwrap_or((&"", &[]));
    let kind = match *event {
        "*" => None,
        name => Some(Kind::from_name(name).ok_or_else(|| ConfError::Event(name.to_string()))?),
    };
    let callback = match *action {
        "log" => Callback::Log(log(rest)?),
        "exec" => Callback::Exec(exec(rest, cycle, true)?),
        "exec_nowait" => Callback::Exec(exec(rest, cycle, false)?),
        "call" => Callback::Call(call(rest, cycle)?),
        other => return Err(ConfError::Action(other.to_string())),
    };
    let what = match callback {
        Callback::Exec(_) => {
            rest.first().map(|program| program.rsplit('/').next().unwrap_or(program))
        }
        Callback::Call(_) => rest.get(1).copied(),
        _ => None,
    };
    let label = what.map_or_else(|| action.to_string(), |what| format!("{action} {what}"));
    Ok(On { kind, callback, place: String::new(), label })
}

fn log(words: &[&str]) -> Result<LogLine, ConfError> {
    let [level, text] = words else {
        return Err(ConfError::LogArguments);
    };
    let level = Level::from_name(level).ok_or_else(|| ConfError::Level(level.to_string()))?;
    Ok(LogLine { level, text: template(text)? })
}

fn exec(words: &[&str], cycle: Cycle<'_>, awaited: bool) -> Result<Exec, ConfError> {
    let (program, arguments) = words.split_first().ok_or(ConfError::ExecArguments)?;
    if Template::parse(program).map_or(true, |name| name.has_fields()) {
        return Err(ConfError::FieldInProgram(program.to_string()));
    }
    let path = full_name(program, cycle)?;
    // `nginx -s stop` reads the configuration too: it must not be refused for a lost program.
    if !process::is_signaller() {
        check_program(&path)?;
    }
    let arguments = arguments.iter().map(|text| template(text)).collect::<Result<_, _>>()?;
    Ok(Exec { path, arguments, awaited })
}

fn call(words: &[&str], cycle: Cycle<'_>) -> Result<Call, ConfError> {
    let (library, symbol, text) = match words {
        [library, symbol] => (library, symbol, None),
        [library, symbol, text] => (library, symbol, Some(text)),
        _ => return Err(ConfError::CallArguments),
    };
    let c_string = |text: &str| CString::new(text).map_err(|_| ConfError::ZeroByte);
    let text = text.map(|text| c_string(text)).transpose()?;
    if process::is_signaller() {
        return Ok(Call::none());
    }
    let path = full_name(library, cycle)?;
    Ok(Call::load(&path, &c_string(symbol)?, text)?)
}

fn template(text: &str) -> Result<Template, ConfError> {
    if text.contains('\0') {
        return Err(ConfError::ZeroByte);
    }
    Template::parse(text).map_err(|unknown| ConfError::Field(unknown.0))
}

/// A path relative to nginx's prefix, made absolute, as for every path in its configuration.
fn full_name(name: &str, cycle: Cycle<'_>) -> Result<CString, ConfError> {
    let name = CString::new(name).map_err(|_| ConfError::ZeroByte)?;
    let mut full = ngx_str_t { len: name.count_bytes(), data: name.as_ptr().cast_mut().cast() };
    // SAFETY: the cycle is the one being configured; the function points `full` at a string in its
    // pool that ends with a zero byte, or leaves it at `name`, which does too.
    unsafe {
        if ngx_conf_full_name(cycle.as_ptr(), &mut full, 0) != NGX_OK as isize {
            return Err(LoadError::Library("no memory".to_string()).into());
        }
        Ok(CStr::from_ptr(full.data.cast()).to_owned())
    }
}

/// The helper executable that starts programs.
pub fn helper() -> Result<CString, ConfError> {
    let path = helper::find().ok_or(ConfError::UnknownHelper)?;
    let name = || path.to_string_lossy().into_owned();
    helper::check(&path).map_err(|unfit| match unfit {
        Unfit::NotRun(error) => ConfError::Helper(name(), error),
        Unfit::OtherVersion => ConfError::OtherHelper(name()),
    })?;
    Ok(path)
}

fn check_program(path: &CStr) -> Result<(), ConfError> {
    let name = path.to_string_lossy().into_owned();
    let status = fs::metadata(&name).map_err(|error| ConfError::Program(name.clone(), error))?;
    if !status.is_file() {
        return Err(ConfError::NotAFile(name));
    }
    // SAFETY: the path is a C string.
    if unsafe { libc::access(path.as_ptr(), libc::X_OK) } != 0 {
        return Err(ConfError::Program(name, io::Error::last_os_error()));
    }
    Ok(())
}
