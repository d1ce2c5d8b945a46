//! ngx-worker-manager: an nginx module that knows which masters and workers of a node are alive and
//! runs what its user configured as they come and go. Each folder uses only those below it in this list;
//! `module` has what nginx looks for.

#[macro_use]
mod nginx;

mod actions;
mod config;
mod delivery;
mod monitor;

mod lifecycle;

mod http;

mod ffi;

mod module;
