//! How the module is put together: what nginx looks for, its hooks, the directives, and how a configuration
//! begins and ends. It may use everything, and nobody imports it.

mod conf;
mod directives;
mod hooks;
mod tables;
