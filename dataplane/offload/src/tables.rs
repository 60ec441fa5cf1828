//! What the host writes into a NIC's tables.

use culvert_flow::tables::{Group, Peer, Tunnel, Vport};
use culvert_packet::{MacAddr, VportId};

/// One write to a NIC's tables. Entries with an index are written at it; the others replace the whole table.
#[derive(Clone, Copy, Debug)]
pub enum TableWrite<'a> {
    /// The distributed router's MAC. The NIC empties its flow table.
    RouterMac(MacAddr),
    /// Our provider addresses, all of them.
    LocalAddresses(&'a [Peer]),
    /// The other hosts' provider addresses, all of them.
    Peers(&'a [Peer]),
    /// Tunnels by index.
    Tunnels(&'a [(u16, Tunnel)]),
    /// Replication groups by index.
    Groups(&'a [(u16, Group)]),
    /// Vports by number. Their counters stay.
    Vports(&'a [(u16, Vport)]),
    /// The forwarding database, all of it. A NIC that finds vports by its flow table alone ignores it.
    Fdb(&'a [FdbEntry]),
    /// VMQ filters, all of them.
    VmqFilters(&'a [VmqFilter]),
    /// Generations of vports and mappings.
    Generations(&'a [GenerationWrite]),
    /// Settings of a VF.
    Vf(u16, &'a VfConfig),
}

/// An entry of the forwarding database: frames from the wire for this MAC in this VSID are the vport's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FdbEntry {
    /// The vport.
    pub vport: VportId,
    /// Its VSID.
    pub vsid: u32,
    /// Its MAC.
    pub mac: MacAddr,
}

/// Steers frames for a MAC in a VSID into a VMQ while they have no flow record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VmqFilter {
    /// Inner destination MAC.
    pub mac: MacAddr,
    /// VSID.
    pub vsid: u32,
    /// Number of the VMQ.
    pub vmq: u16,
    /// The vport that the VMQ serves.
    pub vport: VportId,
}

/// What has a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Generation {
    /// The mappings that share this cell.
    Mapping(u16),
    /// A vport's policy.
    Vport(VportId),
}

/// Sets a generation: records that were made under another value are stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GenerationWrite {
    /// What it is the generation of.
    pub of: Generation,
    /// The new value.
    pub value: u32,
}

/// Settings of a VF that the host decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VfConfig {
    /// Its MAC.
    pub mac: MacAddr,
    /// Largest IP packet, in bytes.
    pub mtu: u16,
    /// The link state that the guest sees.
    pub link_up: bool,
    /// The guest may set another MAC.
    pub allow_mac_change: bool,
    /// The guest may turn promiscuous mode on.
    pub allow_promisc: bool,
    /// How many of its packets may be at the host at a time.
    pub upcall_share: u16,
}

impl VfConfig {
    /// A VF with its link up and no privileges.
    pub fn new(mac: MacAddr, mtu: u16) -> Self {
        let (allow_mac_change, allow_promisc) = (false, false);
        VfConfig { mac, mtu, link_up: true, allow_mac_change, allow_promisc, upcall_share: 128 }
    }
}
