//! `Function`: a PCI function opened through `/dev/vfio`.

use std::fs::File;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use vfio_bindings::bindings::vfio::{
    VFIO_PCI_CONFIG_REGION_INDEX, VFIO_PCI_MSIX_IRQ_INDEX, VFIO_REGION_INFO_FLAG_MMAP,
};
use vfio_ioctls::{VfioContainer, VfioDevice, VfioRegionInfoCap};
use vmm_sys_util::eventfd::EventFd;

use super::sysfs::Sysfs;
use crate::dma::DmaSpace;
use crate::iova::IovaSpace;
use crate::mapped::MappedArea;
use crate::registers::{Fallback, Region};
use crate::{Device, DmaBuffer, Error, Interrupt, PageKind, Registers, Result, VfHandle, dma};

const COMMAND: u16 = 4;
/// Memory space and bus master.
const COMMAND_ENABLE: u16 = 1 << 1 | 1 << 2;
/// The most vectors that are enabled: the kernel takes them all at once and each costs an event.
const MOST_VECTORS: u32 = 256;

/// The IOMMU's address space for this function.
struct Space {
    container: Arc<VfioContainer>,
    iovas: IovaSpace,
}

impl DmaSpace for Space {
    fn unmap(&self, iova: u64, len: usize) {
        // Where the kernel does not let go, the address is not given out again.
        if self.container.vfio_dma_unmap(iova, len).is_ok() {
            self.iovas.release(iova);
        }
    }
}

/// A PCI function of this machine.
///
/// Dropping it, and the registers got from it, closes the function's file, whereupon the kernel resets the function
/// and, if it is a PF, its VFs.
pub struct Function {
    sysfs: Sysfs,
    device: VfioDevice,
    /// The device's file once more: for reads and writes that report errors, and to outlive `self` in registers.
    file: Arc<File>,
    space: Arc<Space>,
    interrupts: Mutex<Vec<Interrupt>>,
    vectors: u16,
}

impl Function {
    /// Opens the function with this PCI address and turns on its memory access and bus mastering.
    ///
    /// # Errors
    /// [`Error::Open`] with what is missing: the IOMMU, the driver vfio-pci, a permission.
    pub fn open(bdf: &str) -> Result<Self> {
        Self::open_under(bdf, Path::new("/sys"), Path::new("/dev"))
    }

    pub(super) fn open_under(bdf: &str, sys: &Path, dev: &Path) -> Result<Self> {
        let sysfs = Sysfs::new(bdf, sys, dev)?;
        sysfs.check()?;
        let refused = |e: vfio_ioctls::VfioError| Error::Open {
            device: sysfs.bdf().into(),
            problem: e.to_string(),
            remedy: "all functions of its IOMMU group must be bound to vfio-pci and not in use",
        };
        let container = Arc::new(VfioContainer::new(None).map_err(refused)?);
        let device = VfioDevice::new(sysfs.dir(), container.clone(), true).map_err(refused)?;
        // SAFETY: the descriptor is the device's own and open for the length of this borrow.
        let fd = unsafe { BorrowedFd::borrow_raw(device.as_raw_fd()) };
        let file = fd.try_clone_to_owned().map_err(|e| Error::system(format!("{bdf}: dup"), e))?;
        let vectors = device.get_irq_info(VFIO_PCI_MSIX_IRQ_INDEX).map_or(0, |irq| irq.count);
        let function = Self {
            sysfs,
            device,
            file: Arc::new(file.into()),
            space: Arc::new(Space { container, iovas: IovaSpace::default() }),
            interrupts: Mutex::default(),
            vectors: vectors.min(MOST_VECTORS) as u16,
        };
        function.enable()?;
        Ok(function)
    }

    fn enable(&self) -> Result<()> {
        let command = self.config_u16(COMMAND)?;
        self.config_write_u16(COMMAND, command | COMMAND_ENABLE)
    }

    fn config(&self) -> ByFile {
        self.region(VFIO_PCI_CONFIG_REGION_INDEX)
    }

    fn region(&self, index: u32) -> ByFile {
        let thing = match index {
            VFIO_PCI_CONFIG_REGION_INDEX => format!("{}: configuration space", self.sysfs.bdf()),
            bar => format!("{}: BAR{bar}", self.sysfs.bdf()),
        };
        let (size, offset) = (self.device.get_region_size(index), self.device.get_region_offset(index));
        ByFile { thing, file: Arc::clone(&self.file), size, offset }
    }

    /// The parts of a BAR that may be mapped: all but, in old kernels, the MSI-X table.
    fn mappable(&self, bar: u32, size: u64) -> Vec<(u64, u64)> {
        if self.device.get_region_flags(bar) & VFIO_REGION_INFO_FLAG_MMAP == 0 {
            return Vec::new();
        }
        let sparse = self.device.get_region_caps(bar).into_iter().find_map(|cap| match cap {
            VfioRegionInfoCap::SparseMmap(sparse) => Some(sparse.areas),
            _ => None,
        });
        sparse.map_or(vec![(0, size)], |areas| areas.iter().map(|a| (a.offset, a.size)).collect())
    }
}

