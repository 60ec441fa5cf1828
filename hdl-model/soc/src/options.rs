//! How the SoC is run.

use std::path::PathBuf;

/// How the SoC is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The emulator.
    pub qemu: PathBuf,
    /// Number of flow records as a power of two; 0 for the firmware's default.
    pub flows_log2: u32,
    /// Count instructions: deterministic, slow, and the firmware never sleeps.
    pub count_instructions: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options { qemu: PathBuf::from("qemu-system-riscv64"), flows_log2: 0, count_instructions: false }
    }
}
