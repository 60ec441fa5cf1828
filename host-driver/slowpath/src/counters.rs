//! Counters of the slow path.

/// What the slow path has done since it was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Upcalls of the NIC.
    pub upcalls: u64,
    /// Copies of TCP segments that open or close a connection.
    pub tcp_copies: u64,
    /// Frames of the PA network that are not encapsulated.
    pub underlay_frames: u64,
    /// Packets that waited for a next hop.
    pub waited_for_next_hop: u64,
    /// Packets forwarded in software.
    pub forwarded_in_software: u64,
    /// Packets and ARP requests that got a reply.
    pub replies: u64,
    /// Flow records given to the NIC.
    pub records_offloaded: u64,
}
