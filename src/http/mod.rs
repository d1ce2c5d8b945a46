//! What http sees: the variables, and the status as pages, streams and waits. It reads the roster by
//! `delivery`, and uses what `lifecycle` knows of zones that were left.

mod status;
pub mod variables;

pub use status::{cmd_worker_manager_status, drain};
