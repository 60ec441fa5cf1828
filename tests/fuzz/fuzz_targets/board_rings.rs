//! libFuzzer's entry to `culvert_fuzz::board_rings`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| culvert_fuzz::board_rings::run(data));
