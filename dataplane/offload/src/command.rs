//! What the slow path tells a NIC to do, in order.

use culvert_flow::pending::Ticket;
use culvert_flow::tables::Tunnel;
use culvert_flow::{Classified, FlowKey, FlowRecord, Port};
use culvert_packet::{Offload, Reason};

/// One command. A NIC executes commands in the order in which it is given them.
#[derive(Clone, Debug, PartialEq)]
pub enum FlowCommand {
    /// Insert records, or give existing ones new actions.
    Insert(Vec<FlowRecord>),
    /// Delete records by key.
    Delete(Vec<FlowKey>),
    /// Write a tunnel's outer headers.
    SetTunnel(u16, Box<Tunnel>),
    /// Reinject a frame: the NIC looks its flow up. With a ticket, this completes the upcall. If the frame is unchanged since
    /// its upcall, the parsed packet saves a NIC in software parsing it again.
    Reinject(ReinjectMeta, Vec<u8>, Option<Box<Classified>>),
    /// Send a frame out of a port unchanged. With a ticket, this completes the upcall.
    PacketOut(ReinjectMeta, Port, Vec<u8>),
    /// The host dropped the packet. With a ticket, this completes the upcall.
    Dropped(ReinjectMeta, Reason),
}

/// What travels with a packet from the host to the NIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReinjectMeta {
    /// The port that the packet arrived at, or that it is to be treated as having arrived at.
    pub input: Port,
    /// The pending flow whose upcall this completes.
    pub ticket: Option<Ticket>,
    /// Checksum and segmentation work that the NIC still has to do.
    pub offload: Offload,
}

impl ReinjectMeta {
    /// For a packet that the host made itself, with complete checksums.
    pub fn from_host(input: Port) -> Self {
        ReinjectMeta { input, ticket: None, offload: Offload::default() }
    }
}
