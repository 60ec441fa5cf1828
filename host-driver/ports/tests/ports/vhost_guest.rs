//! A VMM and its guest's driver, for tests: the front end of the `vhost` crate, and vrings in memory files.

use std::collections::VecDeque;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::atomic::{Ordering, fence};

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use vhost::vhost_user::message::VhostUserHeaderFlag;
use vhost::vhost_user::{Frontend, VhostUserFrontend, VhostUserProtocolFeatures};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vm_memory::{Bytes, FileOffset, MmapRegion, VolatileMemory};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

pub(crate) const CSUM: u64 = 1;
pub(crate) const GUEST_CSUM: u64 = 1 << 1;
pub(crate) const GUEST_TSO: u64 = 1 << 7 | 1 << 8;
pub(crate) const HOST_TSO: u64 = 1 << 11 | 1 << 12;
pub(crate) const MERGEABLE: u64 = 1 << 15;
pub(crate) const INDIRECT: u64 = 1 << 28;
pub(crate) const EVENT_IDX: u64 = 1 << 29;
const PROTOCOL: u64 = 1 << 30;
pub(crate) const VERSION_1: u64 = 1 << 32;
pub(crate) const USO: u64 = 1 << 54 | 1 << 55 | 1 << 56;

/// Length of a header.
pub(crate) const HEADER: usize = 12;
/// Descriptors of a ring.
pub(crate) const SIZE: u16 = 256;
/// Bytes of one descriptor's buffer.
const BUFFER: usize = 2048;

/// Flags of descriptors.
pub(crate) const NEXT: u16 = 1;
pub(crate) const WRITE: u16 = 2;
pub(crate) const TABLE: u16 = 4;

/// A part of the guest's memory, of which guest, VMM and file each have their own addresses.
pub(crate) struct Area {
    pub(crate) file: File,
    map: MmapRegion,
    /// The guest's address.
    pub(crate) guest: u64,
    user: u64,
    len: usize,
}

/// Where in a file an area begins.
const OFFSET: usize = 8192;

impl Area {
    fn new(guest: u64, user: u64, len: usize) -> Self {
        let file = File::from(memfd_create("guest", MemfdFlags::CLOEXEC).unwrap());
        ftruncate(&file, (OFFSET + len) as u64).unwrap();
        let shared = FileOffset::new(file.try_clone().unwrap(), OFFSET as u64);
        Area { file, map: MmapRegion::from_file(shared, len).unwrap(), guest, user, len }
    }

    pub(crate) fn write(&self, at: usize, bytes: &[u8]) {
        self.map.as_volatile_slice().write_slice(bytes, at).unwrap();
    }

    pub(crate) fn read(&self, at: usize, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.map.as_volatile_slice().read_slice(&mut bytes, at).unwrap();
        bytes
    }

    pub(crate) fn load(&self, at: usize) -> u16 {
        self.map.as_volatile_slice().load(at, Ordering::Acquire).unwrap()
    }

    pub(crate) fn store(&self, at: usize, word: u16) {
        self.map.as_volatile_slice().store(word, at, Ordering::Release).unwrap();
    }

    fn info(&self) -> VhostUserMemoryRegionInfo {
        VhostUserMemoryRegionInfo {
            guest_phys_addr: self.guest,
            memory_size: self.len as u64,
            userspace_addr: self.user,
            mmap_offset: OFFSET as u64,
            mmap_handle: self.file.as_raw_fd(),
        }
    }
}

/// Bytes of a ring's three parts, and where the second and third begin.
const RING: usize = 0x8000;
const AVAILABLE: usize = 0x2000;
const USED: usize = 0x4000;

/// The driver's side of a ring.
pub(crate) struct Ring {
    /// Offset in the area of rings.
    pub(crate) at: usize,
    /// Offset of its buffers in the area of buffers.
    buffers: usize,
    /// Next entry of the available ring.
    pub(crate) next: u16,
    /// Next descriptor.
    tail: u16,
    /// Number of descriptors of each chain that was sent and is not used yet.
    in_flight: VecDeque<u16>,
    /// Next entry of the used ring.
    seen: u16,
    pub(crate) kick: EventFd,
    pub(crate) call: EventFd,
}

/// The guest.
pub(crate) struct Guest {
    pub(crate) rings: Vec<Ring>,
    pub(crate) ring_area: Area,
    pub(crate) buffer_area: Area,
    pub(crate) features: u64,
    /// Kicks that the device wanted.
    pub(crate) kicks: u64,
}

