//! `VirtioNet`: the network driver on a virtio transport: receive, transmit and control queue.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use culvert_pci::{Device, DmaBuffer, Interrupt};

use super::{Notify, SplitQueue, Transport, feature};
use crate::{Counters, Error, FramePort, Result};

/// Options of the driver.
#[derive(Clone, Copy, Debug)]
pub struct NetOptions {
    /// Leave TCP checksums to the device.
    pub checksum_offload: bool,
    /// Suppress notifications by event index instead of flags, if the device can.
    pub event_idx: bool,
    /// Largest number of descriptors of a queue.
    pub queue_size: u16,
}

impl Default for NetOptions {
    fn default() -> Self {
        Self { checksum_offload: false, event_idx: true, queue_size: 512 }
    }
}

/// The header before each frame (5.1.6), with VERSION_1.
const HEADER: usize = 12;
const FLAG_NEEDS_CSUM: u8 = 1;
const CONTROL_MAC: [u8; 2] = [1, 1];
const CONTROL_OK: u8 = 0;
const CONTROL_LIMIT: Duration = Duration::from_secs(5);
/// Received buffers that are collected before they are offered again.
const RX_BATCH: u16 = 32;
/// The most buffers that one received frame may take.
const MAX_MERGED: u16 = 64;

/// A queue with one buffer for each descriptor.
struct BufferedQueue {
    queue: SplitQueue,
    notify: Notify,
    interrupt: Interrupt,
    buffers: DmaBuffer,
    stride: usize,
}

impl BufferedQueue {
    fn new(
        transport: &Transport,
        which: (&'static str, u16),
        vector: u16,
        o: &NetOptions,
        mtu: u16,
    ) -> Result<Self> {
        let device = transport.device();
        let interrupt = device.interrupt(vector)?;
        let (queue, notify) = transport.queue(which.0, which.1, vector, o.queue_size, o.event_idx)?;
        // Header, Ethernet header, two VLAN tags.
        let stride = (HEADER + 22 + usize::from(mtu)).next_multiple_of(1024);
        let buffers = device.alloc_dma(stride * usize::from(queue.size()))?;
        Ok(Self { queue, notify, interrupt, buffers, stride })
    }

    fn offset(&self, index: u16) -> usize {
        usize::from(index) * self.stride
    }

    fn iova(&self, index: u16) -> u64 {
        self.buffers.iova() + self.offset(index) as u64
    }

    /// Publishes, and kicks if the device wants it. How many kicks that took.
    fn flush(&mut self) -> Result<u64> {
        if !self.queue.publish() {
            return Ok(0);
        }
        self.notify.kick()?;
        Ok(1)
    }
}

/// A virtio network device that is up.
pub struct VirtioNet {
    transport: Transport,
    features: u64,
    mac: [u8; 6],
    mtu: u16,
    offload: bool,
    rx: BufferedQueue,
    tx: BufferedQueue,
    control: Option<BufferedQueue>,
    free: Vec<u16>,
    in_flight: Vec<bool>,
    /// A fault of the transmit queue that the next send returns.
    broken: Option<Error>,
    counters: Counters,
}

impl VirtioNet {
    /// Brings the device up.
    ///
    /// # Errors
    /// A function that is no virtio network device, or a lost or broken one.
    pub fn new(device: Arc<dyn Device>, mut options: NetOptions) -> Result<Self> {
        let transport = Transport::new(device)?;
        let mut wanted = feature::MAC | feature::MTU | feature::STATUS | feature::MRG_RXBUF;
        wanted |= feature::CSUM | feature::GUEST_CSUM | feature::CTRL_VQ | feature::CTRL_MAC_ADDR;
        wanted |= feature::ACCESS_PLATFORM | if options.event_idx { feature::EVENT_IDX } else { 0 };
        let features = transport.negotiate(wanted)?;
        options.event_idx = features & feature::EVENT_IDX != 0;
        if features & feature::MAC == 0 {
            let device = transport.device().name().into();
            return Err(Error::NotVirtio { device, detail: "it has no MAC address".into() });
        }
        let mut mac = [0; 6];
        for (i, byte) in mac.iter_mut().enumerate() {
            *byte = transport.config_u8(i as u64)?;
        }
        let mtu = if features & feature::MTU == 0 { 1500 } else { transport.config_u16(10)?.max(68) };
        // Vector 0 is for configuration and control, 1 and 2 for data; with fewer they are shared.
        let vector = |n: u16| n.min(transport.device().interrupt_count().saturating_sub(1));
        transport.device().interrupt(vector(0))?;
        transport.set_config_vector(vector(0))?;
        let rx = BufferedQueue::new(&transport, ("receive", 0), vector(1), &options, mtu)?;
        let tx = BufferedQueue::new(&transport, ("transmit", 1), vector(2), &options, mtu)?;
        let control = if features & feature::CTRL_VQ == 0 {
            None
        } else {
            let small = NetOptions { queue_size: 4, ..options };
            Some(BufferedQueue::new(&transport, ("control", 2), vector(0), &small, 64)?)
        };
        let free = (0..tx.queue.size()).rev().collect();
        let in_flight = vec![false; tx.queue.size().into()];
        let offload = options.checksum_offload && features & feature::CSUM != 0;
        let counters = Counters::default();
        let mut net = Self {
            transport,
            features,
            mac,
            mtu,
            offload,
            rx,
            tx,
            control,
            free,
            in_flight,
            broken: None,
            counters,
        };
        for index in 0..net.rx.queue.size() {
            net.rx.queue.describe(index, net.rx.iova(index), net.rx.stride as u32, true, None);
            net.rx.queue.offer(index);
        }
        net.tx.queue.suppress_interrupts();
        net.transport.start()?;
        net.flush()?;
        Ok(net)
    }

