//! Opens the function at an address: the one place that knows both implementations of [`Device`].

use crate::Result;
use crate::address::FunctionAddress;
use crate::device::Device;
use crate::linux_vfio::Function;
use crate::vfio_user::Client;

impl FunctionAddress {
    /// Opens the function. Accesses to registers of a device behind a socket fail after a second.
    ///
    /// # Errors
    /// [`Error::Connect`](crate::Error::Connect) or [`Error::Open`](crate::Error::Open), both with the remedy.
    pub fn open(&self) -> Result<Box<dyn Device>> {
        Ok(match self {
            Self::Socket(path) => Box::new(Client::connect_impatient(path)?),
            Self::Pci(bdf) => Box::new(Function::open(bdf)?),
        })
    }
}
