//! `Transport`: a virtio device on PCI (virtio 1.2, 4.1): its structures found through capabilities, its bring-up.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use culvert_pci::{Device, Registers, capability};

use super::SplitQueue;
use crate::{Error, Result};

/// Feature bits (5.1.3 and 6).
pub mod feature {
    /// The device completes partial checksums.
    pub const CSUM: u64 = 1 << 0;
    /// The driver takes frames with partial checksums.
    pub const GUEST_CSUM: u64 = 1 << 1;
    /// The device says its MTU.
    pub const MTU: u64 = 1 << 3;
    /// The device has a MAC address.
    pub const MAC: u64 = 1 << 5;
    /// A frame may take several receive buffers.
    pub const MRG_RXBUF: u64 = 1 << 15;
    /// The link's state is in the device configuration.
    pub const STATUS: u64 = 1 << 16;
    /// There is a control queue.
    pub const CTRL_VQ: u64 = 1 << 17;
    /// The MAC address can be set through the control queue.
    pub const CTRL_MAC_ADDR: u64 = 1 << 23;
    /// Notifications are suppressed by event index.
    pub const EVENT_IDX: u64 = 1 << 29;
    /// The device follows version 1 of the specification.
    pub const VERSION_1: u64 = 1 << 32;
    /// Addresses go through the platform's IOMMU.
    pub const ACCESS_PLATFORM: u64 = 1 << 33;
}

/// Device status bits (2.1).
mod status {
    pub(super) const ACKNOWLEDGE: u8 = 1;
    pub(super) const DRIVER: u8 = 2;
    pub(super) const DRIVER_OK: u8 = 4;
    pub(super) const FEATURES_OK: u8 = 8;
    pub(super) const NEEDS_RESET: u8 = 64;
}

/// Offsets in the common configuration structure (4.1.4.3).
mod common {
    pub(super) const DEVICE_FEATURE_SELECT: u64 = 0x00;
    pub(super) const DEVICE_FEATURE: u64 = 0x04;
    pub(super) const DRIVER_FEATURE_SELECT: u64 = 0x08;
    pub(super) const DRIVER_FEATURE: u64 = 0x0c;
    pub(super) const CONFIG_VECTOR: u64 = 0x10;
    pub(super) const NUM_QUEUES: u64 = 0x12;
    pub(super) const STATUS: u64 = 0x14;
    pub(super) const QUEUE_SELECT: u64 = 0x16;
    pub(super) const QUEUE_SIZE: u64 = 0x18;
    pub(super) const QUEUE_VECTOR: u64 = 0x1a;
    pub(super) const QUEUE_ENABLE: u64 = 0x1c;
    pub(super) const QUEUE_NOTIFY_OFF: u64 = 0x1e;
    pub(super) const QUEUE_ADDRESSES: [u64; 3] = [0x20, 0x28, 0x30];
    pub(super) const LEN: u64 = 0x38;
}

const VENDOR_VIRTIO: u16 = 0x1af4;
const DEVICE_NET: u16 = 0x1041;
const CFG_COMMON: u8 = 1;
const CFG_NOTIFY: u8 = 2;
const CFG_DEVICE: u8 = 4;
const NO_VECTOR: u16 = 0xffff;
/// How long a device may take to reset.
const RESET_LIMIT: Duration = Duration::from_secs(5);

/// A part of a BAR.
#[derive(Clone)]
struct Window {
    registers: Arc<dyn Registers>,
    base: u64,
    len: u64,
}

impl Window {
    /// An offset in the BAR, if the access lies inside the structure.
    fn at(&self, offset: u64, len: u64) -> Result<u64> {
        let inside = offset.checked_add(len).is_some_and(|end| end <= self.len);
        let size = self.len;
        let outside = culvert_pci::Error::OutOfRange { thing: "virtio structure".into(), offset, len, size };
        if inside { Ok(self.base + offset) } else { Err(outside.into()) }
    }
}

/// Where to tell the device that a queue has something new.
#[derive(Clone)]
pub struct Notify {
    registers: Arc<dyn Registers>,
    offset: u64,
    queue: u16,
}

impl Notify {
    /// Notifies the device.
    ///
    /// # Errors
    /// A lost device.
    pub fn kick(&self) -> Result<()> {
        Ok(self.registers.write16(self.offset, self.queue)?)
    }
}

