//! The types of `nginx/ngx_worker_manager.h` and `nginx/ngx_worker_manager_lua.h`, made by bindgen when the
//! crate is built.

#![allow(missing_docs, non_camel_case_types, dead_code)]
#![expect(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "assertions that the compiler evaluates"
)]

include!(concat!(env!("OUT_DIR"), "/header.rs"));

// The header says which version of the module it is of.
const _: () = {
    let (header, package) =
        (NGX_WORKER_MANAGER_VERSION_STRING, env!("CARGO_PKG_VERSION").as_bytes());
    assert!(header.len() == package.len() + 1);
    let (mut at, mut part, mut number) = (0, 0, 0);
    while at < package.len() {
        assert!(header[at] == package[at]);
        if package[at] == b'.' {
            number = (number + part) * 1000;
            part = 0;
        } else {
            part = part * 10 + (package[at] - b'0') as u32;
        }
        at += 1;
    }
    assert!(NGX_WORKER_MANAGER_VERSION == number + part);
};
