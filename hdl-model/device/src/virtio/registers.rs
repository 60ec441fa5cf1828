//! The registers of the virtio PCI transport (virtio 1.2, 4.1.4): common configuration and its select registers.

use culvert_virtio::Layout;

use super::features::{MAX_QUEUE_SIZE, NO_VECTOR, QUEUES, VECTORS};

/// Bytes of `virtio_pci_common_cfg` up to and including `queue_reset`, whose feature is not offered.
pub(super) const COMMON_LEN: usize = 0x40;

/// Registers of one queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct QueueRegisters {
    pub(super) layout: Layout,
    pub(super) vector: u16,
    pub(super) enabled: bool,
}

impl Default for QueueRegisters {
    fn default() -> Self {
        Self {
            layout: Layout { size: MAX_QUEUE_SIZE, ..Layout::default() },
            vector: NO_VECTOR,
            enabled: false,
        }
    }
}

/// The transport's registers, except the device status.
#[derive(Clone, Debug, Default)]
pub(super) struct Registers {
    device_feature_select: u32,
    driver_feature_select: u32,
    pub(super) driver_features: u64,
    queue_select: u16,
    pub(super) queues: [QueueRegisters; QUEUES],
}

/// Effect of a register write on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    None,
    Status(u8),
    ConfigVector(u16),
    QueueVector(usize),
    Enable(usize),
}

/// Half `select` (0 low, 1 high) of a 64-bit value.
fn half(value: u64, select: u32) -> u32 {
    match select {
        0 => value as u32,
        1 => (value >> 32) as u32,
        _ => 0,
    }
}

fn set_half(value: &mut u64, high: bool, with: u32) {
    let shift = if high { 32 } else { 0 };
    *value = *value & !(0xffff_ffff << shift) | u64::from(with) << shift;
}

/// A vector that exists, or none.
fn vector(value: u32) -> u16 {
    u16::try_from(value).ok().filter(|vector| *vector < VECTORS).unwrap_or(NO_VECTOR)
}

impl Registers {
    /// The whole structure as a driver reads it now.
    pub(super) fn image(
        &self,
        offered: u64,
        config_vector: u16,
        status: u8,
        generation: u8,
    ) -> [u8; COMMON_LEN] {
        let mut out = [0; COMMON_LEN];
        let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
        put(0x00, &self.device_feature_select.to_le_bytes());
        put(0x04, &half(offered, self.device_feature_select).to_le_bytes());
        put(0x08, &self.driver_feature_select.to_le_bytes());
        put(0x0c, &half(self.driver_features, self.driver_feature_select).to_le_bytes());
        put(0x10, &config_vector.to_le_bytes());
        put(0x12, &(QUEUES as u16).to_le_bytes());
        put(0x14, &[status, generation]);
        put(0x16, &self.queue_select.to_le_bytes());
        // A queue that does not exist reads as size 0.
        if let Some(queue) = self.queues.get(usize::from(self.queue_select)) {
            put(0x18, &queue.layout.size.to_le_bytes());
            put(0x1a, &queue.vector.to_le_bytes());
            put(0x1c, &u16::from(queue.enabled).to_le_bytes());
            put(0x1e, &self.queue_select.to_le_bytes());
            put(0x20, &queue.layout.descriptors.to_le_bytes());
            put(0x28, &queue.layout.available.to_le_bytes());
            put(0x30, &queue.layout.used.to_le_bytes());
        }
        out
    }

    /// One register of up to four bytes. Drivers access registers whole (4.1.3.1); anything else changes nothing.
    pub(super) fn write(&mut self, offset: u64, len: usize, value: u32) -> Effect {
        let selected = usize::from(self.queue_select);
        match (offset, len) {
            (0x00, 4) => self.device_feature_select = value,
            (0x08, 4) => self.driver_feature_select = value,
            (0x0c, 4) if self.driver_feature_select < 2 => {
                set_half(&mut self.driver_features, self.driver_feature_select == 1, value);
            }
            (0x10, 2) => return Effect::ConfigVector(vector(value)),
            (0x14, 1) => return Effect::Status(value as u8),
            (0x16, 2) => self.queue_select = value as u16,
            _ => return self.write_queue(selected, offset, len, value),
        }
        Effect::None
    }

    fn write_queue(&mut self, index: usize, offset: u64, len: usize, value: u32) -> Effect {
        let Some(queue) = self.queues.get_mut(index) else { return Effect::None };
        if (offset, len) == (0x1a, 2) {
            queue.vector = vector(value);
            return Effect::QueueVector(index);
        }
        // The driver must not touch the rest of an enabled queue (4.1.4.3.2).
        if queue.enabled {
            return Effect::None;
        }
        let layout = &mut queue.layout;
        match (offset, len) {
            (0x18, 2) => layout.size = value as u16,
            (0x1c, 2) if value == 1 => {
                queue.enabled = true;
                return Effect::Enable(index);
            }
            (0x20 | 0x24, 4) => set_half(&mut layout.descriptors, offset == 0x24, value),
            (0x28 | 0x2c, 4) => set_half(&mut layout.available, offset == 0x2c, value),
            (0x30 | 0x34, 4) => set_half(&mut layout.used, offset == 0x34, value),
            _ => {}
        }
        Effect::None
    }
}