    /// The features in use.
    #[must_use]
    pub fn features(&self) -> u64 {
        self.features
    }

    /// The number of descriptors in the receive queue: frames that may come in one burst.
    #[must_use]
    pub fn rx_size(&self) -> u16 {
        self.rx.queue.size()
    }

    /// Whether the device says that its link is up.
    ///
    /// # Errors
    /// A lost device.
    pub fn link_up(&self) -> Result<bool> {
        Ok(self.features & feature::STATUS == 0 || self.transport.config_u16(6)? & 1 != 0)
    }

    /// Whether the device has stopped and asks for a reset.
    ///
    /// # Errors
    /// A lost device.
    pub fn needs_reset(&self) -> Result<bool> {
        self.transport.needs_reset()
    }

    /// Asks the device for another MAC address. False if it refuses.
    ///
    /// # Errors
    /// A device without control queue, or one that does not answer.
    pub fn set_mac(&mut self, mac: [u8; 6]) -> Result<bool> {
        let accepted = self.command(CONTROL_MAC, &mac)?;
        if accepted {
            self.mac = mac;
        }
        Ok(accepted)
    }

    /// Sends a command to the control queue (5.1.6.5): class and command, and its data. False if it is refused.
    ///
    /// # Errors
    /// A device without control queue, or one that does not answer.
    pub fn command(&mut self, command: [u8; 2], data: &[u8]) -> Result<bool> {
        let Some(lane) = &mut self.control else {
            let device = self.transport.device().name().into();
            return Err(Error::NotVirtio { device, detail: "it has no control queue".into() });
        };
        if data.len() > lane.stride || lane.queue.size() < 4 {
            return Err(Error::FrameLength { len: data.len(), max: lane.stride });
        }
        lane.buffers.write_at(lane.offset(0), &command)?;
        lane.buffers.write_at(lane.offset(1), data)?;
        lane.buffers.write_at(lane.offset(2), &[0xff])?;
        lane.queue.describe(0, lane.iova(0), 2, false, Some(1));
        lane.queue.describe(1, lane.iova(1), data.len() as u32, false, Some(2));
        lane.queue.describe(2, lane.iova(2), 1, true, None);
        lane.queue.offer(0);
        self.counters.kicks += lane.flush()?;
        let deadline = Instant::now() + CONTROL_LIMIT;
        while lane.queue.take()?.is_none() {
            if Instant::now() > deadline {
                return Err(Error::Timeout { what: "a control command", limit: CONTROL_LIMIT });
            }
            if !lane.queue.want_interrupt() {
                lane.interrupt.wait(Duration::from_millis(20))?;
            }
        }
        let mut ack = [0; 1];
        lane.buffers.read_at(lane.offset(2), &mut ack)?;
        Ok(ack[0] == CONTROL_OK)
    }

    /// Takes back transmit buffers that the device is done with.
    fn reclaim(&mut self) -> Result<()> {
        while let Some(used) = self.tx.queue.take()? {
            // Once per frame sent, so that no buffer is ever used for two.
            if !std::mem::take(&mut self.in_flight[usize::from(used.head)]) {
                let detail = format!("descriptor {} given back twice", used.head);
                return Err(Error::BrokenQueue { queue: "transmit", detail });
            }
            self.free.push(used.head);
        }
        Ok(())
    }

