//! A small virtio-net driver over a `NetDevice` in the same process, which may also break every rule.

use std::os::fd::OwnedFd;

use culvert_device::function::VF_IDENTITY;
use culvert_device::vfio_user::{IrqAction, IrqSet, MSIX_INDEX};
use culvert_device::virtio::{NetDevice, Notifier, VfConfig};
use rustix::event::{EventfdFlags, eventfd};

use crate::memory::{GuestMemory, IOVA};

pub(crate) const RX: u16 = 0;
pub(crate) const TX: u16 = 1;
pub(crate) const CONTROL: u16 = 2;
pub(crate) const SIZE: u16 = 16;
pub(crate) const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];

pub(crate) const F_CSUM: u64 = 1;
pub(crate) const F_GUEST_CSUM: u64 = 1 << 1;
pub(crate) const F_MRG_RXBUF: u64 = 1 << 15;
pub(crate) const F_CTRL: u64 = 1 << 17 | 1 << 18 | 1 << 19 | 1 << 23;
pub(crate) const F_EVENT_IDX: u64 = 1 << 29;
pub(crate) const F_VERSION_1: u64 = 1 << 32;

pub(crate) const NEXT: u16 = 1;
pub(crate) const WRITE: u16 = 2;

pub(crate) struct Driver {
    pub(crate) device: NetDevice,
    pub(crate) memory: GuestMemory,
    pub(crate) interrupts: Vec<OwnedFd>,
    avail: [u16; 3],
    seen: [u16; 3],
}

/// Where a queue's parts lie in the guest's memory.
pub(crate) fn desc(queue: u16) -> u64 {
    u64::from(queue) * 0x4000
}

pub(crate) fn avail(queue: u16) -> u64 {
    desc(queue) + 0x1000
}

pub(crate) fn used(queue: u16) -> u64 {
    desc(queue) + 0x2000
}

/// A buffer of 2 KiB.
pub(crate) fn buffer(n: u64) -> u64 {
    0x10_0000 + n * 2048
}

impl Driver {
    /// A driver that has brought the device up.
    pub(crate) fn start(config: VfConfig, features: u64) -> Self {
        let mut driver = Self::bare(config);
        driver.bring_up(features | F_VERSION_1);
        assert!(driver.device.is_running());
        driver
    }

