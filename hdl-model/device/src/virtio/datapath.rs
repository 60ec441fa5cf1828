//! The queue engine's side of a device: frames out of transmit chains and into receive buffers, control commands.

use std::sync::atomic::Ordering;

use culvert_virtio::{
    Chain, GuestMemory, IovaParts, ReceiveBuffers, Reserved, Ring, RingFault, feature, gather, total_len,
};

use super::config::{Checksum, Discard, RxError, TxFrame};
use super::control;
use super::device::NetDevice;
use super::features::{CONTROL, DATA_VALID, HEADER_LEN, NEEDS_CSUM, QUEUES, RX, TX};
use super::slot::lock;

/// Shortest frame: an Ethernet header.
const MIN_FRAME: u64 = 14;
/// Frames discarded in one `tx_pop`, and commands executed in one `service_control`.
const MAX_ROUNDS: usize = 64;

/// One queue at work: its ring, the ring's memory, and the room for chains and buffers.
struct Work<'w> {
    ring: &'w mut Ring,
    memory: IovaParts<'w>,
    chain: &'w mut Chain,
    receive_buffers: &'w mut ReceiveBuffers,
}

impl NetDevice {
    /// Whether the guest has made a frame available.
    pub fn has_tx(&self) -> bool {
        self.is_running() && self.on_queue(TX, |Work { ring, memory, .. }| Ok(ring.waiting(&memory)? > 0))
    }

    /// Takes the next frame, without its virtio header, into `buf`. `None`: there is none now.
    pub fn tx_pop(&self, buf: &mut [u8]) -> Option<TxFrame> {
        if !self.is_running() {
            return None;
        }
        for _ in 0..MAX_ROUNDS {
            match self.on_queue(TX, |work| self.tx_one(work, buf))? {
                Ok(frame) => {
                    self.counters.sent(frame.len);
                    return Some(frame);
                }
                Err(discard) => self.counters.discarded(discard),
            }
        }
        None
    }

    /// Puts a frame, in pieces, into the guest's receive buffers. `verified`: its checksums are known to be good, which
    /// the guest is told if it wants to know.
    pub fn rx_push(&self, parts: &[&[u8]], verified: bool) -> Result<(), RxError> {
        let result = if self.is_running() {
            let done = self.on_queue(RX, |work| self.rx_one(work, parts, verified).map(Some));
            done.unwrap_or(Err(RxError::Stopped))
        } else {
            Err(RxError::Stopped)
        };
        match result {
            Ok(()) => self.counters.received(parts.iter().map(|part| part.len()).sum()),
            Err(error) => self.counters.refused(error),
        }
        result
    }

    /// Executes waiting control commands. Cheap if the driver has not kicked.
    pub fn service_control(&self) {
        if !self.control_kicked.load(Ordering::Acquire) || !self.is_running() {
            return;
        }
        self.control_kicked.store(false, Ordering::Release);
        for _ in 0..MAX_ROUNDS {
            if !self.on_queue(CONTROL, |work| self.control_one(work)) {
                return;
            }
        }
        // More than a round's worth: the rest comes with the next one.
        self.control_kicked.store(true, Ordering::Release);
    }

    /// Interrupts for what was completed since the last call, where the driver asks for them.
    pub fn flush_interrupts(&self) {
        if !self.is_running() {
            return;
        }
        for index in 0..QUEUES {
            let wanted = self.on_queue(index, |Work { ring, memory, .. }| ring.take_interrupt(&memory));
            if wanted {
                self.interrupt_queue(index);
            }
        }
    }

    /// Asks the driver not to kick while frames are polled for, or to kick again. After `false`, look at
    /// [`has_tx`](Self::has_tx) once more before sleeping.
    pub fn set_polling(&self, polling: bool) {
        if self.polling.swap(polling, Ordering::AcqRel) == polling || !self.is_running() {
            return;
        }
        self.on_queue(TX, |Work { ring, memory, .. }| ring.set_notify(&memory, !polling));
    }

