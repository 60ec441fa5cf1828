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
use crate::{Device, DmaBuffer, Error, Interrupt, PageKind, Registers, Result, VfHandle, command, dma};

/// Largest number of enabled vectors: the kernel takes all at once, and each costs a file descriptor.
const MAX_VECTORS: u32 = 256;

/// The IOMMU's address space for this function.
struct Space {
    container: Arc<VfioContainer>,
    iovas: IovaSpace,
}

impl DmaSpace for Space {
    fn unmap(&self, iova: u64, len: usize) {
        // If the kernel does not unmap the range, its address is never allocated again.
        if self.container.vfio_dma_unmap(iova, len).is_ok() {
            self.iovas.release(iova);
        }
    }
}

/// A PCI function of this host.
///
/// Dropping it and its registers closes the function's file. The kernel then resets the function and, if it is a PF, its
/// VFs.
pub struct Function {
    sysfs: Sysfs,
    device: VfioDevice,
    /// A duplicate of the device's file: its reads and writes report errors, and registers may outlive `self`.
    file: Arc<File>,
    space: Arc<Space>,
    interrupts: Mutex<Vec<Interrupt>>,
    vectors: u16,
}

impl Function {
    /// Opens the function with this PCI address and turns on its memory access and bus mastering.
    ///
    /// # Errors
    /// [`Error::Open`] names the missing IOMMU, driver or permission.
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
            vectors: vectors.min(MAX_VECTORS) as u16,
        };
        command::enable(&function)?;
        Ok(function)
    }

    fn config(&self) -> FileRegion {
        self.region(VFIO_PCI_CONFIG_REGION_INDEX)
    }

    fn region(&self, index: u32) -> FileRegion {
        let thing = match index {
            VFIO_PCI_CONFIG_REGION_INDEX => format!("{}: configuration space", self.sysfs.bdf()),
            bar => format!("{}: BAR{bar}", self.sysfs.bdf()),
        };
        let (size, offset) = (self.device.get_region_size(index), self.device.get_region_offset(index));
        FileRegion { thing, file: Arc::clone(&self.file), size, offset }
    }

    /// The areas of a BAR that can be mapped: all of it, except the MSI-X table in old kernels.
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

/// A region that is read and written through the device's file.
struct FileRegion {
    thing: String,
    file: Arc<File>,
    size: u64,
    offset: u64,
}

impl FileRegion {
    fn place(&self, offset: u64, len: usize) -> Result<u64> {
        let len = len as u64;
        let inside = offset.checked_add(len).is_some_and(|end| end <= self.size);
        let outside = || Error::OutOfRange { thing: self.thing.clone(), offset, len, size: self.size };
        inside.then(|| self.offset + offset).ok_or_else(outside)
    }
}

impl Fallback for FileRegion {
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
        let full = || Error::Memory { len, problem: "the IOMMU's address space is full".into() };
        let iova = self.space.iovas.allocate(memory.len()).ok_or_else(full)?;
        // SAFETY: the memory stays mapped at this address until the buffer's last clone is dropped, which unmaps it from
        // the IOMMU first; the driver reads the device's writes only through atomics.
        let mapped = unsafe { self.space.container.vfio_dma_map(iova, memory.len(), memory.address()) };
        if let Err(e) = mapped {
            self.space.iovas.release(iova);
            let problem = format!("{e}: raise the limit on locked memory (ulimit -l) if it is too low");
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
            // Enables all vectors in one call: only recent kernels accept more of them later.
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
        command::enable(self)
    }

    fn enable_vfs(&self, n: u16) -> Result<Vec<VfHandle>> {
        self.sysfs.set_num_vfs(n)
    }
}
