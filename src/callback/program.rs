//! placeholder
use crate::log::Log;
use std::ffi::{CStr, CString};
use std::time::Duration;
pub struct Program<'a> {
    pub path: &'a CStr,
    pub argv: &'a [CString],
    pub envp: &'a [CString],
    pub timeout: Duration,
    pub label: &'a str,
    pub awaited: bool,
}
pub struct Running {}
impl Program<'_> {
    pub fn start(&self, _log: Log) -> Result<Running, i32> {
        Err(38)
    }
}
impl Running {
    pub fn wait(self, beat: &mut dyn FnMut()) {
        beat()
    }
    pub fn poll(&mut self) -> bool {
        true
    }
}
