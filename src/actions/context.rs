//! What an action needs of the configuration that has it.

use std::cell::RefCell;
use std::ffi::CString;
use std::time::Duration;

use ngx::ffi::ngx_cycle_t;

use super::lua::Vms;

/// The surroundings of an action. All of it is borrowed, so that making one costs nothing.
#[derive(Clone, Copy)]
pub struct ActionContext<'a> {
    /// The cycle of the configuration, which is live. It says as which user programs run.
    pub cycle: *mut ngx_cycle_t,
    /// The helper executable that starts programs, if there are any.
    pub helper: Option<&'a CString>,
    /// What a program gets as its environment besides the event's own variables.
    pub environment: &'a RefCell<Vec<CString>>,
    /// How long a program may run.
    pub timeout: Duration,
    /// The VMs that handlers in Lua run in.
    pub vms: &'a Vms,
}
