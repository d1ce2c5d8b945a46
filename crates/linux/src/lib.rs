//! What the module needs of the kernel and of libc, without nginx and without the roster.

pub mod cgroup;
pub mod process;
