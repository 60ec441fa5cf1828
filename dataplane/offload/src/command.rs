//! `FlowCommand`: what the slow path has a NIC do, in order.

use culvert_flow::pending::Ticket;
use culvert_flow::tables::Tunnel;
use culvert_flow::{Classified, FlowKey, FlowRecord, Port};
use culvert_packet::{Offload, Reason};

/// A command of the slow path to a NIC. The NIC executes commands in order.
#[derive(Clone, Debug, PartialEq)]
pub enum FlowCommand {
    /// Insert records, or give existing ones new actions.
    Insert(Vec<FlowRecord>),
    /// Delete records by key.
    Delete(Vec<FlowKey>),
    /// Write a tunnel's outer headers.
    SetTunnel(u16, Box<Tunnel>),
    /// Reinject a frame: the NIC looks up its flow. With a ticket, this completes the upcall. The parsed packet, present if
    /// the frame is unchanged since its upcall, saves the switch from parsing it again.
    Reinject(ReinjectMeta, Vec<u8>, Option<Classified>),
    /// Send a frame out of a port unchanged. With a ticket, this completes the upcall.
    PacketOut(ReinjectMeta, Port, Vec<u8>),
    /// The host dropped the packet. With a ticket, this completes the upcall.
    Dropped(ReinjectMeta, Reason),
}

/// Metadata of a packet from the host to the NIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReinjectMeta {
    /// The port that the packet arrived at. The NIC treats a packet of the host itself as received from this port.
    pub input: Port,
    /// The pending flow whose upcall this completes.
    pub ticket: Option<Ticket>,
    /// Checksum and segmentation work that the NIC still has to do.
    pub offload: Offload,
}

impl ReinjectMeta {
    /// Metadata of a packet that the host created, with complete checksums.
    pub fn from_host(input: Port) -> Self {
        ReinjectMeta { input, ticket: None, offload: Offload::default() }
    }
}
