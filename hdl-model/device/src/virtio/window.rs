//! The virtio capabilities in configuration space (virtio 1.2, 4.1.4), and the window that one of them opens: access to a
//! BAR for software that can reach configuration space only (4.1.4.9).

use super::device::NetDevice;
use super::features::bar;
use crate::pci::{ConfigBuilder, ConfigEvent};

/// Capability id of a vendor's own capability, and virtio's types of it.
const VENDOR_CAP: u8 = 0x09;
const CAP_COMMON: u8 = 1;
const CAP_NOTIFY: u8 = 2;
const CAP_ISR: u8 = 3;
const CAP_DEVICE: u8 = 4;
const CAP_PCI: u8 = 5;
/// Offsets in the PCI access capability.
const WINDOW_BAR: usize = 4;
const WINDOW_DATA: usize = 16;
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

impl NetDevice {
    /// Reads configuration space, the PCI access window included.
    pub fn config_read(&self, offset: usize, into: &mut [u8]) {
        if self.in_window(offset, into.len())
            && let Some((index, at, len)) = self.window_target()
        {
            let mut data = [0; 4];
            self.bar_read(index, at, &mut data[..len]);
            self.pci.config_write(self.window + WINDOW_DATA, &data);
        }
        self.pci.config_read(offset, into);
    }

    /// Writes configuration space, the PCI access window included. A reset is carried out before this returns.
    pub fn config_write(&self, offset: usize, from: &[u8]) -> ConfigEvent {
        let event = self.pci.config_write(offset, from);
        if event.reset {
            self.reset_function();
        } else if self.in_window(offset, from.len())
            && let Some((index, at, len)) = self.window_target()
        {
            let mut data = [0; 4];
            self.pci.config_read(self.window + WINDOW_DATA, &mut data);
            self.bar_write(index, at, &data[..len]);
        }
        event
    }

    fn in_window(&self, offset: usize, len: usize) -> bool {
        let data = self.window + WINDOW_DATA;
        offset < data + 4 && offset.saturating_add(len) > data
    }

    /// BAR, offset and length that the window names, if that is an aligned access inside a BAR.
    fn window_target(&self) -> Option<(u32, u64, usize)> {
        let mut cap = [0; WINDOW_DATA];
        self.pci.config_read(self.window, &mut cap);
        let word = |at: usize| u32::from_le_bytes([cap[at], cap[at + 1], cap[at + 2], cap[at + 3]]);
        let (index, offset, len) = (u32::from(cap[WINDOW_BAR]), u64::from(word(8)), word(12));
        let inside = offset + u64::from(len) <= self.pci.bar_len(index);
        (matches!(len, 1 | 2 | 4) && inside && offset.is_multiple_of(u64::from(len))).then_some((
            index,
            offset,
            len as usize,
        ))
    }
}
