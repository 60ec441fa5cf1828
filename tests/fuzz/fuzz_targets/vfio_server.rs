//! libFuzzer's entry to `culvert_fuzz::vfio_server`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| culvert_fuzz::vfio_server::run(data));
