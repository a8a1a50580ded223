#![no_main]
#![allow(missing_docs, clippy::allow_attributes, reason = "libFuzzer's entry")]

#[path = "../src/emits.rs"]
mod emits;

libfuzzer_sys::fuzz_target!(|data: &[u8]| emits::run(data));
