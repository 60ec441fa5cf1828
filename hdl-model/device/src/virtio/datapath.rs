//! The queue engine's side of a device: frames out of transmit chains and into receive buffers, control commands.

use std::sync::atomic::Ordering;

use super::config::{Checksum, Discard, RxError, TxFrame};
use super::control;
use super::device::NetDevice;
use super::features::{CONTROL, DATA_VALID, HEADER_LEN, NEEDS_CSUM, QUEUES, RX, TX, feature};
use super::ring::{Chain, RingFault, Segment};
use super::slot::{QueueSlot, lock};
use crate::dma::View;

/// Shortest frame: an Ethernet header.
const MIN_FRAME: u64 = 14;
/// Frames discarded in one `tx_pop`, and commands carried out in one `service_control`.
const MAX_ROUNDS: usize = 64;
/// Descriptors looked at for one received frame: a guest that crumbles its buffers must not slow its neighbours down.
const MAX_RX_SEGMENTS: usize = 1024;

impl NetDevice {
    /// Whether the guest has made a frame available.
    pub fn has_tx(&self) -> bool {
        self.is_running()
            && self.on_ring(TX, |ring, view| match &ring.queue {
                Some(queue) => Ok(queue.available(view)? > 0),
                None => Ok(false),
            })
    }

