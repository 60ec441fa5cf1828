//! libFuzzer's entry to `culvert_fuzz::frame`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| culvert_fuzz::frame::run(data));
