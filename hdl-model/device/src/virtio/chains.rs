//! What chains carry, in memory of any kind: frames behind their virtio header, and control commands.

use std::sync::atomic::Ordering;

use culvert_virtio::{
    Chain, GuestMemory, ReceiveBuffers, Reserved, Ring, RingFault, RingMemory, feature, gather, total_len,
};

use super::config::{Checksum, Discard, RxError, TxFrame};
use super::control;
use super::device::NetDevice;
use super::features::{DATA_VALID, HEADER_LEN, NEEDS_CSUM};
use super::slot::lock;

/// Shortest frame: an Ethernet header.
const MIN_FRAME: u64 = 14;

impl NetDevice {
    /// Takes the next transmit chain and completes it, unpublished. `None`: the ring is empty.
    pub(super) fn take_chain(
        &self,
        ring: &mut Ring,
        memory: &impl RingMemory,
        chain: &mut Chain,
        buf: &mut [u8],
    ) -> Result<Option<Result<TxFrame, Discard>>, RingFault> {
        if ring.waiting(memory)? == 0 {
            return Ok(None);
        }
        let head = ring.peek(memory, 0, chain)?;
        let frame = self.tx_frame(chain, memory, buf)?;
        ring.complete(memory, &[(head, 0)])?;
        Ok(Some(frame))
    }

    fn tx_frame(
        &self,
        chain: &Chain,
        memory: &impl GuestMemory,
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

    /// Puts a frame into receive buffers and completes them, unpublished.
    pub(super) fn fill_buffers(
        &self,
        ring: &mut Ring,
        memory: &impl RingMemory,
        buffers: &mut ReceiveBuffers,
        parts: &[&[u8]],
        verified: bool,
    ) -> Result<Result<(), RxError>, RingFault> {
        let features = self.features.load(Ordering::Acquire);
        let mergeable = features & feature::MRG_RXBUF != 0;
        let len = HEADER_LEN + parts.iter().map(|part| part.len()).sum::<usize>();
        match buffers.reserve(ring, memory, HEADER_LEN, len, mergeable)? {
            Reserved::Done => {}
            Reserved::Full => return Ok(Err(RxError::NoBuffer)),
            Reserved::TooLong => return Ok(Err(RxError::TooLong)),
        }
        let mut header = [0; HEADER_LEN];
        if verified && features & feature::GUEST_CSUM != 0 {
            header[0] = DATA_VALID;
        }
        header[10..12].copy_from_slice(&buffers.count().to_le_bytes());
        buffers.fill(ring, memory, std::iter::once(&header[..]).chain(parts.iter().copied()))?;
        Ok(Ok(()))
    }

    /// Executes one control command and publishes its answer. `false`: none is waiting.
    pub(super) fn execute_command(
        &self,
        ring: &mut Ring,
        memory: &impl RingMemory,
        chain: &mut Chain,
    ) -> Result<bool, RingFault> {
        if ring.waiting(memory)? == 0 {
            return Ok(false);
        }
        let head = ring.peek(memory, 0, chain)?;
        let Some(status) = chain.writable().iter().find(|segment| segment.len > 0) else {
            return Err(RingFault::ShortBuffer);
        };
        let mut command = [0; control::MAX_COMMAND];
        let len = usize::try_from(total_len(chain.readable())).unwrap_or(usize::MAX);
        let answer = match command.get_mut(..len) {
            None => control::ERR,
            Some(command) => {
                gather(memory, chain.readable(), &mut [&mut *command])?;
                lock(&self.port).execute(self.features.load(Ordering::Acquire), command)
            }
        };
        memory.write(status.address, &[answer])?;
        ring.complete(memory, &[(head, 1)])?;
        ring.publish(memory)?;
        Ok(true)
    }
}