    /// Takes the next frame, without its virtio header, into `buf`. `None`: there is none now.
    pub fn tx_pop(&self, buf: &mut [u8]) -> Option<TxFrame> {
        if !self.is_running() {
            return None;
        }
        for _ in 0..MAX_ROUNDS {
            match self.on_ring(TX, |ring, view| self.tx_one(ring, view, buf))? {
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
            let done = self.on_ring(RX, |ring, view| self.rx_one(ring, view, parts, verified).map(Some));
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

    /// Carries out waiting control commands. Cheap if none was announced.
    pub fn service_control(&self) {
        if !self.control_kicked.load(Ordering::Acquire) || !self.is_running() {
            return;
        }
        self.control_kicked.store(false, Ordering::Release);
        for _ in 0..MAX_ROUNDS {
            if !self.on_ring(CONTROL, |ring, view| self.control_one(ring, view)) {
                return;
            }
        }
        // More than a round's worth: the rest comes with the next one.
        self.control_kicked.store(true, Ordering::Release);
    }

    /// Interrupts for what was completed since the last call, as far as the driver wants to hear of it.
    pub fn flush_interrupts(&self) {
        if !self.is_running() {
            return;
        }
        for index in 0..QUEUES {
            let wanted = self.on_ring(index, |ring, view| match &mut ring.queue {
                Some(queue) => queue.take_interrupt(view),
                None => Ok(false),
            });
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
        self.on_ring(TX, |ring, view| match &mut ring.queue {
            Some(queue) => queue.set_notify(view, !polling),
            None => Ok(()),
        });
    }

    /// Works on one ring; a fault stops it and gives the default.
    fn on_ring<T: Default>(
        &self,
        index: usize,
        work: impl FnOnce(&mut QueueSlot, &View<'_>) -> Result<T, RingFault>,
    ) -> T {
        let mut ring = self.ring(index);
        if ring.queue.is_none() {
            return T::default();
        }
        let result = {
            let view = self.memory.view();
            self.first_touch(index, &mut ring, &view).and_then(|()| work(&mut ring, &view))
        };
        result.unwrap_or_else(|fault| {
            self.stop(index, &mut ring, fault);
            T::default()
        })
    }

    /// Sets a new queue's notifications: nobody waits for receive buffers, transmit follows the engine's polling.
    fn first_touch(&self, index: usize, ring: &mut QueueSlot, view: &View<'_>) -> Result<(), RingFault> {
        if !std::mem::take(&mut ring.fresh) {
            return Ok(());
        }
        let quiet = match index {
            RX => true,
            TX => self.polling.load(Ordering::Acquire),
            _ => false,
        };
        match &mut ring.queue {
            Some(queue) => queue.set_notify(view, !quiet),
            None => Ok(()),
        }
    }

    /// One transmit chain. `None`: the ring is empty.
    fn tx_one(
        &self,
        ring: &mut QueueSlot,
        view: &View<'_>,
        buf: &mut [u8],
    ) -> Result<Option<Result<TxFrame, Discard>>, RingFault> {
        let QueueSlot { queue: Some(queue), chain, .. } = ring else { return Ok(None) };
        if queue.available(view)? == 0 {
            return Ok(None);
        }
        let head = queue.peek(view, 0, chain)?;
        let frame = self.tx_frame(chain, view, buf)?;
        queue.complete(view, &[(head, 0)])?;
        Ok(Some(frame))
    }

    fn tx_frame(
        &self,
        chain: &Chain,
        view: &View<'_>,
        buf: &mut [u8],
    ) -> Result<Result<TxFrame, Discard>, RingFault> {
        let Some(len) = chain.readable_len().checked_sub(HEADER_LEN as u64).filter(|len| *len >= MIN_FRAME)
        else {
            return Ok(Err(Discard::Truncated));
        };
        let Some(buf) = usize::try_from(len).ok().and_then(|len| buf.get_mut(..len)) else {
            return Ok(Err(Discard::Oversize));
        };
        let mut header = [0; HEADER_LEN];
        gather(view, &chain.readable, 0, &mut header)?;
        gather(view, &chain.readable, HEADER_LEN as u64, buf)?;
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
        ring: &mut QueueSlot,
        view: &View<'_>,
        parts: &[&[u8]],
        verified: bool,
    ) -> Result<Result<(), RxError>, RingFault> {
        let QueueSlot { queue: Some(queue), chain, scratch, .. } = ring else {
            return Ok(Err(RxError::Stopped));
        };
        let features = self.features.load(Ordering::Acquire);
        let mergeable = features & feature::MRG_RXBUF != 0;
        let mut left = (HEADER_LEN + parts.iter().map(|part| part.len()).sum::<usize>()) as u64;
        scratch.segments.clear();
        scratch.used.clear();
        let available = queue.available(view)?;
        while left > 0 {
            let skip = scratch.used.len() as u16;
            if skip == available {
                return Ok(Err(RxError::NoBuffer));
            }
            let head = queue.peek(view, skip, chain)?;
            let room = chain.writable_len();
            // The header is not split over buffers (5.1.6.3.1).
            if room < HEADER_LEN as u64 || scratch.segments.len() + chain.writable.len() > MAX_RX_SEGMENTS {
                return Err(RingFault::ShortBuffer);
            }
            if !mergeable && room < left {
                return Ok(Err(RxError::TooLong));
            }
            let take = room.min(left);
            scratch.used.push((head, take as u32));
            let mut bytes = take;
            for segment in &chain.writable {
                let len = u64::from(segment.len).min(bytes);
                scratch.segments.push(Segment { iova: segment.iova, len: len as u32 });
                bytes -= len;
            }
            left -= take;
        }
        let mut header = [0; HEADER_LEN];
        if verified && features & feature::GUEST_CSUM != 0 {
            header[0] = DATA_VALID;
        }
        header[10..12].copy_from_slice(&(scratch.used.len() as u16).to_le_bytes());
        scatter(view, &scratch.segments, std::iter::once(&header[..]).chain(parts.iter().copied()))?;
        queue.complete(view, &scratch.used)?;
        Ok(Ok(()))
    }

    /// One control command. False: none is waiting.
    fn control_one(&self, ring: &mut QueueSlot, view: &View<'_>) -> Result<bool, RingFault> {
        let QueueSlot { queue: Some(queue), chain, .. } = ring else { return Ok(false) };
        if queue.available(view)? == 0 {
            return Ok(false);
        }
        let head = queue.peek(view, 0, chain)?;
        let Some(status) = chain.writable.iter().find(|segment| segment.len > 0) else {
            return Err(RingFault::ShortBuffer);
        };
        let mut command = [0; control::MAX_COMMAND];
        let len = usize::try_from(chain.readable_len()).unwrap_or(usize::MAX);
        let answer = match command.get_mut(..len) {
            None => control::ERR,
            Some(command) => {
                gather(view, &chain.readable, 0, command)?;
                lock(&self.port).execute(self.features.load(Ordering::Acquire), command)
            }
        };
        view.write(status.iova, &[answer])?;
        queue.complete(view, &[(head, 1)])?;
        Ok(true)
    }
}

/// Copies from segments, leaving out their first `skip` bytes. They hold at least as much.
fn gather(
    view: &View<'_>,
    segments: &[Segment],
    mut skip: u64,
    mut into: &mut [u8],
) -> Result<(), RingFault> {
    for segment in segments {
        let len = u64::from(segment.len);
        if skip >= len {
            skip -= len;
            continue;
        }
        let n = ((len - skip) as usize).min(into.len());
        let (now, rest) = into.split_at_mut(n);
        let iova = segment.iova.checked_add(skip).ok_or(crate::dma::Fault::Unmapped)?;
        view.read(iova, now)?;
        into = rest;
        skip = 0;
        if into.is_empty() {
            break;
        }
    }
    Ok(())
}

/// Copies pieces into segments, which together are as long.
fn scatter<'a>(
    view: &View<'_>,
    segments: &[Segment],
    pieces: impl Iterator<Item = &'a [u8]>,
) -> Result<(), RingFault> {
    let mut segments = segments.iter().copied();
    let mut room = Segment { iova: 0, len: 0 };
    for mut piece in pieces {
        while !piece.is_empty() {
            while room.len == 0 {
                match segments.next() {
                    Some(next) => room = next,
                    None => return Ok(()),
                }
            }
            let n = (room.len as usize).min(piece.len());
            view.write(room.iova, &piece[..n])?;
            piece = &piece[n..];
            room.len -= n as u32;
            room.iova = room.iova.checked_add(n as u64).ok_or(crate::dma::Fault::Unmapped)?;
        }
    }
    Ok(())
}
