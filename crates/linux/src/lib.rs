//! What the module needs of the kernel and of libc, without nginx and without the roster.

pub mod cgroup;
pub mod mapping;
pub mod mutex;
pub mod pidfd;
pub mod process;