/// A virtio network device on PCI.
pub struct Transport {
    device: Arc<dyn Device>,
    common: Window,
    notify: Window,
    notify_multiplier: u32,
    config: Window,
}

impl Transport {
    /// Finds the device's structures and resets it.
    ///
    /// # Errors
    /// [`Error::NotVirtio`] if it is something else; a lost device.
    pub fn new(device: Arc<dyn Device>) -> Result<Self> {
        let wrong = |detail: String| Error::NotVirtio { device: device.name().into(), detail };
        let (vendor, id) = device.id()?;
        if (vendor, id) != (VENDOR_VIRTIO, DEVICE_NET) {
            return Err(wrong(format!("it is a {}", culvert_pci::name_of(vendor, id))));
        }
        let mut bars: BTreeMap<u8, Arc<dyn Registers>> = BTreeMap::new();
        let mut found: BTreeMap<u8, (Window, u16)> = BTreeMap::new();
        for at in capability::find_all(&*device, capability::id::VENDOR)? {
            let (kind, bar) = (device.config_u8(at + 3)?, device.config_u8(at + 4)?);
            // Of several of one kind the first that the driver can use counts (4.1.4.1); BARs above 5 are reserved.
            if bar > 5 || found.contains_key(&kind) || ![CFG_COMMON, CFG_NOTIFY, CFG_DEVICE].contains(&kind) {
                continue;
            }
            let (base, len) = (device.config_u32(at + 8)?.into(), device.config_u32(at + 12)?.into());
            let registers = match bars.get(&bar) {
                Some(registers) => Arc::clone(registers),
                None => Arc::from(device.bar(bar)?),
            };
            bars.insert(bar, Arc::clone(&registers));
            if registers.size() < base + len {
                return Err(wrong(format!("structure {kind} ends outside BAR{bar}")));
            }
            found.insert(kind, (Window { registers, base, len }, at));
        }
        let mut structure = |kind: u8, name: &str, least: u64| match found.remove(&kind) {
            Some((window, at)) if window.len >= least => Ok((window, at)),
            _ => Err(wrong(format!("it has no {name} structure"))),
        };
        let (common, _) = structure(CFG_COMMON, "common configuration", common::LEN)?;
        let (config, _) = structure(CFG_DEVICE, "device configuration", 6)?;
        let (notify, at) = structure(CFG_NOTIFY, "notification", 2)?;
        let notify_multiplier = device.config_u32(at + 16)?;
        let transport = Self { device, common, notify, notify_multiplier, config };
        transport.reset()?;
        Ok(transport)
    }

    /// The PCI function.
    #[must_use]
    pub fn device(&self) -> &Arc<dyn Device> {
        &self.device
    }

    fn wrong(&self, detail: impl Into<String>) -> Error {
        Error::NotVirtio { device: self.device.name().into(), detail: detail.into() }
    }

    fn read8(&self, offset: u64) -> Result<u8> {
        Ok(self.common.registers.read8(self.common.at(offset, 1)?)?)
    }

    fn read16(&self, offset: u64) -> Result<u16> {
        Ok(self.common.registers.read16(self.common.at(offset, 2)?)?)
    }

    fn write8(&self, offset: u64, value: u8) -> Result<()> {
        Ok(self.common.registers.write8(self.common.at(offset, 1)?, value)?)
    }

    fn write16(&self, offset: u64, value: u16) -> Result<()> {
        Ok(self.common.registers.write16(self.common.at(offset, 2)?, value)?)
    }

    fn write32(&self, offset: u64, value: u32) -> Result<()> {
        Ok(self.common.registers.write32(self.common.at(offset, 4)?, value)?)
    }

