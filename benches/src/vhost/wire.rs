//! The wire of the software switch: a port in memory that answers ARP for next hops, generates encapsulated frames, and counts the
//! frames that leave.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use culvert_switch::{BURST, Packet, Pool, Sent, SwitchPort};

use crate::clock::cycles;
use crate::flood::{Flood, WirePort};
use crate::generator::{Generator, Order};
use crate::ovs_dpdk::control::{Mode, Shape};

/// Frames written with their payload, so that all buffers of the pool, which are reused in no particular order, contain it.
const PAYLOADS: u32 = 200_000;

/// State that the benchmark shares with the wire.
#[derive(Debug, Default)]
pub struct WireControl {
    /// The frames that the wire sends: a [`Shape`] as a word.
    shape: AtomicU64,
    /// Frames sent, and how many may be sent in all.
    written: AtomicU64,
    limit: AtomicU64,
    flood: Arc<Flood>,
}

impl WireControl {
    /// Sets the frames that the wire sends; none: no traffic.
    pub fn set_shape(&self, shape: Option<Shape>) {
        self.shape.store(shape.map_or(0, Shape::bits), Relaxed);
    }

    /// Sets how many frames the wire may send in all.
    pub fn set_limit(&self, limit: u64) {
        self.limit.store(limit, Relaxed);
    }

    /// Frames that the wire has sent.
    pub fn written(&self) -> u64 {
        self.written.load(Relaxed)
    }

    /// Frames that the wire has received.
    pub fn left(&self) -> u64 {
        self.flood.left.load(Relaxed)
    }
}

/// The port.
pub struct Wire {
    control: Arc<WireControl>,
    arp: WirePort,
    bits: u64,
    shape: Option<(Shape, Generator)>,
    order: Order,
    payloads: u32,
}

impl Wire {
    /// A wire that sends what `control` says.
    ///
    /// # Errors
    /// Out of file descriptors.
    pub fn new(control: Arc<WireControl>) -> io::Result<Self> {
        let arp = WirePort::new(Arc::clone(&control.flood))?;
        Ok(Wire { control, arp, bits: 0, shape: None, order: Order::default(), payloads: 0 })
    }

    #[cold]
    fn change(&mut self, bits: u64) {
        self.bits = bits;
        let shape = Shape::from_bits(bits).filter(|shape| shape.mode != Mode::Silent);
        self.shape = shape.map(|shape| (shape, shape.generator()));
        self.payloads = PAYLOADS;
    }
}

impl SwitchPort for Wire {
    fn receive(&mut self, pool: &mut Pool, packets: &mut Vec<Packet>, most: usize) -> io::Result<()> {
        self.arp.receive(pool, packets, most)?;
        let bits = self.control.shape.load(Relaxed);
        if bits != self.bits {
            self.change(bits);
        }
        let Some((shape, generator)) = &self.shape else { return Ok(()) };
        let (before, written) = (packets.len(), &self.control.written);
        let room = self.control.limit.load(Relaxed).saturating_sub(written.load(Relaxed)) as usize;
        let most = most.min(before.saturating_add(room));
        while packets.len() < most {
            let Some(mut packet) = pool.take() else { break };
            if packet.set(0, generator.len()) {
                if self.payloads > 0 {
                    self.payloads -= 1;
                    generator.write_payload(packet.bytes_mut());
                }
                generator.write(self.order.next(shape.flows), packet.bytes_mut());
            }
            packets.push(packet);
        }
        written.store(written.load(Relaxed) + (packets.len() - before) as u64, Relaxed);
        Ok(())
    }

    fn send(&mut self, pool: &mut Pool, packets: &mut Vec<Packet>) -> io::Result<Sent> {
        self.arp.send(pool, packets)
    }

    fn arm(&mut self) -> bool {
        self.arp.arm() && self.control.shape.load(Relaxed) == 0
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.arp.fd()
    }
}

/// Cycles per frame of the wire alone, on this core: it is written, and its buffer is freed.
///
/// # Errors
/// Out of memory or file descriptors.
pub fn alone(shape: Shape, frames: u32) -> io::Result<f64> {
    let control = Arc::new(WireControl::default());
    control.set_shape(Some(shape));
    control.set_limit(u64::MAX);
    let (mut wire, mut pool) = (Wire::new(control)?, Pool::new(16_384, 0)?);
    let mut packets = Vec::with_capacity(BURST);
    let mut run = |frames: u32| {
        let begin = cycles();
        for _ in 0..frames.div_ceil(BURST as u32) {
            wire.receive(&mut pool, &mut packets, BURST)?;
            packets.drain(..).for_each(|packet| pool.give(packet));
        }
        io::Result::Ok((cycles() - begin) as f64 / f64::from(frames))
    };
    run(PAYLOADS)?;
    run(frames)
}
