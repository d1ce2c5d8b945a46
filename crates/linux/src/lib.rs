//! What the module needs of the kernel and of libc, without nginx and without the roster.

// A panic in a hook would end a process of nginx's.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::unreachable,
    clippy::todo,
    clippy::unimplemented
)]
// An index out of bounds and an overflow panic, too.
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

pub mod cgroup;
pub mod mapping;
pub mod mutex;
pub mod pidfd;
pub mod process;
