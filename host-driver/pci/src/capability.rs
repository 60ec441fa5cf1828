//! Finds capabilities in configuration space. The walks are bounded: a device's list may be a loop.

use crate::{Device, Result};

/// Capability IDs (PCI Code and ID Assignment Specification).
pub mod id {
    /// Vendor specific: virtio's structures (virtio 1.2 section 4.1.4).
    pub const VENDOR: u8 = 0x09;
    /// PCI Express.
    pub const PCI_EXPRESS: u8 = 0x10;
    /// MSI-X (PCIe 6.0 section 7.7.2).
    pub const MSIX: u8 = 0x11;
    /// Extended capability: SR-IOV (PCIe 6.0 section 9.3.3).
    pub const SRIOV: u16 = 0x10;
}

/// The Status register (PCIe 6.0 section 7.5.1.1.4).
const STATUS: u16 = 0x06;
const STATUS_CAPABILITIES: u16 = 1 << 4;
/// The Capabilities Pointer (PCIe 6.0 section 7.5.1.1.11).
const POINTER: u16 = 0x34;
/// Offset of extended configuration space.
const EXTENDED: u16 = 0x100;
/// Longest list: that many 4-byte aligned capabilities fit between the header and 0x100.
const MAX_CAPABILITIES: usize = 48;
/// Longest list of extended capabilities.
const MAX_EXTENDED: usize = (4096 - 256) / 4;

/// Offsets of all capabilities with this ID, in the list's order.
///
/// # Errors
/// The device is lost. A broken list ends the walk and is no error.
pub fn find_all(device: &dyn Device, id: u8) -> Result<Vec<u16>> {
    let mut found = Vec::new();
    if device.config_u16(STATUS)? & STATUS_CAPABILITIES == 0 {
        return Ok(found);
    }
    let mut at = u16::from(device.config_u8(POINTER)? & !3);
    for _ in 0..MAX_CAPABILITIES {
        if at < 0x40 {
            break;
        }
        let [this, next] = device.config_u16(at)?.to_le_bytes();
        // A looped list repeats its members.
        if this == id && !found.contains(&at) {
            found.push(at);
        }
        at = u16::from(next & !3);
    }
    Ok(found)
}

/// Offset of the first capability with this ID.
///
/// # Errors
/// The device is lost.
pub fn find(device: &dyn Device, id: u8) -> Result<Option<u16>> {
    Ok(find_all(device, id)?.first().copied())
}

/// Offset of the first extended capability with this ID (PCIe 6.0 section 7.6.3). A function without extended
/// configuration space has none.
///
/// # Errors
/// The device is lost.
pub fn find_extended(device: &dyn Device, id: u16) -> Result<Option<u16>> {
    let mut at = EXTENDED;
    for _ in 0..MAX_EXTENDED {
        let header = match device.config_u32(at) {
            Err(crate::Error::OutOfRange { .. }) => return Ok(None),
            other => other?,
        };
        if header == 0 || header == u32::MAX {
            return Ok(None);
        }
        if (header & 0xffff) as u16 == id {
            return Ok(Some(at));
        }
        at = (header >> 20) as u16 & !3;
        if at < EXTENDED {
            return Ok(None);
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests;
