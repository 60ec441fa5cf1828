//! Walks of the capability lists in configuration space. Both are bounded: a device's list may be a loop.

use crate::{Device, Result};

/// Identifiers of capabilities, PCI Code and ID Assignment Specification.
pub mod id {
    /// Vendor specific: virtio's structures.
    pub const VENDOR: u8 = 0x09;
    /// PCI Express.
    pub const PCI_EXPRESS: u8 = 0x10;
    /// MSI-X.
    pub const MSIX: u8 = 0x11;
    /// Extended: single root I/O virtualisation.
    pub const SRIOV: u16 = 0x10;
}

const STATUS: u16 = 0x06;
const STATUS_CAPABILITIES: u16 = 1 << 4;
const POINTER: u16 = 0x34;
/// Where extended configuration space begins.
const EXTENDED: u16 = 0x100;
/// No more capabilities than this fit below 0x100, 4-byte aligned and behind the header.
const MOST: usize = 48;
/// No more extended capabilities than this fit.
const MOST_EXTENDED: usize = (4096 - 256) / 4;

/// The offsets of all capabilities with this identifier, in the list's order.
///
/// # Errors
/// A lost device. A broken list ends the walk and is no error.
pub fn find_all(device: &dyn Device, id: u8) -> Result<Vec<u16>> {
    let mut found = Vec::new();
    if device.config_u16(STATUS)? & STATUS_CAPABILITIES == 0 {
        return Ok(found);
    }
    let mut at = u16::from(device.config_u8(POINTER)? & !3);
    for _ in 0..MOST {
        if at < 0x40 {
            break;
        }
        let [this, next] = device.config_u16(at)?.to_le_bytes();
        // A looped list names its members again and again.
        if this == id && !found.contains(&at) {
            found.push(at);
        }
        at = u16::from(next & !3);
    }
    Ok(found)
}

/// The offset of the first capability with this identifier.
///
/// # Errors
/// A lost device.
pub fn find(device: &dyn Device, id: u8) -> Result<Option<u16>> {
    Ok(find_all(device, id)?.first().copied())
}

/// The offset of the first extended capability with this identifier.
///
/// # Errors
/// A lost device. A function without extended configuration space has none.
pub fn find_extended(device: &dyn Device, id: u16) -> Result<Option<u16>> {
    let mut at = EXTENDED;
    for _ in 0..MOST_EXTENDED {
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