    pub(crate) fn bare(config: VfConfig) -> Self {
        let device = NetDevice::new(VF_IDENTITY, config, Notifier::new().expect("eventfd"));
        let memory = GuestMemory::new(4 << 20);
        device.memory().map(memory.region(), Some(memory.fd())).expect("map");
        let interrupts: Vec<OwnedFd> = (0..4)
            .map(|_| eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).expect("eventfd"))
            .collect();
        let clones = interrupts.iter().map(|fd| fd.try_clone().expect("dup")).collect();
        let set = IrqSet { index: MSIX_INDEX, start: 0, count: 4, action: IrqAction::Assign(clones) };
        device.endpoint().msix().set(set).expect("irqs");
        device.config_write(4, &6u16.to_le_bytes());
        Self { device, memory, interrupts, avail: [0; 3], seen: [0; 3] }
    }

    pub(crate) fn w(&self, offset: u64, bytes: &[u8]) {
        self.device.bar_write(0, offset, bytes);
    }

    pub(crate) fn r<const N: usize>(&self, offset: u64) -> [u8; N] {
        let mut bytes = [0; N];
        self.device.bar_read(0, offset, &mut bytes);
        bytes
    }

    pub(crate) fn status(&self) -> u8 {
        self.r::<1>(0x14)[0]
    }

    pub(crate) fn bring_up(&mut self, features: u64) {
        self.avail = [0; 3];
        self.seen = [0; 3];
        self.w(0x14, &[0]);
        self.w(0x14, &[1]);
        self.w(0x14, &[3]);
        for (select, half) in [(0u32, features as u32), (1, (features >> 32) as u32)] {
            self.w(0x08, &select.to_le_bytes());
            self.w(0x0c, &half.to_le_bytes());
        }
        self.w(0x14, &[0xb]);
        assert_eq!(self.status(), 0xb, "features refused");
        self.w(0x10, &0u16.to_le_bytes());
        for queue in [RX, TX, CONTROL] {
            self.memory.write(desc(queue), &[0; 0x3000]);
            self.queue(queue, SIZE, desc(queue));
        }
        self.w(0x14, &[0xf]);
    }

    /// Sets a queue up whose three parts begin 4 KiB apart.
    pub(crate) fn queue(&self, queue: u16, size: u16, at: u64) {
        self.w(0x16, &queue.to_le_bytes());
        self.w(0x18, &size.to_le_bytes());
        self.w(0x1a, &(queue + 1).to_le_bytes());
        for (i, register) in [0x20, 0x28, 0x30].into_iter().enumerate() {
            self.w(register, &(IOVA + at + 0x1000 * i as u64).to_le_bytes());
        }
        self.w(0x1c, &1u16.to_le_bytes());
    }

    /// Writes a descriptor whose buffer lies at `at` in the guest's memory.
    pub(crate) fn describe(&self, queue: u16, index: u16, at: u64, len: u32, flags: u16, next: u16) {
        self.describe_iova(queue, index, IOVA + at, len, flags, next);
    }

    pub(crate) fn describe_iova(&self, queue: u16, index: u16, iova: u64, len: u32, flags: u16, next: u16) {
        let bytes =
            [&iova.to_le_bytes()[..], &len.to_le_bytes(), &flags.to_le_bytes(), &next.to_le_bytes()].concat();
        self.memory.write(desc(queue) + 16 * u64::from(index), &bytes);
    }

    /// Makes the chain at `head` available.
    pub(crate) fn offer(&mut self, queue: u16, head: u16) {
        let next = &mut self.avail[usize::from(queue)];
        self.memory.write_u16(avail(queue) + 4 + 2 * u64::from(*next % SIZE), head);
        *next = next.wrapping_add(1);
        self.memory.write_u16(avail(queue) + 2, *next);
    }

    pub(crate) fn kick(&self, queue: u16) {
        self.w(0x3000 + 4 * u64::from(queue), &queue.to_le_bytes());
    }

    /// Sends a frame through descriptor `index`, header and frame in one buffer.
    pub(crate) fn send(&mut self, index: u16, header: [u8; 12], frame: &[u8]) {
        let at = buffer(u64::from(index));
        self.memory.write(at, &[&header[..], frame].concat());
        self.describe(TX, index, at, 12 + frame.len() as u32, 0, 0);
        self.offer(TX, index);
    }

    /// What the device has given back since the last call: head and length.
    pub(crate) fn take_used(&mut self, queue: u16) -> Vec<(u32, u32)> {
        let now = self.memory.read_u16(used(queue) + 2);
        let seen = &mut self.seen[usize::from(queue)];
        let mut out = Vec::new();
        while *seen != now {
            let bytes = self.memory.read(used(queue) + 4 + 8 * u64::from(*seen % SIZE), 8);
            let word = |i: usize| u32::from_le_bytes([bytes[i], bytes[i + 1], bytes[i + 2], bytes[i + 3]]);
            out.push((word(0), word(4)));
            *seen = seen.wrapping_add(1);
        }
        out
    }

    /// How often vector `n` was signalled since the last call.
    pub(crate) fn take_interrupts(&self, n: usize) -> u64 {
        let mut bytes = [0; 8];
        rustix::io::read(&self.interrupts[n], &mut bytes).map_or(0, |_| u64::from_ne_bytes(bytes))
    }

    /// Sends a control command and returns its answer.
    pub(crate) fn control(&mut self, command: &[u8]) -> u8 {
        self.memory.write(buffer(100), command);
        self.memory.write(buffer(101), &[0xff]);
        self.describe(CONTROL, 0, buffer(100), command.len() as u32, NEXT, 1);
        self.describe(CONTROL, 1, buffer(101), 1, WRITE, 0);
        self.offer(CONTROL, 0);
        self.kick(CONTROL);
        self.device.service_control();
        self.memory.read(buffer(101), 1)[0]
    }
}
