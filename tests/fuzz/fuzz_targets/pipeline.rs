//! libFuzzer's entry to `culvert_fuzz::pipeline`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| culvert_fuzz::pipeline::run(data));
