//! `Client`: a PCI function behind a vfio-user socket.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::connection::{Connection, Message};
use super::dma_windows::DmaWindows;
use super::space::Space;
use super::wire::{self, RegionInfo, command, u32_at};
use crate::address::FunctionAddress;
use crate::mapped::MappedArea;
use crate::registers::{Fallback, Region};
use crate::{Device, DmaBuffer, Error, Interrupt, PageKind, Registers, Result, VfHandle};
use crate::{command as command_register, dma, sriov};

/// Time limit for a reply: the device process may have to stop its queues first, on a busy host.
const LIMIT: Duration = Duration::from_secs(5);
/// Time limit for the access to a register, where other threads wait behind it.
const REGISTER_LIMIT: Duration = Duration::from_secs(1);
/// Time limit for the sockets of enabled VFs to appear.
const VFS_LIMIT: Duration = Duration::from_secs(5);

// Numbers of regions and interrupts as in Linux's vfio.h: VFIO_PCI_CONFIG_REGION_INDEX and so on.
const CONFIG_REGION: u32 = 7;
const REGIONS: u32 = 9;
const MSIX_IRQ: u32 = 2;
/// DATA_EVENTFD | ACTION_TRIGGER.
const IRQ_SET_EVENTFD: u32 = 1 << 2 | 1 << 5;
/// Largest number of MSI-X vectors (PCIe 6.0 section 7.7.2).
const MAX_VECTORS: u32 = 2048;
/// DMA_MAP flags: the device may read and write.
const DMA_READ_WRITE: u32 = 1 | 2;

/// The connection, shared with the registers of BARs.
struct Inner {
    name: String,
    connection: Arc<Mutex<Connection>>,
    limit: Duration,
    /// Time limit for the access to a register.
    register_limit: Duration,
    /// Most data that the device accepts in one message.
    max_transfer: usize,
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn request(&self, cmd: u16, body: &[&[u8]], fds: &[BorrowedFd<'_>]) -> Result<Message> {
        let is_register = matches!(cmd, command::REGION_READ | command::REGION_WRITE) && !is_config(body);
        let limit = if is_register { self.register_limit } else { self.limit };
        self.lock().request(cmd, body, fds, limit)
    }

    fn malformed(&self, cmd: u16, detail: impl Into<String>) -> Error {
        Error::Protocol { device: self.name.clone(), what: wire::name(cmd), detail: detail.into() }
    }

    fn field(&self, message: &Message, at: usize) -> Result<u32> {
        let len = message.body.len();
        let short = || self.malformed(message.header.command, format!("a reply of only {len} bytes"));
        u32_at(&message.body, at).ok_or_else(short)
    }

    fn region_read(&self, region: u32, offset: u64, data: &mut [u8]) -> Result<()> {
        for (i, part) in data.chunks_mut(self.max_transfer).enumerate() {
            let access = access(region, offset + (i * self.max_transfer) as u64, part.len());
            let reply = self.request(command::REGION_READ, &[&access], &[])?;
            let got = reply.body.get(16..).filter(|d| d.len() == part.len());
            let wrong = || self.malformed(command::REGION_READ, format!("{} bytes", reply.body.len()));
            part.copy_from_slice(got.ok_or_else(wrong)?);
        }
        Ok(())
    }

    fn region_write(&self, region: u32, offset: u64, data: &[u8]) -> Result<()> {
        for (i, part) in data.chunks(self.max_transfer).enumerate() {
            let access = access(region, offset + (i * self.max_transfer) as u64, part.len());
            self.request(command::REGION_WRITE, &[&access, part], &[])?;
        }
        Ok(())
    }

    /// Requests a region's description, again with more room if the reply did not fit.
    fn region_info(&self, index: u32) -> Result<(RegionInfo, Option<File>)> {
        let cmd = command::DEVICE_GET_REGION_INFO;
        let mut room = 32_u32;
        for _ in 0..2 {
            let mut body = vec![0; 32];
            body[0..4].copy_from_slice(&room.to_le_bytes());
            body[8..12].copy_from_slice(&index.to_le_bytes());
            let reply = self.request(cmd, &[&body], &[])?;
            let info = RegionInfo::decode(&reply.body)
                .ok_or_else(|| self.malformed(cmd, format!("description of region {index}")))?;
            if info.argsz <= room || info.argsz as usize <= reply.body.len() {
                return Ok((info, reply.fds.into_iter().next().map(File::from)));
            }
            room = info.argsz.min(wire::MAX_TRANSFER);
        }
        Err(self.malformed(cmd, format!("description of region {index} keeps growing")))
    }
}

/// A region that is read and written by messages.
struct MessageRegion {
    inner: Arc<Inner>,
    region: u32,
}

impl Fallback for MessageRegion {
    fn thing(&self) -> String {
        format!("{}: BAR{}", self.inner.name, self.region)
    }

