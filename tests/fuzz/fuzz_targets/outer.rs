//! libFuzzer's entry to `culvert_fuzz::outer`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| culvert_fuzz::outer::run(data));
