//! `Upcall`: a packet that a NIC sends to the host. Also the queues of upcalls and of VMQs.

use std::os::fd::BorrowedFd;

use culvert_flow::pending::Ticket;
use culvert_flow::{Classified, FlowKey, OuterInfo, Port, key};
use culvert_packet::{Offload, Reason, parse, parse_outer};

use crate::{ReinjectMeta, Result};

/// A packet that the NIC has no flow record for, or that the host handles itself.
#[derive(Clone, Debug)]
pub struct Upcall {
    /// The NIC's metadata of the packet.
    pub meta: UpcallMeta,
    /// The frame as the NIC received it.
    pub frame: Vec<u8>,
    /// The parsed frame with its flow key, or the reason why it does not parse.
    pub packet: std::result::Result<Classified, Reason>,
}

/// A NIC's metadata of a packet that it sends to the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpcallMeta {
    /// Why the NIC sent it to the host.
    pub reason: Reason,
    /// The port that it arrived at.
    pub input: Port,
    /// The pending flow of the packet. The host completes the upcall exactly once.
    pub ticket: Option<Ticket>,
    /// Set if the NIC has forwarded the packet: this is a copy of a TCP segment that opens or closes a connection.
    pub copy: Option<ControlCopy>,
    /// Index of the outer source PA of an encapsulated packet.
    pub peer: u16,
    /// When it arrived: milliseconds of the NIC's clock, wrapping.
    pub now: u32,
    /// State of its checksum and segmentation.
    pub offload: Offload,
}

/// A copy of a TCP segment that opens or closes a connection, as it left the NIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlCopy {
    /// The connection in the flow record.
    pub connection: u64,
    /// Bytes of outer headers in front of the tenant's frame.
    pub outer_len: u16,
}

impl UpcallMeta {
    /// The metadata with which the packet returns to the NIC.
    pub fn reinject(&self) -> ReinjectMeta {
        ReinjectMeta { input: self.input, ticket: self.ticket, offload: self.offload }
    }
}

impl Upcall {
    /// An upcall. Parses the frame unless the NIC has already classified it.
    pub fn new(meta: UpcallMeta, frame: Vec<u8>, classified: Option<Classified>) -> Self {
        match classified {
            Some(packet) => Upcall { meta, frame, packet: Ok(packet) },
            None => Self::parse(meta, frame),
        }
    }

    /// An upcall of a frame that the NIC has not classified.
    pub fn parse(meta: UpcallMeta, frame: Vec<u8>) -> Self {
        let packet = classify(&meta, &frame);
        Upcall { meta, frame, packet }
    }

    /// The tenant's frame, without outer headers.
    pub fn inner(&self) -> &[u8] {
        let Ok(packet) = &self.packet else { return &self.frame };
        if packet.outer.inner == 0 {
            return &self.frame;
        }
        let (start, len) = (usize::from(packet.outer.inner), usize::from(packet.outer.inner_len));
        self.frame.get(start..start + len).unwrap_or_default()
    }
}

/// Parses a frame and builds its flow key as the NIC does. A copy has no key: the NIC has forwarded it already.
fn classify(meta: &UpcallMeta, frame: &[u8]) -> std::result::Result<Classified, Reason> {
    if let Some(copy) = meta.copy {
        let inner = frame.get(usize::from(copy.outer_len)..).ok_or(Reason::OuterTruncated)?;
        return Ok(Classified {
            key: FlowKey::default(),
            headers: parse(inner)?,
            outer: OuterInfo::default(),
        });
    }
    match meta.input {
        Port::Vport(id) => {
            let headers = parse(frame)?;
            Ok(Classified { key: key::outbound(id, frame, &headers), headers, outer: OuterInfo::default() })
        }
        Port::Uplink(_) => {
            let outer = parse_outer(frame)?.ok_or(Reason::Control)?;
            let (at, len) = (usize::from(outer.inner), usize::from(outer.inner_len));
            let inner = frame.get(at..at + len).ok_or(Reason::OuterTruncated)?;
            let headers = parse(inner)?;
            let info = OuterInfo {
                inner: outer.inner,
                inner_len: outer.inner_len,
                peer: meta.peer,
                vsid: outer.vsid,
                ecn: outer.tos & 3,
            };
            let key = key::inbound(outer.encap, outer.vsid, meta.peer, inner, &headers);
            Ok(Classified { key, headers, outer: info })
        }
        Port::Host | Port::None => Err(Reason::BadDescriptor),
    }
}

/// A queue from the NIC to the host, with its interrupt.
pub trait RxQueue: Send {
    /// Returns the buffers of all taken entries to the NIC. Call it after each burst.
    ///
    /// # Errors
    /// The device is lost.
    fn repost(&mut self) -> Result<()>;
    /// Enables the interrupt. `false`: a packet has arrived meanwhile, and the interrupt stays disabled.
    fn arm(&self) -> bool;
    /// Disables the interrupt and clears a pending one.
    fn disarm(&self);
    /// A descriptor that is readable while an interrupt is pending.
    fn fd(&self) -> BorrowedFd<'_>;
}

/// The queue of upcalls.
pub trait UpcallQueue: RxQueue {
    /// Takes the oldest upcall.
    ///
    /// # Errors
    /// The queue has stopped.
    fn pop(&mut self) -> Result<Option<Upcall>>;
}

/// A frame that was taken from a VMQ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VmqFrame {
    /// Length of the frame.
    pub len: usize,
    /// Whether all of it is in the buffer.
    pub complete: bool,
}

/// A queue of frames that the NIC's filters steer to one vport.
pub trait VmqQueue: RxQueue {
    /// Takes the oldest frame and writes it to the front of `buffer`, as far as it fits.
    ///
    /// # Errors
    /// The queue has stopped.
    fn pop(&mut self, buffer: &mut [u8]) -> Result<Option<VmqFrame>>;
}

#[cfg(test)]
mod tests;
