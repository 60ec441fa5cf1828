//! libFuzzer's entry to `culvert_fuzz::rest`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| culvert_fuzz::rest::run(data));
