//! What Lua code adds to a configuration.

use std::cell::{Cell, RefCell};
use std::ffi::CString;

use ngx::ffi::ngx_msec_t;

use super::callbacks::Callbacks;
use crate::actions::Vms;

/// What Lua code adds to a configuration.
#[derive(Default)]
pub struct Lua {
    /// The VMs and how to enter them.
    pub vms: Vms,
    /// Milliseconds, see `Conf::interval`.
    pub interval: Cell<Option<ngx_msec_t>>,
    /// Milliseconds, see `Conf::failed`.
    pub failed: Cell<Option<ngx_msec_t>>,
    /// The names that the zone has to have, where the block was not read yet.
    pub zones: RefCell<Vec<CString>>,
    /// What was registered before the block was read: `on` lines come first.
    pub early: Callbacks,
}
