//! `TableWrite`: writes to a NIC's tables, and their entries.

use culvert_flow::tables::{Group, Peer, Tunnel, Vport};
use culvert_packet::{MacAddr, VportId};

/// One write to a NIC's tables. Entries with an index replace the entry at that index; others replace the whole table.
#[derive(Clone, Copy, Debug)]
pub enum TableWrite<'a> {
    /// The distributed router's MAC. The NIC empties its flow table.
    RouterMac(MacAddr),
    /// All provider addresses of this host.
    LocalAddresses(&'a [Peer]),
    /// All provider addresses of other hosts.
    Peers(&'a [Peer]),
    /// Tunnels by index.
    Tunnels(&'a [(u16, Tunnel)]),
    /// Replication groups by index.
    Groups(&'a [(u16, Group)]),
    /// Vports by number. Their counters stay.
    Vports(&'a [(u16, Vport)]),
    /// The whole forwarding database. A NIC that finds vports only by flow records ignores it.
    Fdb(&'a [FdbEntry]),
    /// All VMQ filters.
    VmqFilters(&'a [VmqFilter]),
    /// Generations of vports and mappings.
    Generations(&'a [GenerationWrite]),
    /// Settings of a VF.
    Vf(u16, &'a VfConfig),
}

/// An entry of the forwarding database: frames for this MAC in this VSID go to the vport.
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

/// Names a generation cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Generation {
    /// The cell of mappings with this number; several mappings share it.
    Mapping(u16),
    /// A vport's policy.
    Vport(VportId),
}

/// Sets a generation. Records that were inserted under another value are stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GenerationWrite {
    /// The cell.
    pub of: Generation,
    /// The new value.
    pub value: u32,
}

/// Settings of a VF that the host enforces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VfConfig {
    /// Its MAC.
    pub mac: MacAddr,
    /// Largest IP packet, in bytes.
    pub mtu: u16,
    /// The link state that the guest sees.
    pub link_up: bool,
    /// Whether the guest may change its MAC.
    pub allow_mac_change: bool,
    /// Whether the guest may turn on promiscuous mode.
    pub allow_promisc: bool,
    /// How many upcalls of the VF may be outstanding.
    pub upcall_share: u16,
}

impl VfConfig {
    /// A VF with its link up and no privileges.
    pub fn new(mac: MacAddr, mtu: u16) -> Self {
        let (allow_mac_change, allow_promisc) = (false, false);
        VfConfig { mac, mtu, link_up: true, allow_mac_change, allow_promisc, upcall_share: 128 }
    }
}
