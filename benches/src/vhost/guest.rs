//! A guest without a VM: the front end of the `vhost` crate, and a poll-mode driver with one pair of rings.

use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vhost::vhost_user::message::VhostUserHeaderFlag;
use vhost::vhost_user::{Frontend, VhostUserFrontend, VhostUserProtocolFeatures};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};

use super::ring::{self, AVAILABLE, Receive, Ring, SIZE, Transmit, USED};
use crate::shared_memory::SharedMemory;

/// `VIRTIO_NET_F_MRG_RXBUF` and `VIRTIO_F_VERSION_1`, as DPDK's and Linux's drivers take them; no offloads and no event
/// index, as DPDK's does not.
const FEATURES: u64 = 1 << 15 | 1 << 32;
/// `VHOST_USER_F_PROTOCOL_FEATURES`.
const PROTOCOL: u64 = 1 << 30;
/// Length of the virtio-net header (virtio 1.2, 5.1.6).
pub const HEADER: usize = 12;
/// The guest's address of its memory.
const BASE: u64 = 1 << 32;
/// Limit for the connection to a socket.
const LIMIT: Duration = Duration::from_secs(10);

/// The guest.
pub struct Guest {
    /// Dropped first: the switch must not use the memory afterwards.
    frontend: Option<Frontend>,
    memory: Arc<SharedMemory>,
    /// Its transmit ring.
    pub transmit: Transmit,
    /// Its receive ring.
    pub receive: Receive,
}

impl Guest {
    /// A guest without a connection.
    ///
    /// # Errors
    /// Out of memory or file descriptors.
    pub fn new() -> Result<Self, String> {
        let memory =
            Arc::new(SharedMemory::new(2 * ring::LEN).map_err(|e| format!("a guest's memory: {e}"))?);
        let ring = |n: usize| Ring::new(&memory, n * ring::LEN, BASE).map_err(|e| format!("a ring: {e}"));
        let (receive, transmit) = (Receive::new(ring(0)?), Transmit::new(ring(1)?));
        Ok(Guest { frontend: None, memory, transmit, receive })
    }

    /// A guest connected to the vhost-user port at a path.
    ///
    /// # Errors
    /// No switch listens there, or it refuses a request.
    pub fn connected(path: &Path) -> Result<Self, String> {
        let mut guest = Guest::new()?;
        let end = Instant::now() + LIMIT;
        let mut frontend = loop {
            match Frontend::connect(path, 2) {
                Ok(frontend) => break frontend,
                Err(error) if Instant::now() > end => return Err(format!("{}: {error}", path.display())),
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        };
        guest.set_up(&mut frontend).map_err(|e| format!("{}: {e}", path.display()))?;
        guest.frontend = Some(frontend);
        Ok(guest)
    }

    fn set_up(&self, frontend: &mut Frontend) -> Result<(), vhost::Error> {
        frontend.set_owner()?;
        let offered = frontend.get_features()?;
        frontend.set_features((FEATURES | PROTOCOL) & offered)?;
        let protocol = frontend.get_protocol_features()? & VhostUserProtocolFeatures::REPLY_ACK;
        frontend.set_protocol_features(protocol)?;
        frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        frontend.set_mem_table(&[VhostUserMemoryRegionInfo {
            guest_phys_addr: BASE,
            memory_size: self.memory.size() as u64,
            userspace_addr: self.memory.address(),
            mmap_offset: 0,
            mmap_handle: self.memory.file().as_raw_fd(),
        }])?;
        for (n, ring) in [&self.receive.ring, &self.transmit.ring].into_iter().enumerate() {
            let at = self.memory.address() + (n * ring::LEN) as u64;
            frontend.set_vring_num(n, SIZE)?;
            frontend.set_vring_base(n, 0)?;
            frontend.set_vring_addr(
                n,
                &VringConfigData {
                    queue_max_size: SIZE,
                    queue_size: SIZE,
                    flags: 0,
                    desc_table_addr: at,
                    used_ring_addr: at + USED as u64,
                    avail_ring_addr: at + AVAILABLE as u64,
                    log_addr: None,
                },
            )?;
            frontend.set_vring_call(n, &ring.call)?;
            frontend.set_vring_kick(n, &ring.kick)?;
            frontend.set_vring_enable(n, true)?;
        }
        Ok(())
    }

    /// Writes the same bytes to the beginning of all transmit buffers.
    pub fn write_buffers(&self, bytes: &[u8]) {
        (0..SIZE).for_each(|index| self.memory.write(self.transmit.ring.buffer(index), bytes));
    }

    /// Acts as a device without cost: takes all sent frames and fills all receive buffers.
    pub fn serve(&self, len: usize) {
        self.transmit.ring.serve(0);
        self.receive.ring.serve((HEADER + len) as u32);
    }
}
