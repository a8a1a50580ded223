#![no_main]
#![allow(missing_docs, clippy::allow_attributes, reason = "libFuzzer's entry")]

#[path = "../src/documents.rs"]
mod documents;

libfuzzer_sys::fuzz_target!(|data: &[u8]| documents::run(data));
