//! libFuzzer's entry to `culvert_fuzz::pf_rings`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| culvert_fuzz::pf_rings::run(data));
