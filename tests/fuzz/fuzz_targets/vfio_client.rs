//! libFuzzer's entry to `culvert_fuzz::vfio_client`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| culvert_fuzz::vfio_client::run(data));
