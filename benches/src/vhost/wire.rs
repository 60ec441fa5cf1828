//! The wire of our switch: a port in memory where next hops answer, encapsulated frames come from, and what leaves is counted.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use culvert_softpath::switch::{BURST, Packet, Pool, Sent, SwitchPort};

use crate::clock::cycles;
use crate::flood::{Flood, Wire as Answering};
use crate::generator::{Generator, Order};
use crate::peers::control::{Mode, Shape};

/// Frames that are written with their payload. It stays in the buffers of the pool, which come back in no certain order.
const PAYLOADS: u32 = 200_000;

/// What the wire is told and tells.
#[derive(Debug, Default)]
pub struct Told {
    /// What comes from the wire, as [`Shape`] has it.
    shape: AtomicU64,
    /// Frames that were made, and that may have been made in all.
    written: AtomicU64,
    limit: AtomicU64,
    flood: Arc<Flood>,
}

impl Told {
    /// Has frames come, or none.
    pub fn tell(&self, shape: Option<Shape>) {
        self.shape.store(shape.map_or(0, Shape::bits), Relaxed);
    }

    /// Lets so many frames come in all.
    pub fn allow(&self, limit: u64) {
        self.limit.store(limit, Relaxed);
    }

    /// Frames that came from the wire.
    pub fn written(&self) -> u64 {
        self.written.load(Relaxed)
    }

    /// Frames that left.
    pub fn left(&self) -> u64 {
        self.flood.left.load(Relaxed)
    }
}

/// The port.
pub struct Wire {
    told: Arc<Told>,
    answering: Answering,
    bits: u64,
    shape: Option<(Shape, Generator)>,
    order: Order,
    payloads: u32,
}

impl Wire {
    /// One that is told what comes from it.
    ///
    /// # Errors
    /// No descriptor is to be had.
    pub fn new(told: Arc<Told>) -> io::Result<Self> {
        let answering = Answering::new(Arc::clone(&told.flood))?;
        Ok(Wire { told, answering, bits: 0, shape: None, order: Order::default(), payloads: 0 })
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
        self.answering.receive(pool, packets, most)?;
        let bits = self.told.shape.load(Relaxed);
        if bits != self.bits {
            self.change(bits);
        }
        let Some((shape, generator)) = &self.shape else { return Ok(()) };
        let (before, written) = (packets.len(), &self.told.written);
        let room = self.told.limit.load(Relaxed).saturating_sub(written.load(Relaxed)) as usize;
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
        self.answering.send(pool, packets)
    }

    fn arm(&mut self) -> bool {
        self.answering.arm() && self.told.shape.load(Relaxed) == 0
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.answering.fd()
    }
}

/// Cycles that a frame from the wire costs on this core without a switch: it is made, and its buffer comes back.
///
/// # Errors
/// No memory or descriptor is to be had.
pub fn alone(shape: Shape, frames: u32) -> io::Result<f64> {
    let told = Arc::new(Told::default());
    told.tell(Some(shape));
    told.allow(u64::MAX);
    let (mut wire, mut pool) = (Wire::new(told)?, Pool::new(16_384, 0)?);
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
