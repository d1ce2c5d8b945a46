//! ngx-worker-manager: an nginx module that knows which masters and workers of a node are alive and
//! runs what its user configured as they come and go. `module` has what nginx looks for; which folder uses
//! which is in ARCHITECTURE.md, and `auto/imports` checks it.

// A panic in a hook would end a process of nginx's.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::unreachable,
    clippy::todo,
    clippy::unimplemented,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

#[macro_use]
mod nginx;

mod actions;
mod config;
mod delivery;
mod ffi;
mod http;
mod lifecycle;
mod module;
mod monitor;
