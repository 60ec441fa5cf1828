//! libFuzzer's entry to `culvert_fuzz::virtqueue`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| culvert_fuzz::virtqueue::run(data));
