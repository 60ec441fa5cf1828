//! `RxQueue`: a PF queue to the host with its interrupt. Sets up the rings of all PF queues.

use std::sync::Arc;

use culvert_abi::pci::VECTOR_QUEUE0;
use culvert_abi::pf::Entry;
use culvert_abi::regs::{
    QUEUE_BASE_HIGH, QUEUE_BASE_LOW, QUEUE_BELL, QUEUE_FAULT, QUEUE_RUNNING, QUEUE_SIZE, QUEUE_STATE,
};
use culvert_pci::{Device, DmaBuffer, Interrupt};

use crate::registers::Bar0;
use crate::ring::{HostToNic, NicToHost, RING_BUFFER, memory_len};
use crate::{Error, Result};

/// A PF queue that the board fills.
pub struct RxQueue {
    ring: NicToHost,
    interrupt: Interrupt,
    bar: Arc<Bar0>,
    number: usize,
    buffer: Box<[u8; RING_BUFFER]>,
}

/// Writes a queue's registers and starts it.
fn program(bar: &Bar0, device: &dyn Device, queue: usize, ring: &DmaBuffer, log2: u32) -> Result<()> {
    bar.queue_write(queue, QUEUE_BASE_LOW, ring.iova() as u32)?;
    bar.queue_write(queue, QUEUE_BASE_HIGH, (ring.iova() >> 32) as u32)?;
    bar.queue_write(queue, QUEUE_SIZE, log2)?;
    bar.queue_write(queue, QUEUE_STATE, QUEUE_RUNNING)?;
    match bar.queue_read(queue, QUEUE_STATE)? {
        QUEUE_RUNNING => Ok(()),
        _ => Err(Error::QueueFault { device: device.name().into(), queue }),
    }
}

/// Stops a queue and allocates its memory: the ring and its buffers.
fn memory(bar: &Bar0, device: &dyn Device, queue: usize, log2: u32) -> Result<(DmaBuffer, DmaBuffer)> {
    bar.queue_write(queue, QUEUE_STATE, 0)?;
    let (ring, buffers) = memory_len(log2);
    Ok((device.alloc_dma(ring)?, device.alloc_dma(buffers)?))
}

/// Sets up queue 0.
pub(crate) fn command_queue(bar: &Bar0, device: &dyn Device, queue: usize, log2: u32) -> Result<HostToNic> {
    let (ring, buffers) = memory(bar, device, queue, log2)?;
    let host = HostToNic::new(ring.clone(), buffers, log2, queue);
    program(bar, device, queue, &ring, log2)?;
    Ok(host)
}

impl RxQueue {
    /// Sets up a queue to the host.
    pub(crate) fn new(bar: &Arc<Bar0>, device: &dyn Device, number: usize, log2: u32) -> Result<Self> {
        let interrupt = device.interrupt(VECTOR_QUEUE0 + number as u16)?;
        let (ring, buffers) = memory(bar, device, number, log2)?;
        let host = NicToHost::new(ring.clone(), buffers, log2, number)?;
        program(bar, device, number, &ring, log2)?;
        Ok(RxQueue { ring: host, interrupt, bar: bar.clone(), number, buffer: Box::new([0; RING_BUFFER]) })
    }

    /// Number of the PF queue.
    pub fn number(&self) -> usize {
        self.number
    }

    /// Takes the oldest entry and its bytes. `None`: the ring is empty.
    ///
    /// # Errors
    /// The ring has a fault.
    pub fn pop(&mut self) -> Result<Option<(Entry, &[u8])>> {
        self.ring.pop(&mut self.buffer)
    }

    /// Returns the buffers of all taken entries to the board. Call it after each burst.
    ///
    /// # Errors
    /// The device is lost.
    pub fn repost(&mut self) -> Result<()> {
        if self.ring.repost()? {
            self.bar.queue_write(self.number, QUEUE_BELL, 1)?;
        }
        Ok(())
    }

    /// Enables the interrupt. `false`: an entry has arrived meanwhile, and the interrupt stays disabled.
    pub fn arm(&self) -> bool {
        self.ring.arm()
    }

    /// Disables the interrupt.
    pub fn disarm(&self) {
        self.ring.disarm();
    }

    /// The queue's interrupt.
    pub fn interrupt(&self) -> &Interrupt {
        &self.interrupt
    }

    /// Whether the board has stopped the queue at a fault.
    ///
    /// # Errors
    /// The device is lost.
    pub fn is_stopped(&self) -> Result<bool> {
        Ok(self.bar.queue_read(self.number, QUEUE_STATE)? == QUEUE_FAULT)
    }
}

impl Drop for RxQueue {
    fn drop(&mut self) {
        // The board must not write into freed memory. If this fails, the device is lost and writes nowhere.
        let _ = self.bar.queue_write(self.number, QUEUE_STATE, 0);
    }
}
