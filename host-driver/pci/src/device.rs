//! `Device`: the trait by which a driver uses a PCI function.

use crate::address::FunctionAddress;
use crate::{DmaBuffer, Interrupt, PageKind, Registers, Result};

/// A PCI function as its driver sees it.
///
/// All methods take `&self` and may be called from several threads.
pub trait Device: Send + Sync {
    /// The function's address, for error messages.
    fn name(&self) -> &str;

    /// Reads configuration space.
    ///
    /// # Errors
    /// [`Error::OutOfRange`](crate::Error::OutOfRange) beyond the space, or the device is lost or does not answer.
    fn config_read(&self, offset: u16, data: &mut [u8]) -> Result<()>;

    /// Writes configuration space.
    ///
    /// # Errors
    /// As [`Device::config_read`].
    fn config_write(&self, offset: u16, data: &[u8]) -> Result<()>;

    /// The registers of BAR `n`, 0 to 5. A 64-bit BAR has the lower of its two numbers.
    ///
    /// # Errors
    /// [`Error::Missing`](crate::Error::Missing) if the function does not implement this BAR.
    fn bar(&self, n: u8) -> Result<Box<dyn Registers>>;

    /// Allocates zeroed memory that the function may read and write, in whole pages of the given kind.
    ///
    /// # Errors
    /// [`Error::Memory`](crate::Error::Memory) if the host has none left, or the device refuses the mapping.
    fn alloc_dma_in(&self, len: usize, pages: PageKind) -> Result<DmaBuffer>;

    /// Allocates zeroed memory that the function may read and write, in ordinary pages.
    ///
    /// # Errors
    /// As [`Device::alloc_dma_in`].
    fn alloc_dma(&self, len: usize) -> Result<DmaBuffer> {
        self.alloc_dma_in(len, PageKind::Normal)
    }

    /// Number of MSI-X vectors of the function.
    fn interrupt_count(&self) -> u16;

    /// The interrupt of an MSI-X vector. Calls with the same vector return the same event.
    ///
    /// # Errors
    /// [`Error::OutOfRange`](crate::Error::OutOfRange) beyond [`Device::interrupt_count`], or the device refuses.
    fn interrupt(&self, vector: u16) -> Result<Interrupt>;

    /// Resets the function (PCIe 6.0 section 6.6.2). Registers have their initial values afterwards; DMA mappings and
    /// interrupts stay.
    ///
    /// # Errors
    /// The device cannot be reset or is lost.
    fn reset(&self) -> Result<()>;

    /// Gives the function up: the connection to it ends, also for registers and buffers that still exist, so that it can be
    /// opened again. A function of this host is given up when the last of them is dropped.
    fn close(&self) {}

    /// Enables the function's VFs 0 to `n - 1`, and no others. If exactly these are enabled already, they keep running;
    /// otherwise all VFs are disabled first.
    ///
    /// # Errors
    /// [`Error::Missing`](crate::Error::Missing) without SR-IOV, [`Error::TooManyVfs`](crate::Error::TooManyVfs), or the
    /// VFs do not appear in time.
    fn enable_vfs(&self, n: u16) -> Result<Vec<VfHandle>>;

    /// Reads a byte of configuration space.
    ///
    /// # Errors
    /// As [`Device::config_read`].
    fn config_u8(&self, offset: u16) -> Result<u8> {
        let mut data = [0; 1];
        self.config_read(offset, &mut data)?;
        Ok(data[0])
    }

    /// Reads a 16-bit word of configuration space.
    ///
    /// # Errors
    /// As [`Device::config_read`].
    fn config_u16(&self, offset: u16) -> Result<u16> {
        let mut data = [0; 2];
        self.config_read(offset, &mut data)?;
        Ok(u16::from_le_bytes(data))
    }

    /// Reads a 32-bit word of configuration space.
    ///
    /// # Errors
    /// As [`Device::config_read`].
    fn config_u32(&self, offset: u16) -> Result<u32> {
        let mut data = [0; 4];
        self.config_read(offset, &mut data)?;
        Ok(u32::from_le_bytes(data))
    }

    /// Writes a byte of configuration space.
    ///
    /// # Errors
    /// As [`Device::config_write`].
    fn config_write_u8(&self, offset: u16, value: u8) -> Result<()> {
        self.config_write(offset, &[value])
    }

    /// Writes a 16-bit word of configuration space.
    ///
    /// # Errors
    /// As [`Device::config_write`].
    fn config_write_u16(&self, offset: u16, value: u16) -> Result<()> {
        self.config_write(offset, &value.to_le_bytes())
    }

    /// Writes a 32-bit word of configuration space.
    ///
    /// # Errors
    /// As [`Device::config_write`].
    fn config_write_u32(&self, offset: u16, value: u32) -> Result<()> {
        self.config_write(offset, &value.to_le_bytes())
    }

    /// Vendor and device identifier.
    ///
    /// # Errors
    /// As [`Device::config_read`].
    fn id(&self) -> Result<(u16, u16)> {
        Ok((self.config_u16(0)?, self.config_u16(2)?))
    }
}

/// A VF that [`Device::enable_vfs`] enabled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VfHandle {
    /// Its number, from 0.
    pub index: u16,
    /// Its address: open it, or pass it to a VM.
    pub address: FunctionAddress,
}
