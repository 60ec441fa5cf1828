//! libFuzzer's entry to `culvert_fuzz::capture`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| culvert_fuzz::capture::run(data));
