//! The PF: the board's own function, with BAR 0 registers, MSI-X and SR-IOV.

use std::ffi::OsString;
use std::fmt;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use culvert_abi::{pci, regs};
use rustix::io::Errno;

use super::Vf;
use crate::dma::Memory;
use crate::pci::{Bar, CONFIG_LEN, Endpoint, Identity, SriovLayout};
use crate::vfio_user::{
    CONFIG_REGION, DmaRegion, Error, Function, IrqSet, MSIX_INDEX, Region, RemoteDma, Server,
};
use crate::virtio::{NetDevice, Notifier, VIRTIO_BAR, VfConfig};

const PF_IDENTITY: Identity = Identity {
    vendor: pci::VENDOR,
    device: pci::PF_DEVICE,
    subsystem_vendor: pci::VENDOR,
    subsystem: 1,
    class: pci::CLASS_ETHERNET,
    revision: pci::PF_REVISION,
};
const REGISTER_BAR: Bar = Bar { index: 0, size: regs::BAR0_LEN };

/// What the board is behind the PF. Called from the PF's vfio-user thread.
pub trait Registers: Send + Sync {
    /// Reads the register of BAR 0 at `offset`, a multiple of 4.
    fn read32(&self, offset: u32) -> u32;

    /// Writes it.
    fn write32(&self, offset: u32, value: u32);

    /// The PF is reset, by FLR or by the client. Its VFs are gone already.
    fn reset(&self);

    /// Settings of VF `index` when it is created.
    fn vf_config(&self, index: u16) -> VfConfig;

    /// These are the VFs from now on, by index. Called with an empty list before they vanish.
    fn vfs_changed(&self, vfs: &[Arc<NetDevice>]);

    /// A driver has connected.
    fn connected(&self) {}

    /// The driver is gone. Its memory, and PF rings in it, are unmapped when this returns.
    fn disconnected(&self) {}
}

/// How the PF is served.
#[derive(Clone, Debug)]
pub struct PfConfig {
    /// Path of the PF's socket. Those of its VFs are named after it.
    pub socket: PathBuf,
    /// Whether the PF and its VFs are reset when the driver's connection closes, as VFIO does when a device's last user
    /// is gone. Off, VFs and flows keep running while the driver restarts.
    pub reset_on_disconnect: bool,
}

/// Path of the socket of VF `index`.
pub fn vf_socket(pf: &Path, index: u16) -> PathBuf {
    let mut name = OsString::from(pf);
    name.push(format!(".vf{index}"));
    name.into()
}

/// The PF's PCI side: memory of its driver, interrupts to it.
pub struct PfPort {
    pci: Endpoint,
    memory: Memory,
}

impl fmt::Debug for PfPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PfPort").field("memory", &self.memory).finish_non_exhaustive()
    }
}

impl PfPort {
    /// A PF without a driver.
    pub fn new() -> Arc<Self> {
        let vf_bars = Endpoint::with_msix_bar(&[VIRTIO_BAR]);
        let sriov = SriovLayout {
            total: pci::TOTAL_VFS,
            first_offset: 1,
            stride: 1,
            vf_device: pci::VF_DEVICE,
            vf_bars: &vf_bars,
        };
        let pci = Endpoint::new(PF_IDENTITY, &[REGISTER_BAR], pci::PF_VECTORS, Some(sriov), |_| {});
        Arc::new(Self { pci, memory: Memory::new() })
    }

    /// What the driver has mapped.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Whether the driver lets the PF access memory.
    pub fn bus_master(&self) -> bool {
        self.pci.bus_master()
    }

    /// Interrupts the driver.
    pub fn interrupt(&self, vector: u16) {
        self.pci.interrupt(vector);
    }
}

/// The PF being served. Dropping it stops PF and VFs and removes their sockets.
#[derive(Debug)]
pub struct Pf {
    // In this order: no client may enable VFs while they are torn down.
    server: Server,
    shared: Arc<Shared>,
}

