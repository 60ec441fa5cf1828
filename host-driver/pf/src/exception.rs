//! Packets that the NIC gives to the host, and what they are given back with.

use std::num::NonZeroU32;

use culvert_abi::command::Op;
use culvert_abi::pf::{Entry, OffloadBits};
use culvert_flow::Port;
use culvert_packet::Reason;

/// What the NIC says of a packet that it gave to the host. The packet itself comes beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exception {
    /// Why.
    pub reason: Reason,
    /// Where it came in.
    pub input: Port,
    /// The pending flow that it belongs to: it must be answered exactly once.
    pub ticket: Option<NonZeroU32>,
    /// The packet has gone on, this is a copy (of a TCP segment that opens or closes a connection).
    pub copy: bool,
    /// Copy: the connection that its record names.
    pub connection: u64,
    /// Index of the outer source PA of an encapsulated packet.
    pub peer: u16,
    /// Bytes of outer headers in front of the inner frame.
    pub inner: u16,
    /// VSID of an encapsulated packet.
    pub vsid: u32,
    /// When it came in, milliseconds, wrapping: the board's clock.
    pub now: u32,
    /// What the board knows of its checksums.
    pub offload: OffloadBits,
}

impl Exception {
    /// What an entry of the exception queue says. `None`: it is none.
    pub fn from_entry(entry: &Entry) -> Option<Self> {
        (entry.op == Op::Upcall as u8).then(|| Exception {
            reason: Reason::from_u8(entry.reason).unwrap_or(Reason::BadDescriptor),
            input: Port::from_bits(entry.port),
            ticket: NonZeroU32::new(entry.ticket),
            copy: entry.target & 1 != 0,
            connection: entry.arg1,
            peer: entry.peer,
            inner: entry.inner,
            vsid: entry.vsid,
            now: entry.now,
            offload: entry.offload,
        })
    }

    /// With what it is given back.
    pub fn back(&self) -> Return {
        Return { input: self.input, ticket: self.ticket, offload: self.offload }
    }
}

/// What goes with a packet to the NIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Return {
    /// Where it came in, or is to be treated as if.
    pub input: Port,
    /// The ticket that this answers.
    pub ticket: Option<NonZeroU32>,
    /// What is to be done about its checksums.
    pub offload: OffloadBits,
}

impl Return {
    /// A packet that the host made itself, checksums and all.
    pub fn own(input: Port) -> Self {
        Return { input, ticket: None, offload: OffloadBits::default() }
    }
}
