//! ARP for IPv4 over Ethernet (RFC 826).

use core::net::Ipv4Addr;

use crate::bytes::{array, be16};
use crate::id::MacAddr;
use crate::reason::Reason;

/// Bytes of a packet.
pub const LEN: usize = 28;

/// Operation of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Operation(pub u16);

impl Operation {
    /// Request: who has the target's address?
    pub const REQUEST: Operation = Operation(1);
    /// Reply: the sender has it.
    pub const REPLY: Operation = Operation(2);
}

/// Hardware type Ethernet, protocol type IPv4, address lengths 6 and 4.
const KIND: [u8; 6] = [0, 1, 8, 0, 6, 4];

pub(crate) fn is_ipv4_over_ethernet(packet: &[u8]) -> bool {
    packet.starts_with(&KIND)
}

/// An ARP packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packet {
    /// Request, reply or something else.
    pub operation: Operation,
    /// Sender's MAC.
    pub sender_mac: MacAddr,
    /// Sender's address.
    pub sender: Ipv4Addr,
    /// Target's MAC; of no meaning in a request.
    pub target_mac: MacAddr,
    /// Target's address.
    pub target: Ipv4Addr,
}

impl Packet {
    /// Reads what follows the Ethernet header. Padding behind the packet is ignored.
    ///
    /// # Errors
    /// `Truncated`, or `Unsupported` for other kinds of addresses.
    pub fn parse(bytes: &[u8]) -> Result<Packet, Reason> {
        let packet = bytes.first_chunk::<LEN>().ok_or(Reason::Truncated)?;
        if !is_ipv4_over_ethernet(packet) {
            return Err(Reason::Unsupported);
        }
        Ok(Packet {
            operation: Operation(be16(packet, 6)),
            sender_mac: MacAddr(array(packet, 8)),
            sender: Ipv4Addr::from(array::<4>(packet, 14)),
            target_mac: MacAddr(array(packet, 18)),
            target: Ipv4Addr::from(array::<4>(packet, 24)),
        })
    }

    /// Writes the packet to the front of `out`; returns its length.
    ///
    /// # Errors
    /// `NoBuffer`: there is not enough room.
    pub fn emit(&self, out: &mut [u8]) -> Result<usize, Reason> {
        let out = out.first_chunk_mut::<LEN>().ok_or(Reason::NoBuffer)?;
        out[..6].copy_from_slice(&KIND);
        out[6..8].copy_from_slice(&self.operation.0.to_be_bytes());
        out[8..14].copy_from_slice(&self.sender_mac.0);
        out[14..18].copy_from_slice(&self.sender.octets());
        out[18..24].copy_from_slice(&self.target_mac.0);
        out[24..].copy_from_slice(&self.target.octets());
        Ok(LEN)
    }

    /// The answer to a request: `mac` has the target's address.
    pub fn reply(&self, mac: MacAddr) -> Packet {
        Packet {
            operation: Operation::REPLY,
            sender_mac: mac,
            sender: self.target,
            target_mac: self.sender_mac,
            target: self.sender,
        }
    }

    /// Whether the sender announces its own address (gratuitous ARP).
    pub fn is_gratuitous(&self) -> bool {
        self.sender == self.target
    }
}