    fn read(&self, offset: u64, data: &mut [u8]) -> Result<()> {
        self.inner.region_read(self.region, offset, data)
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.inner.region_write(self.region, offset, data)
    }
}

/// A PCI function behind a vfio-user socket.
///
/// Dropping it and its registers closes the connection. The device then resets the function.
pub struct Client {
    inner: Arc<Inner>,
    path: PathBuf,
    config_size: u64,
    vectors: u16,
    interrupts: Mutex<Vec<(u16, Interrupt)>>,
    space: Arc<Space>,
    windows: Arc<DmaWindows>,
    /// Whether DMA memory is left unsealed.
    unsealed: bool,
}

impl Client {
    /// Connects to a function and turns on its memory access and bus mastering.
    ///
    /// # Errors
    /// [`Error::Connect`] if no process listens there; [`Error::Timeout`] if the device serves another client or hangs.
    pub fn connect(path: &Path) -> Result<Self> {
        Self::connect_within(path, LIMIT)
    }

    /// As [`Client::connect`], with a time limit for each reply.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub fn connect_within(path: &Path, limit: Duration) -> Result<Self> {
        Self::connect_with(path, limit, limit)
    }

    /// As [`Client::connect`], but an access to a register fails after a second.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub fn connect_impatient(path: &Path) -> Result<Self> {
        Self::connect_with(path, LIMIT, REGISTER_LIMIT)
    }

    fn connect_with(path: &Path, limit: Duration, register_limit: Duration) -> Result<Self> {
        let windows = Arc::new(DmaWindows::default());
        let connection = Arc::new(Mutex::new(Connection::open(path, limit, Arc::clone(&windows))?));
        let space = Space {
            iovas: Default::default(),
            windows: Arc::clone(&windows),
            connection: Arc::downgrade(&connection),
            limit,
        };
        let mut inner =
            Inner { name: path.display().to_string(), connection, limit, register_limit, max_transfer: 0 };
        inner.max_transfer = negotiate(&inner)?;
        let info = inner.request(command::DEVICE_GET_INFO, &[&16_u32.to_le_bytes(), &[0; 12]], &[])?;
        if inner.field(&info, 8)? <= CONFIG_REGION {
            return Err(inner.malformed(command::DEVICE_GET_INFO, "not a PCI device"));
        }
        let (config, _) = inner.region_info(CONFIG_REGION)?;
        let mut irq = [0; 16];
        irq[0] = 16;
        irq[8..12].copy_from_slice(&MSIX_IRQ.to_le_bytes());
        let irq = inner.request(command::DEVICE_GET_IRQ_INFO, &[&irq], &[])?;
        let vectors = inner.field(&irq, 12)?.min(MAX_VECTORS) as u16;
        let client = Self {
            inner: Arc::new(inner),
            path: path.into(),
            config_size: config.size,
            vectors,
            interrupts: Mutex::default(),
            space: Arc::new(space),
            windows,
            unsealed: false,
        };
        command_register::enable(&client)?;
        Ok(client)
    }

    /// Leaves DMA memory unsealed, as a VMM may: the test of a device cuts its file.
    #[must_use]
    pub fn with_unsealed_memory(self) -> Self {
        Client { unsealed: true, ..self }
    }

    /// Serves the device's requests (DMA_READ, DMA_WRITE) that have arrived since the client's last request. Only devices
    /// that do not map the memory's file send them.
    ///
    /// # Errors
    /// The device is lost.
    pub fn serve_pending(&self) -> Result<()> {
        self.inner.lock().serve_pending()
    }

    fn set_irq(&self, vector: u16, interrupt: &Interrupt) -> Result<()> {
        let fields = [20, IRQ_SET_EVENTFD, MSIX_IRQ, u32::from(vector), 1];
        let body: Vec<u8> = fields.iter().flat_map(|f| f.to_le_bytes()).collect();
        self.inner.request(command::DEVICE_SET_IRQS, &[&body], &[interrupt.as_fd()])?;
        Ok(())
    }

    fn check_config(&self, offset: u16, len: usize) -> Result<()> {
        if u64::from(offset) + len as u64 <= self.config_size {
            return Ok(());
        }
        let thing = format!("{}: configuration space", self.inner.name);
        Err(Error::OutOfRange { thing, offset: offset.into(), len: len as u64, size: self.config_size })
    }
}

