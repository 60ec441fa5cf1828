//! libFuzzer's entry to `culvert_fuzz::connections`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| culvert_fuzz::connections::run(data));
