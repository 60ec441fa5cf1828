//! The virtio capabilities in configuration space (virtio 1.2, 4.1.4): where the device's structures lie.

use super::features::bar;
use crate::pci::ConfigBuilder;

/// Capability id of a vendor's own capability, and virtio's types of it.
const VENDOR_CAP: u8 = 0x09;
const CAP_COMMON: u8 = 1;
const CAP_NOTIFY: u8 = 2;
const CAP_ISR: u8 = 3;
const CAP_DEVICE: u8 = 4;
const CAP_PCI: u8 = 5;
/// Offsets in the PCI access capability: the BAR's index, and the data.
pub(super) const WINDOW_BAR: usize = 4;
pub(super) const WINDOW_DATA: usize = 16;

/// The body of a virtio capability (4.1.4): everything after id and link.
fn virtio_cap(kind: u8, offset: u32, len: u32, extra: &[u8]) -> Vec<u8> {
    let mut body = vec![16 + extra.len() as u8, kind, 0, 0, 0, 0];
    body.extend_from_slice(&offset.to_le_bytes());
    body.extend_from_slice(&len.to_le_bytes());
    body.extend_from_slice(extra);
    body
}

/// Adds the five capabilities and returns the offset of the last, the window.
pub(super) fn add_capabilities(builder: &mut ConfigBuilder) -> usize {
    builder.interrupt_pin();
    let mut add = |kind, offset, extra: &[u8]| {
        builder.capability(VENDOR_CAP, &virtio_cap(kind, offset, bar::PAGE, extra), &[])
    };
    add(CAP_COMMON, bar::COMMON, &[]);
    add(CAP_ISR, bar::ISR, &[]);
    add(CAP_DEVICE, bar::DEVICE, &[]);
    add(CAP_NOTIFY, bar::NOTIFY, &bar::NOTIFY_STRIDE.to_le_bytes());
    let body = virtio_cap(CAP_PCI, 0, 0, &[0; 4]);
    // BAR, offset, length and data are the driver's.
    let writable: Vec<u8> = (0..body.len()).map(|at| if at == 2 || at >= 6 { 0xff } else { 0 }).collect();
    builder.capability(VENDOR_CAP, &body, &writable)
}