struct Shared {
    port: Arc<PfPort>,
    registers: Arc<dyn Registers>,
    notifier: Notifier,
    config: PfConfig,
    vfs: Mutex<Vec<Vf>>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Pf {
    /// Listens on the PF's socket. `notifier` is rung by the VFs' drivers.
    pub fn start(
        config: PfConfig,
        port: Arc<PfPort>,
        registers: Arc<dyn Registers>,
        notifier: Notifier,
    ) -> Result<Self, Error> {
        let socket = config.socket.clone();
        let shared = Arc::new(Shared { port, registers, notifier, config, vfs: Mutex::default() });
        let server = Server::start(&socket, Arc::clone(&shared) as Arc<dyn Function>)?;
        Ok(Self { server, shared })
    }

    /// The PF's socket.
    pub fn socket(&self) -> &Path {
        self.server.path()
    }

    /// Stops PF and VFs and removes their sockets.
    pub fn stop(self) {
        let Self { server, shared } = self;
        server.stop();
        shared.set_vfs(0);
    }
}

impl Shared {
    /// Makes the number of VFs `count`: all go, then new ones come.
    fn set_vfs(&self, count: u16) {
        let mut vfs = self.vfs.lock().unwrap_or_else(PoisonError::into_inner);
        if !vfs.is_empty() {
            self.registers.vfs_changed(&[]);
            vfs.clear();
        }
        for index in 0..count {
            let socket = vf_socket(&self.config.socket, index);
            match Vf::start(&socket, self.registers.vf_config(index), self.notifier.clone()) {
                Ok(vf) => vfs.push(vf),
                Err(error) => {
                    // As on hardware the register write cannot fail; the driver finds the VF missing.
                    tracing::error!(index, "a VF cannot be opened: {error}");
                    break;
                }
            }
        }
        if !vfs.is_empty() {
            let devices: Vec<_> = vfs.iter().map(|vf| Arc::clone(vf.device())).collect();
            self.registers.vfs_changed(&devices);
        }
    }

    fn reset_all(&self) {
        self.port.pci.reset();
        self.set_vfs(0);
        self.registers.reset();
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.set_vfs(0);
    }
}

impl Function for Shared {
    fn region(&self, index: u32) -> Region<'_> {
        let size = if index == CONFIG_REGION { CONFIG_LEN as u64 } else { self.port.pci.bar_len(index) };
        Region { size, mmap: None }
    }

    fn irq_count(&self, index: u32) -> u32 {
        if index == MSIX_INDEX { self.port.pci.msix().count() } else { 0 }
    }

    fn read(&self, region: u32, offset: u64, data: &mut [u8]) -> Result<(), Errno> {
        if region == CONFIG_REGION {
            self.port.pci.config_read(offset as usize, data);
        } else if self.port.pci.is_msix_bar(region) {
            self.port.pci.msix().read(offset, data);
        } else {
            // Whole registers, also for a client that reads parts of them.
            let (mut at, mut data) = (offset, data);
            while !data.is_empty() {
                let inside = (at % 4) as usize;
                let value = self.registers.read32((at - at % 4) as u32).to_le_bytes();
                let n = (4 - inside).min(data.len());
                data[..n].copy_from_slice(&value[inside..inside + n]);
                data = &mut data[n..];
                at += n as u64;
            }
        }
        Ok(())
    }

    fn write(&self, region: u32, offset: u64, data: &[u8]) -> Result<(), Errno> {
        if region == CONFIG_REGION {
            let event = self.port.pci.config_write(offset as usize, data);
            if event.reset {
                self.reset_all();
            } else if let Some(vfs) = event.vfs {
                let have = self.vfs.lock().unwrap_or_else(PoisonError::into_inner).len();
                if have != usize::from(vfs.count) {
                    self.set_vfs(vfs.count);
                }
            }
            return Ok(());
        }
        if self.port.pci.is_msix_bar(region) {
            self.port.pci.msix().write(offset, data);
            return Ok(());
        }
        let (words, rest) = data.as_chunks::<4>();
        if !offset.is_multiple_of(4) || !rest.is_empty() {
            return Err(Errno::INVAL);
        }
        for (i, word) in words.iter().enumerate() {
            self.registers.write32(offset as u32 + 4 * i as u32, u32::from_le_bytes(*word));
        }
        Ok(())
    }

    fn dma_map(&self, region: DmaRegion, fd: Option<OwnedFd>) -> Result<(), Errno> {
        self.port.memory.map(region, fd)
    }

    fn dma_unmap(&self, range: Option<(u64, u64)>) -> Result<u64, Errno> {
        match range {
            Some((iova, size)) => self.port.memory.unmap(iova, size),
            None => self.port.memory.unmap_all(),
        }
    }

    fn set_irqs(&self, set: IrqSet) -> Result<(), Errno> {
        self.port.pci.msix().set(set)
    }

    fn reset(&self) {
        self.reset_all();
    }

    /// The PF's rings lie in shared memory: nothing is served by messages.
    fn connected(self: Arc<Self>, _: Arc<RemoteDma>) {
        self.registers.connected();
    }

    fn disconnected(&self) {
        self.registers.disconnected();
        self.port.memory.clear();
        self.port.pci.msix().release();
        if self.config.reset_on_disconnect {
            self.reset_all();
        }
    }
}
