//! `Device`: what a driver may ask of a PCI function, and how a function is named and opened.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::{DmaBuffer, Error, Interrupt, PageKind, Registers, Result, linux_vfio, vfio_user};

/// A PCI function as its driver sees it.
///
/// All methods take `&self` and may be called from several threads.
pub trait Device: Send + Sync {
    /// The function's address, for messages.
    fn name(&self) -> &str;

    /// Reads configuration space.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] beyond the space; a lost or silent device.
    fn config_read(&self, offset: u16, data: &mut [u8]) -> Result<()>;

    /// Writes configuration space.
    ///
    /// # Errors
    /// As [`Device::config_read`].
    fn config_write(&self, offset: u16, data: &[u8]) -> Result<()>;

    /// The registers behind a BAR, 0 to 5. For a 64-bit BAR give the lower number.
    ///
    /// # Errors
    /// [`Error::Missing`] if the function does not implement this BAR.
    fn bar(&self, n: u8) -> Result<Box<dyn Registers>>;

    /// Allocates zeroed memory that the function may read and write, in whole pages of the given kind.
    ///
    /// # Errors
    /// [`Error::Memory`] if there is none; a device that refuses the mapping.
    fn alloc_dma_in(&self, len: usize, pages: PageKind) -> Result<DmaBuffer>;

    /// Allocates zeroed memory that the function may read and write, in ordinary pages.
    ///
    /// # Errors
    /// As [`Device::alloc_dma_in`].
    fn alloc_dma(&self, len: usize) -> Result<DmaBuffer> {
        self.alloc_dma_in(len, PageKind::Normal)
    }

    /// How many MSI-X vectors the function has.
    fn interrupt_count(&self) -> u16;

    /// The interrupt of an MSI-X vector. Called again for the same vector it gives the same event.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] beyond [`Device::interrupt_count`]; a device that refuses.
    fn interrupt(&self, vector: u16) -> Result<Interrupt>;

    /// Function-level reset. Registers are back at their initial values, DMA mappings and interrupts stay.
    ///
    /// # Errors
    /// A device that cannot be reset or is lost.
    fn reset(&self) -> Result<()>;

    /// Makes the function's VFs 0 to `n - 1` exist, and no others. If just so many exist already they are left alone,
    /// otherwise all of the former ones go first.
    ///
    /// # Errors
    /// [`Error::Missing`] without SR-IOV, [`Error::TooManyVfs`], or a device on which they do not appear in time.
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

/// Where a function is found.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum FunctionAddress {
    /// The path of a vfio-user socket.
    Socket(PathBuf),
    /// A PCI address of this machine, `domain:bus:device.function`.
    Pci(String),
}

impl FunctionAddress {
    /// Opens the function.
    ///
    /// # Errors
    /// [`Error::Connect`] or [`Error::Open`], both with what to do about it.
    pub fn open(&self) -> Result<Box<dyn Device>> {
        Ok(match self {
            Self::Socket(path) => Box::new(vfio_user::Client::connect(path)?),
            Self::Pci(bdf) => Box::new(linux_vfio::Function::open(bdf)?),
        })
    }

    /// The socket's path, if it is one.
    #[must_use]
    pub fn socket(&self) -> Option<&Path> {
        match self {
            Self::Socket(path) => Some(path),
            Self::Pci(_) => None,
        }
    }
}

impl fmt::Display for FunctionAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) => path.display().fmt(f),
            Self::Pci(bdf) => f.write_str(bdf),
        }
    }
}

impl FromStr for FunctionAddress {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text.contains('/') {
            return Ok(Self::Socket(text.into()));
        }
        linux_vfio::full_address(text).map(Self::Pci).ok_or_else(|| Error::Address(text.into()))
    }
}

/// A VF that [`Device::enable_vfs`] made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VfHandle {
    /// Its number, from 0.
    pub index: u16,
    /// Where to open it, or what to give to a VM.
    pub address: FunctionAddress,
}