impl Guest {
    /// One with this many pairs of rings. Receive buffers are posted.
    pub(crate) fn new(pairs: usize, features: u64) -> Self {
        let eventfd = || EventFd::new(EFD_NONBLOCK).unwrap();
        let ring = |n: usize| Ring {
            at: n * RING,
            buffers: n * usize::from(SIZE) * BUFFER,
            next: 0,
            tail: 0,
            in_flight: VecDeque::new(),
            seen: 0,
            kick: eventfd(),
            call: eventfd(),
        };
        let rings: Vec<Ring> = (0..2 * pairs).map(ring).collect();
        let (ring_len, buffer_len) = (rings.len() * RING, rings.len() * usize::from(SIZE) * BUFFER);
        let mut guest = Guest {
            rings,
            ring_area: Area::new(0x10_0000, 0x7f00_0000_0000, ring_len),
            buffer_area: Area::new(1 << 32, 0x7e00_0000_0000, buffer_len),
            features: features | VERSION_1,
            kicks: 0,
        };
        for n in (0..2 * pairs).step_by(2) {
            for _ in 0..SIZE {
                guest.post(n);
            }
        }
        guest
    }

    /// Connects to the port at a path, and sets up memory and vrings. Another thread must use the port meanwhile.
    pub(crate) fn connect(&self, path: &Path) -> Frontend {
        let mut frontend = self.negotiate(path);
        self.share_memory(&frontend);
        for n in 0..self.rings.len() {
            self.set_ring(&mut frontend, n, 0);
        }
        frontend
    }

    /// Connects, and negotiates features.
    pub(crate) fn negotiate(&self, path: &Path) -> Frontend {
        let mut frontend = Frontend::connect(path, 256).unwrap();
        frontend.set_owner().unwrap();
        let offered = frontend.get_features().unwrap();
        assert_eq!(self.features & !offered, 0, "all is offered");
        frontend.set_features(self.features | PROTOCOL).unwrap();
        let protocol = frontend.get_protocol_features().unwrap();
        assert!(protocol.contains(VhostUserProtocolFeatures::MQ | VhostUserProtocolFeatures::REPLY_ACK));
        frontend.set_protocol_features(protocol).unwrap();
        frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        frontend
    }

    pub(crate) fn share_memory(&self, frontend: &Frontend) {
        frontend.set_mem_table(&[self.ring_area.info(), self.buffer_area.info()]).unwrap();
    }

    /// The addresses of a vring.
    pub(crate) fn addresses(&self, n: usize) -> VringConfigData {
        let at = self.ring_area.user + self.rings[n].at as u64;
        VringConfigData {
            queue_max_size: SIZE,
            queue_size: SIZE,
            flags: 0,
            desc_table_addr: at,
            used_ring_addr: at + USED as u64,
            avail_ring_addr: at + AVAILABLE as u64,
            log_addr: None,
        }
    }

    pub(crate) fn set_ring(&self, frontend: &mut Frontend, n: usize, base: u16) {
        frontend.set_vring_num(n, SIZE).unwrap();
        frontend.set_vring_base(n, base).unwrap();
        frontend.set_vring_addr(n, &self.addresses(n)).unwrap();
        frontend.set_vring_kick(n, &self.rings[n].kick).unwrap();
        frontend.set_vring_call(n, &self.rings[n].call).unwrap();
        frontend.set_vring_enable(n, true).unwrap();
    }

    /// Writes a descriptor of a ring.
    pub(crate) fn describe(&self, n: usize, index: u16, address: u64, len: u32, flags: u16, next: u16) {
        let bytes = descriptor(address, len, flags, next);
        self.ring_area.write(self.rings[n].at + 16 * usize::from(index), &bytes);
    }

    /// Makes chains available that begin with these descriptors.
    pub(crate) fn make_available(&mut self, n: usize, heads: &[u16]) {
        let at = self.rings[n].at + AVAILABLE;
        for head in heads {
            let slot = usize::from(self.rings[n].next % SIZE);
            self.ring_area.write(at + 4 + 2 * slot, &head.to_le_bytes());
            self.rings[n].next = self.rings[n].next.wrapping_add(1);
        }
        self.set_available(n, self.rings[n].next);
        self.kick(n);
    }

    /// Sets the available index.
    pub(crate) fn set_available(&self, n: usize, index: u16) {
        self.ring_area.store(self.rings[n].at + AVAILABLE + 2, index);
    }

    /// The device's used index.
    pub(crate) fn used(&self, n: usize) -> u16 {
        self.ring_area.load(self.rings[n].at + USED + 2)
    }

    /// Asks for an interrupt, or for none, without event indices.
    pub(crate) fn set_interrupts(&self, n: usize, on: bool) {
        self.ring_area.store(self.rings[n].at + AVAILABLE, u16::from(!on));
    }

    /// Asks for an interrupt after `more` further used chains, with event indices.
    pub(crate) fn interrupt_after(&self, n: usize, more: u16) {
        let event = self.used(n).wrapping_add(more - 1);
        self.ring_area.store(self.rings[n].at + AVAILABLE + 4 + 2 * usize::from(SIZE), event);
    }

