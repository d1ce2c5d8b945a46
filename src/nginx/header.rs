//! The types of `nginx/ngx_worker_manager.h`, made by bindgen when the crate is built.

#![allow(missing_docs, non_camel_case_types, dead_code)]

include!(concat!(env!("OUT_DIR"), "/header.rs"));
