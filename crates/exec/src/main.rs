//! The executable. Without the preparations that Rust's runtime makes for `fn main`: it is started for
//! each program.

#![no_main]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::ffi::{c_char, c_int, CStr};

/// The entry that libc calls.
///
/// # Safety
/// `argv` has `argc` C strings that live as long as the process.
// SAFETY: with `no_main` there is no other function of this name, and it has the type that libc expects.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn main(argc: c_int, argv: *const *const c_char) -> c_int {
    let count = usize::try_from(argc).unwrap_or(0);
    // SAFETY: libc passes them so.
    let arguments = (0..count).map(|n| unsafe { CStr::from_ptr(*argv.add(n)) }).collect();
    exec::main(arguments)
}
