//! libFuzzer's entry to `culvert_fuzz::vhost`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| culvert_fuzz::vhost::run(data));
