//! A VF: a virtio-net device behind its own vfio-user socket.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use culvert_abi::pci;
use rustix::io::Errno;

use crate::pci::{CONFIG_LEN, Identity};
use crate::vfio_user::{
    CONFIG_REGION, DmaRegion, Error, Function, INTX_INDEX, IrqSet, MSIX_INDEX, Region, RemoteDma, Server,
};
use crate::virtio::{NetDevice, Notifier, VfConfig};

/// Identity of a VF: a modern virtio-net device (virtio 1.2, 4.1.2).
pub const VF_IDENTITY: Identity = Identity {
    vendor: pci::VENDOR,
    device: pci::VF_DEVICE,
    subsystem_vendor: pci::VENDOR,
    // virtio 1.2 section 4.1.2.1: a non-transitional device has 0x40 or above; drivers such as OVMF's look at it
    subsystem: 0x41,
    class: pci::CLASS_ETHERNET,
    revision: 1,
};

/// A VF being served. Dropping it ends its connection and removes its socket; the device stays usable, and stopped.
#[derive(Debug)]
pub struct Vf {
    device: Arc<NetDevice>,
    server: Server,
}

impl Vf {
    /// Makes a device and listens for a client at `socket`.
    pub fn start(socket: &Path, config: VfConfig, notifier: Notifier) -> Result<Self, Error> {
        let device = Arc::new(NetDevice::new(VF_IDENTITY, config, notifier));
        let server = Server::start(socket, Arc::clone(&device) as Arc<dyn Function>)?;
        Ok(Self { device, server })
    }

    /// The device, for the queue engine.
    pub fn device(&self) -> &Arc<NetDevice> {
        &self.device
    }

    /// The socket's path.
    pub fn socket(&self) -> &Path {
        self.server.path()
    }
}

impl Function for NetDevice {
    fn region(&self, index: u32) -> Region<'_> {
        let size = if index == CONFIG_REGION { CONFIG_LEN as u64 } else { self.endpoint().bar_len(index) };
        Region { size, mmap: None }
    }

    fn irq_count(&self, index: u32) -> u32 {
        match index {
            MSIX_INDEX => self.endpoint().msix().count(),
            INTX_INDEX => 1,
            _ => 0,
        }
    }

    fn read(&self, region: u32, offset: u64, data: &mut [u8]) -> Result<(), Errno> {
        if region == CONFIG_REGION {
            self.config_read(offset as usize, data);
        } else {
            self.bar_read(region, offset, data);
        }
        Ok(())
    }

    fn write(&self, region: u32, offset: u64, data: &[u8]) -> Result<(), Errno> {
        if region == CONFIG_REGION {
            self.config_write(offset as usize, data);
        } else {
            self.bar_write(region, offset, data);
        }
        Ok(())
    }

    fn dma_map(&self, region: DmaRegion, fd: Option<OwnedFd>) -> Result<(), Errno> {
        let shared = fd.is_some();
        self.memory().map(region, fd)?;
        if !shared {
            self.messaged.start()?;
        }
        self.messaged.note_mapping();
        Ok(())
    }

    fn dma_unmap(&self, range: Option<(u64, u64)>) -> Result<u64, Errno> {
        let removed = match range {
            Some((iova, size)) => self.memory().unmap(iova, size),
            None => self.memory().unmap_all(),
        };
        self.messaged.give_up(range);
        removed
    }

    fn set_irqs(&self, set: IrqSet) -> Result<(), Errno> {
        if set.index == INTX_INDEX {
            self.endpoint().intx().set(set)
        } else {
            self.endpoint().msix().set(set)
        }
    }

    fn reset(&self) {
        self.reset_function();
    }

    fn connected(self: Arc<Self>, remote: Arc<RemoteDma>) {
        self.set_remote(remote);
    }

    fn disconnected(&self) {
        self.detach();
    }
}
