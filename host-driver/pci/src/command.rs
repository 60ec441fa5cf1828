//! The Command register: turns on a function's memory access and bus mastering.

use crate::{Device, Result};

/// Offset of the Command register (PCIe 6.0 section 7.5.1.1.3).
const COMMAND: u16 = 4;
/// Memory Space Enable and Bus Master Enable.
const COMMAND_ENABLE: u16 = 1 << 1 | 1 << 2;

/// Turns on memory access and bus mastering.
pub(crate) fn enable(device: &dyn Device) -> Result<()> {
    let command = device.config_u16(COMMAND)?;
    device.config_write_u16(COMMAND, command | COMMAND_ENABLE)
}
