//! libFuzzer's entry to `culvert_fuzz::bundle`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| culvert_fuzz::bundle::run(data));
