//! A small PCI function served by the crate `vfio_user`.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use vfio_bindings::bindings::vfio::{vfio_region_info, vfio_region_sparse_mmap_area};
use vfio_user::{DmaMapFlags, DmaUnmapFlags, IrqInfo, Server, ServerBackend, ServerRegion, SparseArea};

/// A register of BAR 0 that refuses to be read.
pub(crate) const REFUSED: u64 = 0x100;
/// A register of BAR 0 that ends the server when written.
pub(crate) const DIE: u64 = 0x104;

const BAR_SIZE: u64 = 0x2000;

/// What the client requested.
pub(crate) enum Event {
    DmaMap { address: u64, size: u64, file: File },
    DmaUnmap { address: u64, size: u64 },
    SetIrq { vector: u32, event: File },
    Reset,
}

struct Backend {
    config: Vec<u8>,
    bar: Vec<u8>,
    events: Sender<Event>,
    accesses: Arc<AtomicUsize>,
}

impl Backend {
    fn region(&mut self, region: u32, offset: u64, len: usize) -> io::Result<&mut [u8]> {
        self.accesses.fetch_add(1, Ordering::Relaxed);
        let memory = if region == 7 { &mut self.config } else { &mut self.bar };
        let start = offset as usize;
        memory.get_mut(start..start + len).ok_or(io::ErrorKind::InvalidInput.into())
    }
}

impl ServerBackend for Backend {
    fn region_read(&mut self, region: u32, offset: u64, data: &mut [u8]) -> io::Result<()> {
        if region == 0 && offset == REFUSED {
            return Err(io::Error::other("refused"));
        }
        data.copy_from_slice(self.region(region, offset, data.len())?);
        Ok(())
    }

    fn region_write(&mut self, region: u32, offset: u64, data: &[u8]) -> io::Result<()> {
        assert!(region != 0 || offset != DIE, "a write to DIE ends the server");
        self.region(region, offset, data.len())?.copy_from_slice(data);
        Ok(())
    }

    fn dma_map(
        &mut self,
        _: DmaMapFlags,
        _: u64,
        address: u64,
        size: u64,
        fd: Option<File>,
    ) -> io::Result<()> {
        let file = fd.ok_or(io::ErrorKind::InvalidInput)?;
        let _ = self.events.send(Event::DmaMap { address, size, file });
        Ok(())
    }

    fn dma_unmap(&mut self, _: DmaUnmapFlags, address: u64, size: u64) -> io::Result<()> {
        let _ = self.events.send(Event::DmaUnmap { address, size });
        Ok(())
    }

    fn reset(&mut self) -> io::Result<()> {
        self.config[4] = 0;
        let _ = self.events.send(Event::Reset);
        Ok(())
    }

    fn set_irqs(&mut self, _: u32, _: u32, start: u32, count: u32, mut fds: Vec<File>) -> io::Result<()> {
        assert_eq!((count, fds.len()), (1, 1));
        let _ = self.events.send(Event::SetIrq { vector: start, event: fds.remove(0) });
        Ok(())
    }
}

/// A server in its own thread. It ends with its first client.
pub(crate) struct TestServer {
    _dir: tempfile::TempDir,
    path: PathBuf,
    events: Receiver<Event>,
    accesses: Arc<AtomicUsize>,
    shared: Arc<File>,
}

impl TestServer {
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pf.sock");
        let shared = Arc::new(tempfile::tempfile().unwrap());
        shared.set_len(BAR_SIZE).unwrap();
        let irqs = (0..5).map(|index| IrqInfo { index, flags: 1, count: if index == 2 { 3 } else { 0 } });
        let server = Server::new(&path, true, irqs.collect(), regions(&shared)).unwrap();
        let (sender, events) = channel();
        let accesses = Arc::new(AtomicUsize::new(0));
        let mut backend = Backend {
            config: config_space(),
            bar: vec![0; BAR_SIZE as usize],
            events: sender,
            accesses: Arc::clone(&accesses),
        };
        let file = Arc::clone(&shared);
        std::thread::spawn(move || {
            let _ = server.run(&mut backend);
            drop(file);
        });
        Self { _dir: dir, path, events, accesses, shared }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn next_event(&self) -> Event {
        self.events.recv_timeout(Duration::from_secs(5)).expect("no request of the client")
    }

    /// How many region accesses arrived as messages.
    pub(crate) fn accesses(&self) -> usize {
        self.accesses.load(Ordering::Relaxed)
    }

    /// A word of the file behind BAR 4.
    pub(crate) fn shared_word(&self, offset: u64) -> u32 {
        let mut word = [0; 4];
        self.shared.read_exact_at(&mut word, offset).unwrap();
        u32::from_le_bytes(word)
    }
}

/// BAR 0 by message, BAR 4 mapped from its second page on, 4 KiB of configuration space.
fn regions(shared: &File) -> Vec<ServerRegion> {
    let region = |index: u32, size: u64, flags: u32| ServerRegion {
        region_info: vfio_region_info { argsz: 32, flags, index, size, ..Default::default() },
        sparse_areas: Vec::new(),
        mmap_fd: None,
    };
    let mut regions: Vec<_> = (0..9).map(|i| region(i, 0, 0)).collect();
    regions[0] = region(0, BAR_SIZE, 3);
    regions[7] = region(7, 4096, 3);
    regions[4] = region(4, BAR_SIZE, 3 | 1 << 2 | 1 << 3);
    regions[4].region_info.argsz = 32 + 16 + 16;
    regions[4].region_info.cap_offset = 32;
    regions[4].mmap_fd = Some(shared.as_raw_fd());
    let area = vfio_region_sparse_mmap_area { offset: 0x1000, size: 0x1000 };
    regions[4].sparse_areas = vec![SparseArea { area }];
    regions
}

/// Virtio identifiers, one ordinary capability that points at itself, and SR-IOV behind another extended one.
fn config_space() -> Vec<u8> {
    let mut config = vec![0; 4096];
    config[0..4].copy_from_slice(&[0xf4, 0x1a, 0x41, 0x10]);
    config[6] = 1 << 4;
    config[0x34] = 0x50;
    config[0x50..0x52].copy_from_slice(&[0x09, 0x50]);
    config[0x100..0x104].copy_from_slice(&(0x0001_u32 | 1 << 16 | 0x140 << 20).to_le_bytes());
    config[0x140..0x144].copy_from_slice(&(0x0010_u32 | 1 << 16).to_le_bytes());
    config[0x14e] = 8;
    config
}
