//! The PCI access capability (virtio 1.2, 4.1.4.9): a window to a BAR for drivers that reach configuration space only.

use super::capabilities::{WINDOW_BAR, WINDOW_DATA};
use super::device::NetDevice;
use crate::pci::ConfigEvent;

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

    /// Writes configuration space, the PCI access window included. A reset is complete when this returns.
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
        // Bus mastering may have been switched.
        self.messaged.note_kick();
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