/// Whether a region access is one to configuration space, which starts and stops whole functions.
fn is_config(body: &[&[u8]]) -> bool {
    body.first().and_then(|access| u32_at(access, 8)) == Some(CONFIG_REGION)
}

/// The begin of REGION_READ and REGION_WRITE: offset, region and count.
fn access(region: u32, offset: u64, count: usize) -> [u8; 16] {
    let mut body = [0; 16];
    body[0..8].copy_from_slice(&offset.to_le_bytes());
    body[8..12].copy_from_slice(&region.to_le_bytes());
    body[12..16].copy_from_slice(&(count as u32).to_le_bytes());
    body
}

/// Agrees on version 0.1. Returns the most data that the device accepts in one message.
fn negotiate(inner: &Inner) -> Result<usize> {
    let capabilities = serde_json::json!({"capabilities": {
        "max_msg_fds": wire::MAX_FDS,
        "max_data_xfer_size": wire::MAX_TRANSFER,
    }});
    let (major, minor) = (0_u16, 1_u16);
    let text = format!("{capabilities}\0");
    let body: [&[u8]; 3] = [&major.to_le_bytes(), &minor.to_le_bytes(), text.as_bytes()];
    let reply = inner.request(command::VERSION, &body, &[])?;
    let version = inner.field(&reply, 0)?;
    if version & 0xffff != 0 {
        return Err(inner.malformed(command::VERSION, format!("major version {}, not 0", version & 0xffff)));
    }
    let text = reply.body.get(4..).unwrap_or_default();
    let text = text.strip_suffix(&[0]).unwrap_or(text);
    let reply: serde_json::Value = serde_json::from_slice(text).unwrap_or_default();
    let transfer = reply["capabilities"]["max_data_xfer_size"].as_u64();
    let transfer = transfer.unwrap_or(u64::from(wire::MAX_TRANSFER)).clamp(8, u64::from(wire::MAX_TRANSFER));
    Ok(transfer as usize)
}

impl Device for Client {
    fn name(&self) -> &str {
        &self.inner.name
    }

    fn config_read(&self, offset: u16, data: &mut [u8]) -> Result<()> {
        self.check_config(offset, data.len())?;
        self.inner.region_read(CONFIG_REGION, offset.into(), data)
    }

    fn config_write(&self, offset: u16, data: &[u8]) -> Result<()> {
        self.check_config(offset, data.len())?;
        self.inner.region_write(CONFIG_REGION, offset.into(), data)
    }

