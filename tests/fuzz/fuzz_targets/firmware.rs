//! libFuzzer's entry to `culvert_fuzz::firmware`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| culvert_fuzz::firmware::run(data));