    /// Resets the device: it forgets its queues and touches no memory any more.
    ///
    /// # Errors
    /// A device that does not come out of reset.
    pub fn reset(&self) -> Result<()> {
        self.write8(common::STATUS, 0)?;
        let deadline = Instant::now() + RESET_LIMIT;
        while self.read8(common::STATUS)? != 0 {
            if Instant::now() > deadline {
                return Err(Error::Timeout { what: "the device's reset", limit: RESET_LIMIT });
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Says that a driver is there and agrees on features: the wanted ones that the device offers.
    ///
    /// # Errors
    /// A device without VERSION_1, or one that refuses the choice.
    pub fn negotiate(&self, wanted: u64) -> Result<u64> {
        self.write8(common::STATUS, status::ACKNOWLEDGE)?;
        self.write8(common::STATUS, status::ACKNOWLEDGE | status::DRIVER)?;
        let mut offered = 0;
        for half in 0..2_u32 {
            self.write32(common::DEVICE_FEATURE_SELECT, half)?;
            let bits = self.common.registers.read32(self.common.at(common::DEVICE_FEATURE, 4)?)?;
            offered |= u64::from(bits) << (32 * half);
        }
        if offered & feature::VERSION_1 == 0 {
            return Err(self.wrong("it does not offer VERSION_1"));
        }
        let chosen = offered & (wanted | feature::VERSION_1);
        for half in 0..2_u32 {
            self.write32(common::DRIVER_FEATURE_SELECT, half)?;
            self.write32(common::DRIVER_FEATURE, (chosen >> (32 * half)) as u32)?;
        }
        let ready = status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK;
        self.write8(common::STATUS, ready)?;
        if self.read8(common::STATUS)? & status::FEATURES_OK == 0 {
            return Err(self.wrong(format!("it refuses the features {chosen:#x} of {offered:#x}")));
        }
        Ok(chosen)
    }

    /// How many queues the device has.
    ///
    /// # Errors
    /// A lost device.
    pub fn num_queues(&self) -> Result<u16> {
        self.read16(common::NUM_QUEUES)
    }

    /// Uses this MSI-X vector for configuration changes.
    ///
    /// # Errors
    /// A device that has no resources for it.
    pub fn set_config_vector(&self, vector: u16) -> Result<()> {
        self.write16(common::CONFIG_VECTOR, vector)?;
        if self.read16(common::CONFIG_VECTOR)? == NO_VECTOR {
            return Err(self.wrong(format!("it refuses vector {vector} for configuration changes")));
        }
        Ok(())
    }

    /// Sets a queue up, with at most `largest` descriptors, and enables it.
    ///
    /// # Errors
    /// A device without this queue, or one that refuses the vector.
    pub fn queue(
        &self,
        name: &'static str,
        index: u16,
        vector: u16,
        largest: u16,
        event_idx: bool,
    ) -> Result<(SplitQueue, Notify)> {
        self.write16(common::QUEUE_SELECT, index)?;
        let most = self.read16(common::QUEUE_SIZE)?;
        if most == 0 {
            return Err(self.wrong(format!("it has no queue {index}")));
        }
        // A split queue's size is a power of two.
        let size = 1 << most.min(largest).max(1).ilog2();
        let queue = SplitQueue::new(name, self.device.alloc_dma(SplitQueue::bytes(size))?, size, event_idx);
        self.write16(common::QUEUE_SIZE, size)?;
        self.write16(common::QUEUE_VECTOR, vector)?;
        if self.read16(common::QUEUE_VECTOR)? == NO_VECTOR {
            return Err(self.wrong(format!("it refuses vector {vector} for queue {index}")));
        }
        for (at, address) in common::QUEUE_ADDRESSES.into_iter().zip(queue.addresses()) {
            self.write32(at, address as u32)?;
            self.write32(at + 4, (address >> 32) as u32)?;
        }
        let place = u64::from(self.read16(common::QUEUE_NOTIFY_OFF)?) * u64::from(self.notify_multiplier);
        let offset = self.notify.at(place, 2)?;
        self.write16(common::QUEUE_ENABLE, 1)?;
        Ok((queue, Notify { registers: Arc::clone(&self.notify.registers), offset, queue: index }))
    }

    /// Lets the device run.
    ///
    /// # Errors
    /// A lost device.
    pub fn start(&self) -> Result<()> {
        let all = status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK | status::DRIVER_OK;
        self.write8(common::STATUS, all)
    }

    /// Whether the device has given up and asks for a reset.
    ///
    /// # Errors
    /// A lost device.
    pub fn needs_reset(&self) -> Result<bool> {
        Ok(self.read8(common::STATUS)? & status::NEEDS_RESET != 0)
    }

    /// A byte of the device configuration.
    ///
    /// # Errors
    /// Outside of it; a lost device.
    pub fn config_u8(&self, offset: u64) -> Result<u8> {
        Ok(self.config.registers.read8(self.config.at(offset, 1)?)?)
    }

    /// A 16-bit field of the device configuration.
    ///
    /// # Errors
    /// Outside of it; a lost device.
    pub fn config_u16(&self, offset: u64) -> Result<u16> {
        Ok(self.config.registers.read16(self.config.at(offset, 2)?)?)
    }
}