    fn bar(&self, n: u8) -> Result<Box<dyn Registers>> {
        let missing = || Error::Missing { device: self.inner.name.clone(), what: format!("BAR{n}") };
        if u32::from(n) >= CONFIG_REGION.min(REGIONS) - 1 {
            return Err(missing());
        }
        let (mut info, file) = self.inner.region_info(n.into())?;
        if info.size == 0 {
            return Err(missing());
        }
        let mut areas = Vec::new();
        if info.flags & wire::REGION_FLAG_MMAP != 0
            && let Some(file) = file
        {
            if info.areas.is_empty() {
                info.areas.push((0, info.size));
            }
            for (start, len) in info.areas {
                let inside = start.checked_add(len).is_some_and(|end| end <= info.size) && len > 0;
                let place = info.file_offset.checked_add(start).filter(|_| inside);
                let (Some(place), Ok(len)) = (place, usize::try_from(len)) else {
                    let detail = format!("BAR{n} of {:#x} bytes with an area at {start:#x}", info.size);
                    return Err(self.inner.malformed(command::DEVICE_GET_REGION_INFO, detail));
                };
                areas.push((start, MappedArea::new(&file, place, len)?));
            }
        }
        let fallback = MessageRegion { inner: Arc::clone(&self.inner), region: n.into() };
        Ok(Box::new(Region { size: info.size, areas, fallback }))
    }

    fn alloc_dma_in(&self, len: usize, pages: PageKind) -> Result<DmaBuffer> {
        let allocate = if self.unsealed { dma::allocate_unsealed } else { dma::allocate };
        let memory = Arc::new(allocate(len, pages)?);
        let full = || Error::Memory { len, problem: "the device's address space is full".into() };
        let iova = self.space.iovas.allocate(memory.len()).ok_or_else(full)?;
        let mut body = Vec::with_capacity(32);
        body.extend(32_u32.to_le_bytes());
        body.extend(DMA_READ_WRITE.to_le_bytes());
        body.extend(0_u64.to_le_bytes());
        body.extend(iova.to_le_bytes());
        body.extend((memory.len() as u64).to_le_bytes());
        let mapped = self.inner.request(command::DMA_MAP, &[&body], &[memory.file().as_fd()]);
        if let Err(e) = mapped {
            // After a time-out the device may still map the memory: the address is not reused.
            if matches!(e, Error::Refused { .. }) {
                self.space.iovas.release(iova);
            }
            return Err(e);
        }
        self.windows.insert(iova, Arc::clone(&memory));
        Ok(DmaBuffer::mapped(memory, iova, Arc::clone(&self.space) as _))
    }

    fn interrupt_count(&self) -> u16 {
        self.vectors
    }

    fn interrupt(&self, vector: u16) -> Result<Interrupt> {
        if vector >= self.vectors {
            let thing = format!("{}: MSI-X vector", self.inner.name);
            return Err(Error::OutOfRange {
                thing,
                offset: vector.into(),
                len: 1,
                size: self.vectors.into(),
            });
        }
        let mut interrupts = self.interrupts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, interrupt)) = interrupts.iter().find(|(v, _)| *v == vector) {
            return Ok(interrupt.clone());
        }
        let interrupt = Interrupt::new()?;
        self.set_irq(vector, &interrupt)?;
        interrupts.push((vector, interrupt.clone()));
        Ok(interrupt)
    }

    fn reset(&self) -> Result<()> {
        self.inner.request(command::DEVICE_RESET, &[], &[])?;
        // The protocol leaves open whether interrupts survive a reset.
        for (vector, interrupt) in self.interrupts.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            self.set_irq(*vector, interrupt)?;
        }
        command_register::enable(self)
    }

    fn close(&self) {
        self.inner.lock().close("closed by the driver");
    }

    fn enable_vfs(&self, n: u16) -> Result<Vec<VfHandle>> {
        sriov::set_num_vfs(self, n)?;
        let deadline = Instant::now() + VFS_LIMIT;
        let mut handles = Vec::with_capacity(n.into());
        for index in 0..n {
            let path = vf_socket(&self.path, index);
            while !path.exists() {
                if Instant::now() > deadline {
                    let (device, request) = (self.inner.name.clone(), "VF Enable (no socket appeared)");
                    return Err(Error::Timeout { device, request, limit: VFS_LIMIT });
                }
                std::thread::sleep(Duration::from_millis(2));
            }
            handles.push(VfHandle { index, address: FunctionAddress::Socket(path) });
        }
        Ok(handles)
    }
}

/// The socket of a VF: the PF's path with `.vf<N>` appended.
fn vf_socket(pf: &Path, index: u16) -> PathBuf {
    let mut path = pf.as_os_str().to_os_string();
    path.push(format!(".vf{index}"));
    path.into()
}