    /// Kicks, if the device wants it (virtio 1.2, 2.7.10 and 2.7.13.4.1).
    fn kick(&mut self, n: usize) {
        fence(Ordering::SeqCst);
        let at = self.rings[n].at + USED;
        let wanted = if self.features & EVENT_IDX != 0 {
            // One chain at a time: compares it with the device's event index.
            self.ring_area.load(at + 4 + 8 * usize::from(SIZE)) == self.rings[n].next.wrapping_sub(1)
        } else {
            self.ring_area.load(at) & 1 == 0
        };
        if wanted {
            self.kicks += 1;
            self.rings[n].kick.write(1).unwrap();
        }
    }

    /// The guest's address of the buffer of a ring's descriptor.
    pub(crate) fn buffer(&self, n: usize, index: u16) -> u64 {
        self.buffer_area.guest + self.buffer_at(n, index) as u64
    }

    pub(crate) fn buffer_at(&self, n: usize, index: u16) -> usize {
        self.rings[n].buffers + usize::from(index % SIZE) * BUFFER
    }

    fn post(&mut self, n: usize) {
        let index = self.rings[n].next % SIZE;
        self.describe(n, index, self.buffer(n, index), BUFFER as u32, WRITE, 0);
        self.make_available(n, &[index]);
    }

    /// Sends header and frame in pieces of at most `piece` bytes, each a descriptor, if there is room on ring `n`.
    pub(crate) fn send_in(&mut self, n: usize, header: [u8; HEADER], frame: &[u8], piece: usize) -> bool {
        let used = self.used(n);
        let ring = &mut self.rings[n];
        while ring.seen != used {
            ring.seen = ring.seen.wrapping_add(1);
            ring.in_flight.pop_front().expect("the device uses only what was sent");
        }
        let whole = [&header[..], frame].concat();
        let pieces: Vec<&[u8]> = whole.chunks(piece.min(BUFFER)).collect();
        let (first, count) = (ring.tail, pieces.len() as u16);
        if SIZE - ring.in_flight.iter().sum::<u16>() < count {
            return false;
        }
        ring.in_flight.push_back(count);
        ring.tail = first.wrapping_add(count);
        for (i, bytes) in (0..).zip(&pieces) {
            let index = first.wrapping_add(i) % SIZE;
            self.buffer_area.write(self.buffer_at(n, index), bytes);
            let flags = if i + 1 < count { NEXT } else { 0 };
            let next = (index + 1) % SIZE;
            self.describe(n, index, self.buffer(n, index), bytes.len() as u32, flags, next);
        }
        self.make_available(n, &[first % SIZE]);
        true
    }

    /// Sends a frame on ring 1 as one descriptor.
    pub(crate) fn send(&mut self, frame: &[u8]) {
        assert!(self.send_in(1, [0; HEADER], frame, BUFFER));
    }

    /// Takes the frames that a vring has received, and posts the buffers again.
    pub(crate) fn receive(&mut self, n: usize) -> Vec<([u8; HEADER], Vec<u8>)> {
        let mut frames = Vec::new();
        let used = self.used(n);
        while self.rings[n].seen != used {
            let mut whole = self.take_buffer(n);
            let header: [u8; HEADER] = *whole.first_chunk().expect("a header");
            whole.drain(..HEADER);
            for _ in 1..u16::from_le_bytes([header[10], header[11]]) {
                assert_ne!(self.rings[n].seen, used, "a frame's buffers come all at once");
                whole.extend(self.take_buffer(n));
            }
            frames.push((header, whole));
        }
        frames
    }

    fn take_buffer(&mut self, n: usize) -> Vec<u8> {
        let slot = usize::from(self.rings[n].seen % SIZE);
        let element = self.ring_area.read(self.rings[n].at + USED + 4 + 8 * slot, 8);
        let [head, len] = [0, 4].map(|at| u32::from_le_bytes(*element[at..].first_chunk().unwrap()));
        assert_eq!(head as usize, slot, "buffers come in order");
        assert!(len as usize <= BUFFER && len > 0);
        let bytes = self.buffer_area.read(self.buffer_at(n, head as u16), len as usize);
        self.rings[n].seen = self.rings[n].seen.wrapping_add(1);
        self.post(n);
        bytes
    }

    /// Whether there was an interrupt since the last call.
    pub(crate) fn interrupted(&self, n: usize) -> bool {
        self.rings[n].call.read().is_ok()
    }
}

/// A descriptor's bytes.
pub(crate) fn descriptor(address: u64, len: u32, flags: u16, next: u16) -> Vec<u8> {
    let (address, len) = (address.to_le_bytes(), len.to_le_bytes());
    [&address[..], &len, &flags.to_le_bytes(), &next.to_le_bytes()].concat()
}
