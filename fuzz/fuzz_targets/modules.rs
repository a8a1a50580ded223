#![no_main]
#![allow(missing_docs, clippy::allow_attributes, reason = "libFuzzer's entry")]

#[path = "../src/modules.rs"]
mod modules;

libfuzzer_sys::fuzz_target!(|data: &[u8]| modules::run(data));