    /// Works on one queue, if it is enabled; a fault stops it and gives the default.
    fn on_queue<T: Default>(&self, index: usize, work: impl FnOnce(Work<'_>) -> Result<T, RingFault>) -> T {
        let mut guard = self.ring(index);
        let slot = &mut *guard;
        let Some(queue) = &mut slot.queue else { return T::default() };
        let result = {
            let view = self.memory.view();
            let memory = IovaParts::new(&view, &queue.layout);
            let notify = std::mem::take(&mut queue.fresh).then(|| self.first_notify(index));
            let ready = notify.map_or(Ok(()), |notify| queue.ring.set_notify(&memory, notify));
            let (ring, chain) = (&mut queue.ring, &mut slot.chain);
            ready
                .and_then(|()| work(Work { ring, memory, chain, receive_buffers: &mut slot.receive_buffers }))
        };
        result.unwrap_or_else(|fault| {
            self.stop(index, slot, fault);
            T::default()
        })
    }

    /// Whether the driver of a new queue is to notify: never of receive buffers; of frames unless the engine polls.
    fn first_notify(&self, index: usize) -> bool {
        match index {
            RX => false,
            TX => !self.polling.load(Ordering::Acquire),
            _ => true,
        }
    }

    /// One transmit chain. `None`: the ring is empty.
    fn tx_one(&self, work: Work<'_>, buf: &mut [u8]) -> Result<Option<Result<TxFrame, Discard>>, RingFault> {
        let Work { ring, memory, chain, .. } = work;
        if ring.waiting(&memory)? == 0 {
            return Ok(None);
        }
        let head = ring.peek(&memory, 0, chain)?;
        let frame = self.tx_frame(chain, &memory, buf)?;
        ring.complete(&memory, &[(head, 0)])?;
        ring.publish(&memory)?;
        Ok(Some(frame))
    }

    fn tx_frame(
        &self,
        chain: &Chain,
        memory: &IovaParts<'_>,
        buf: &mut [u8],
    ) -> Result<Result<TxFrame, Discard>, RingFault> {
        let len = total_len(chain.readable()).checked_sub(HEADER_LEN as u64).filter(|len| *len >= MIN_FRAME);
        let Some(len) = len else {
            return Ok(Err(Discard::Truncated));
        };
        let Some(buf) = usize::try_from(len).ok().and_then(|len| buf.get_mut(..len)) else {
            return Ok(Err(Discard::Oversize));
        };
        let mut header = [0; HEADER_LEN];
        gather(memory, chain.readable(), &mut [&mut header, buf])?;
        let [flags, gso, _, _, _, _, s0, s1, o0, o1, _, _] = header;
        // The driver's header comes from the driver: everything in it is checked against the frame.
        let csum = if flags & NEEDS_CSUM == 0 {
            Checksum::None
        } else {
            let (start, offset) = (u16::from_le_bytes([s0, s1]), u16::from_le_bytes([o0, o1]));
            let end = usize::from(start) + usize::from(offset) + 2;
            let negotiated = self.features.load(Ordering::Acquire) & feature::CSUM != 0;
            if !negotiated || end > buf.len() {
                return Ok(Err(Discard::BadOffload));
            }
            Checksum::Partial { start, offset }
        };
        if gso != 0 {
            return Ok(Err(Discard::BadOffload));
        }
        Ok(Ok(TxFrame { len: buf.len(), csum }))
    }

    fn rx_one(
        &self,
        work: Work<'_>,
        parts: &[&[u8]],
        verified: bool,
    ) -> Result<Result<(), RxError>, RingFault> {
        let Work { ring, memory, receive_buffers: buffers, .. } = work;
        let features = self.features.load(Ordering::Acquire);
        let mergeable = features & feature::MRG_RXBUF != 0;
        let len = HEADER_LEN + parts.iter().map(|part| part.len()).sum::<usize>();
        match buffers.reserve(ring, &memory, HEADER_LEN, len, mergeable)? {
            Reserved::Done => {}
            Reserved::Full => return Ok(Err(RxError::NoBuffer)),
            Reserved::TooLong => return Ok(Err(RxError::TooLong)),
        }
        let mut header = [0; HEADER_LEN];
        if verified && features & feature::GUEST_CSUM != 0 {
            header[0] = DATA_VALID;
        }
        header[10..12].copy_from_slice(&buffers.count().to_le_bytes());
        buffers.fill(ring, &memory, std::iter::once(&header[..]).chain(parts.iter().copied()))?;
        ring.publish(&memory)?;
        Ok(Ok(()))
    }

    /// One control command. `false`: none is waiting.
    fn control_one(&self, work: Work<'_>) -> Result<bool, RingFault> {
        let Work { ring, memory, chain, .. } = work;
        if ring.waiting(&memory)? == 0 {
            return Ok(false);
        }
        let head = ring.peek(&memory, 0, chain)?;
        let Some(status) = chain.writable().iter().find(|segment| segment.len > 0) else {
            return Err(RingFault::ShortBuffer);
        };
        let mut command = [0; control::MAX_COMMAND];
        let len = usize::try_from(total_len(chain.readable())).unwrap_or(usize::MAX);
        let answer = match command.get_mut(..len) {
            None => control::ERR,
            Some(command) => {
                gather(&memory, chain.readable(), &mut [&mut *command])?;
                lock(&self.port).execute(self.features.load(Ordering::Acquire), command)
            }
        };
        memory.write(status.address, &[answer])?;
        ring.complete(&memory, &[(head, 1)])?;
        ring.publish(&memory)?;
        Ok(true)
    }
}
