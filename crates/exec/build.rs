//! Links the unwinder statically, as for the module: loading libgcc_s would take longer than all the rest
//! that the executable does before it starts a program.

use std::env;
use std::fs;
use std::path::PathBuf;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if env::var("CARGO_CFG_TARGET_ENV").is_ok_and(|environment| environment == "gnu") {
        let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
        fs::write(out.join("libgcc_s.so"), "GROUP ( -lgcc_eh -lgcc )\n").expect("linker script");
        println!("cargo::rustc-link-search=native={}", out.display());
    }
}