    /// Reads one received frame, which may span several buffers, and offers the buffers again. `None`: no valid frame.
    fn assemble(&mut self, first: super::Used) -> Result<Option<Vec<u8>>> {
        let mut header = [0; HEADER];
        self.rx.buffers.read_at(self.rx.offset(first.head), &mut header)?;
        let merged = self.features & feature::MRG_RXBUF != 0;
        let count = if merged { u16::from_le_bytes([header[10], header[11]]) } else { 1 };
        let mut frame = Vec::new();
        let mut good = (1..=MAX_MERGED).contains(&count);
        let mut used = Some(first);
        for n in 0..count.clamp(1, MAX_MERGED) {
            let Some(part) = (if n == 0 { used.take() } else { self.rx.queue.take()? }) else {
                let detail = format!("a frame of {count} buffers, of which only {n} arrived");
                return Err(Error::BrokenQueue { queue: "receive", detail });
            };
            let skip = if n == 0 { HEADER } else { 0 };
            let len = part.len as usize;
            if (skip..=self.rx.stride).contains(&len) {
                let at = frame.len();
                frame.resize(at + len - skip, 0);
                self.rx.buffers.read_at(self.rx.offset(part.head) + skip, &mut frame[at..])?;
            } else {
                good = false;
            }
            self.rx.queue.offer(part.head);
        }
        if header[0] & FLAG_NEEDS_CSUM != 0 {
            let start = u16::from_le_bytes([header[6], header[7]]);
            let offset = u16::from_le_bytes([header[8], header[9]]);
            good &= complete_checksum(&mut frame, start.into(), offset.into());
        }
        Ok(Some(frame).filter(|f| good && f.len() >= 14))
    }
}

/// Completes a partial checksum in place. False if it lies outside the frame.
fn complete_checksum(frame: &mut [u8], start: usize, offset: usize) -> bool {
    let Some(place) = start.checked_add(offset).filter(|p| p + 2 <= frame.len()) else { return false };
    let (pairs, odd) = frame[start..].as_chunks::<2>();
    let mut sum: u64 = pairs.iter().map(|p| u64::from(u16::from_be_bytes(*p))).sum();
    sum += odd.first().map_or(0, |b| u64::from(*b) << 8);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    frame[place..place + 2].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    true
}

impl FramePort for VirtioNet {
    fn mac(&self) -> [u8; 6] {
        self.mac
    }

    fn mtu(&self) -> u16 {
        self.mtu
    }

    fn checksum_offload(&self) -> bool {
        self.offload
    }

    fn can_send(&mut self) -> bool {
        if !self.free.is_empty() {
            return true;
        }
        match self.reclaim() {
            Ok(()) => {}
            // The next send returns it.
            Err(error) => self.broken = Some(error),
        }
        let room = self.broken.is_some() || !self.free.is_empty();
        self.counters.tx_full += u64::from(!room);
        room
    }

    fn send(&mut self, frame: &[u8], partial: Option<(u16, u16)>) -> Result<()> {
        let max = self.tx.stride - HEADER;
        if !(14..=max).contains(&frame.len()) {
            return Err(Error::FrameLength { len: frame.len(), max });
        }
        if let Some(error) = self.broken.take() {
            return Err(error);
        }
        if self.free.len() * 2 < usize::from(self.tx.queue.size()) {
            self.reclaim()?;
        }
        let index = self.free.pop().ok_or(Error::RingFull(Duration::ZERO))?;
        let mut header = [0; HEADER];
        if let Some((start, offset)) = partial {
            header[0] = FLAG_NEEDS_CSUM;
            header[6..8].copy_from_slice(&start.to_le_bytes());
            header[8..10].copy_from_slice(&offset.to_le_bytes());
        }
        let at = self.tx.offset(index);
        self.tx.buffers.write_at(at, &header)?;
        self.tx.buffers.write_at(at + HEADER, frame)?;
        self.tx.queue.describe(index, self.tx.iova(index), (HEADER + frame.len()) as u32, false, None);
        self.tx.queue.offer(index);
        self.in_flight[usize::from(index)] = true;
        self.counters.tx_frames += 1;
        self.counters.tx_bytes += frame.len() as u64;
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        self.counters.kicks += self.tx.flush()? + self.rx.flush()?;
        Ok(())
    }

    fn receive(&mut self) -> Result<Option<Vec<u8>>> {
        while let Some(used) = self.rx.queue.take()? {
            let frame = self.assemble(used)?;
            if self.rx.queue.unpublished() >= RX_BATCH {
                self.counters.kicks += self.rx.flush()?;
            }
            if let Some(frame) = frame {
                self.counters.rx_frames += 1;
                self.counters.rx_bytes += frame.len() as u64;
                return Ok(Some(frame));
            }
            self.counters.rx_malformed += 1;
        }
        Ok(None)
    }

    fn arm(&mut self, tx: bool) -> bool {
        self.rx.queue.want_interrupt() | (tx && self.tx.queue.want_interrupt())
    }

    fn disarm(&mut self) -> Result<()> {
        self.rx.queue.suppress_interrupts();
        self.tx.queue.suppress_interrupts();
        self.rx.interrupt.try_clear()?;
        self.tx.interrupt.try_clear()?;
        Ok(())
    }

    fn events(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.rx.interrupt.as_fd(), self.tx.interrupt.as_fd()]
    }

    fn counters(&self) -> Counters {
        self.counters
    }
}

impl Drop for VirtioNet {
    fn drop(&mut self) {
        // The device must not write to the queues' memory after it is gone. A lost device cannot any more.
        let _ = self.transport.reset();
    }
}