/// A region through the device's file.
struct ByFile {
    thing: String,
    file: Arc<File>,
    size: u64,
    offset: u64,
}

impl ByFile {
    fn place(&self, offset: u64, len: usize) -> Result<u64> {
        let len = len as u64;
        let inside = offset.checked_add(len).is_some_and(|end| end <= self.size);
        let outside = || Error::OutOfRange { thing: self.thing.clone(), offset, len, size: self.size };
        inside.then(|| self.offset + offset).ok_or_else(outside)
    }
}

impl Fallback for ByFile {
    fn thing(&self) -> String {
        self.thing.clone()
    }

    fn read(&self, offset: u64, data: &mut [u8]) -> Result<()> {
        let place = self.place(offset, data.len())?;
        self.file.read_exact_at(data, place).map_err(|e| Error::system(format!("reading {}", self.thing), e))
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        let place = self.place(offset, data.len())?;
        self.file.write_all_at(data, place).map_err(|e| Error::system(format!("writing {}", self.thing), e))
    }
}

impl Device for Function {
    fn name(&self) -> &str {
        self.sysfs.bdf()
    }

    fn config_read(&self, offset: u16, data: &mut [u8]) -> Result<()> {
        self.config().read(offset.into(), data)
    }

    fn config_write(&self, offset: u16, data: &[u8]) -> Result<()> {
        self.config().write(offset.into(), data)
    }

    fn bar(&self, n: u8) -> Result<Box<dyn Registers>> {
        let fallback = self.region(n.into());
        let size = fallback.size;
        if n > 5 || size == 0 {
            return Err(Error::Missing { device: self.sysfs.bdf().into(), what: format!("BAR{n}") });
        }
        let areas = self.mappable(n.into(), size).into_iter().map(|(start, len)| {
            let place = self.device.get_region_offset(n.into()) + start;
            Ok((start, MappedArea::new(&self.file, place, len as usize)?))
        });
        Ok(Box::new(Region { size, areas: areas.collect::<Result<_>>()?, fallback }))
    }

    fn alloc_dma_in(&self, len: usize, pages: PageKind) -> Result<DmaBuffer> {
        let memory = Arc::new(dma::allocate(len, pages)?);
        let none = || Error::Memory { len, problem: "the IOMMU's address space is used up".into() };
        let iova = self.space.iovas.take(memory.len()).ok_or_else(none)?;
        // SAFETY: the memory stays mapped at this address until the buffer's last clone is dropped, which takes it
        // from the IOMMU first; the device's writes are then only seen through atomics.
        let mapped = unsafe { self.space.container.vfio_dma_map(iova, memory.len(), memory.address()) };
        if let Err(e) = mapped {
            self.space.iovas.release(iova);
            let problem = format!("{e}: is the limit on locked memory (ulimit -l) too low?");
            return Err(Error::Memory { len, problem });
        }
        Ok(DmaBuffer::mapped(memory, iova, Arc::clone(&self.space) as _))
    }

    fn interrupt_count(&self) -> u16 {
        self.vectors
    }

    fn interrupt(&self, vector: u16) -> Result<Interrupt> {
        let mut interrupts = self.interrupts.lock().unwrap_or_else(PoisonError::into_inner);
        if interrupts.is_empty() {
            // The kernel takes all vectors in one call, and more of them later only in recent versions.
            let mut all = Vec::with_capacity(self.vectors.into());
            let mut events = Vec::with_capacity(self.vectors.into());
            for _ in 0..self.vectors {
                let interrupt = Interrupt::new()?;
                let fd = std::os::fd::AsFd::as_fd(&interrupt).try_clone_to_owned();
                let fd = fd.map_err(|e| Error::system(format!("{}: dup", self.sysfs.bdf()), e))?;
                // SAFETY: the descriptor is an eventfd that nothing else owns.
                events.push(unsafe { EventFd::from_raw_fd(fd.into_raw_fd()) });
                all.push(interrupt);
            }
            self.device.enable_msix(events.iter().collect()).map_err(|e| Error::Refused {
                device: self.sysfs.bdf().into(),
                request: format!("{} MSI-X vectors", self.vectors),
                source: std::io::Error::other(e.to_string()),
            })?;
            *interrupts = all;
        }
        interrupts.get(usize::from(vector)).cloned().ok_or_else(|| {
            let thing = format!("{}: MSI-X vector", self.sysfs.bdf());
            Error::OutOfRange { thing, offset: vector.into(), len: 1, size: self.vectors.into() }
        })
    }

    fn reset(&self) -> Result<()> {
        self.device.reset();
        self.enable()
    }

    fn enable_vfs(&self, n: u16) -> Result<Vec<VfHandle>> {
        self.sysfs.set_num_vfs(n)
    }
}
