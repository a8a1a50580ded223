#![no_main]
#![allow(missing_docs, clippy::allow_attributes, reason = "libFuzzer's entry")]

#[path = "../src/allocation.rs"]
mod allocation;
#[path = "../src/documents.rs"]
mod documents;

#[global_allocator]
static ALLOCATOR: allocation::Counting = allocation::Counting;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    allocation::within(documents::ALLOCATION_BYTES_MAX, data, documents::run)
});
