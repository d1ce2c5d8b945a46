//! nginx and the kernel as this process sees them: nginx's globals, log, timers, descriptors in its event
//! loop, the shared memory zone, and what bindgen makes of the C header. Only these files read what nginx
//! keeps of the process. They use the crates and each other, nothing else of the module.

#[macro_use]
pub mod log;

pub mod abi;
pub mod clock;
pub mod connections;
pub mod cycle;
mod descriptor;
pub mod failpoint;
pub mod header;
pub mod load_log;
pub mod main_thread;
pub mod module;
mod pidfd;
pub mod process;
pub mod timer;
pub mod watch;
pub mod zone;
