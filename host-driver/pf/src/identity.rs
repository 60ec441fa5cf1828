//! `Identity`: what kind of NIC a function belongs to, read from its registers.

use culvert_abi::pci;
use culvert_abi::regs::{self, CAPS, QUEUE_VMQ0};
use culvert_pci::Device;

use crate::registers::Bar0;
use crate::{Error, Result};

/// A NIC's place, names and sizes. They do not change while it is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Socket path or PCI address.
    pub location: String,
    /// PCI vendor.
    pub vendor: u16,
    /// PCI device.
    pub device: u16,
    /// Names of vendor and device.
    pub name: String,
    /// Number of MAC ports.
    pub uplinks: u8,
    /// Number of VFs that can be enabled.
    pub total_vfs: u16,
    /// Number of VMQs.
    pub vmqs: u16,
}

impl Identity {
    /// Reads a function's identity. Fails if it is no Culvert PF, or if the board has another version of the interface.
    pub(crate) fn read(device: &dyn Device, bar: &Bar0) -> Result<Self> {
        let (vendor, id) = device.id()?;
        let is_culvert = (vendor, id) == (pci::VENDOR, pci::PF_DEVICE);
        if !is_culvert || bar.read(regs::MAGIC)? != regs::MAGIC_VALUE {
            return Err(Error::WrongDevice { device: device.name().into(), vendor, id });
        }
        let found = bar.read(regs::ABI)?;
        if found != culvert_abi::VERSION {
            let expected = culvert_abi::VERSION;
            return Err(Error::Abi { device: device.name().into(), part: "board", found, expected });
        }
        let caps = bar.read(CAPS)?;
        Ok(Identity {
            location: device.name().into(),
            vendor,
            device: id,
            name: culvert_pci::name_of(vendor, id),
            uplinks: (caps & 0xff) as u8,
            total_vfs: (caps >> 8 & 0xff) as u16,
            vmqs: ((caps >> 16 & 0xff) as u16).saturating_sub(QUEUE_VMQ0 as u16),
        })
    }
}
