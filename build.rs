//! Tells the crate which nginx it is built for, and turns the public C header into Rust types.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

fn main() {
    let os = env::var("CARGO_CFG_TARGET_OS").unwrap_or_default();
    if os != "linux" {
        eprintln!("ngx-worker-manager needs Linux, this target is {os}");
        std::process::exit(1);
    }

    // Set by nginx-sys: what the nginx it found was configured with.
    let features_check = env::var("DEP_NGINX_FEATURES_CHECK").unwrap_or_default();
    println!("cargo::rustc-check-cfg=cfg(ngx_feature, values({features_check}))");
    for feature in env::var("DEP_NGINX_FEATURES").unwrap_or_default().split(',') {
        println!("cargo::rustc-cfg=ngx_feature=\"{feature}\"");
    }

    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    link_unwinder_statically(&out);

    // It includes the public one.
    let header = "nginx/ngx_worker_manager_lua.h";
    for file in [header, "nginx/ngx_worker_manager.h"] {
        println!("cargo::rerun-if-changed={file}");
    }
    println!("cargo::rerun-if-changed=build.rs");

    bindgen::Builder::default()
        .header(header)
        .allowlist_type("ngx_worker_manager_.*")
        .allowlist_var("NGX_WORKER_MANAGER_.*")
        .use_core()
        .generate()
        .expect("types from the public C header")
        .write_to_file(out.join("header.rs"))
        .expect("writing the types");
}

/// Loading a shared object takes longer than all the rest the module does at a start, and Rust's
/// standard library asks for one, libgcc_s, to print the backtrace of a panic. A linker script of
/// that name, found first, gives it the static half of the same library. Elsewhere than with glibc
/// Rust brings its own.
fn link_unwinder_statically(out: &Path) {
    if env::var("CARGO_CFG_TARGET_ENV").is_ok_and(|environment| environment == "gnu") {
        let dir = out.join("unwinder");
        fs::create_dir_all(&dir).expect("a folder for the linker");
        fs::write(dir.join("libgcc_s.so"), "GROUP ( -lgcc_eh -lgcc )\n").expect("linker script");
        println!("cargo::rustc-link-search=native={}", dir.display());
    }
}
