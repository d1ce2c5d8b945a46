//! The atomics that the table is made of. They are std's; under `--cfg loom` they are loom's, which
//! tries what threads can see of each other, and with the feature `failpoints` a process can die
//! before any store.

#[cfg(not(loom))]
pub(crate) use std::sync::atomic::fence;

#[cfg(loom)]
pub(crate) use loom::sync::atomic::fence;

#[cfg(all(not(loom), not(feature = "failpoints")))]
pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64};

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64};

#[cfg(all(not(loom), feature = "failpoints"))]
pub(crate) use crate::kill::{AtomicU32, AtomicU64};
