//! One host's policy, complete and immutable, for `decide`. The control plane's model makes it.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::IpAddr;

use culvert_flow::HashSecret;
use culvert_flow::tables::Member;
use culvert_packet::{Encap, MacAddr, Prefix, Rdid, VlanId, VportId};

use crate::acl::AclSet;
use crate::connection::Ends;

/// A host's policy.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// This host's own peer index.
    pub host: u16,
    /// MAC of the distributed router, the same on all hosts.
    pub router_mac: MacAddr,
    /// Secret of the entropy in outer headers.
    pub entropy: HashSecret,
    /// Vports of this host.
    pub vports: BTreeMap<VportId, Vport>,
    /// Virtual subnets that this host knows, by VSID.
    pub subnets: BTreeMap<u32, Subnet>,
    /// Virtual networks.
    pub networks: BTreeMap<Rdid, Network>,
    /// Locations of customer addresses.
    pub mappings: Mappings,
    /// Other hosts by index.
    pub peers: BTreeMap<u16, Peer>,
    /// Tunnels to other hosts by index.
    pub tunnels: BTreeMap<u16, TunnelSpec>,
    /// This host's provider addresses.
    pub local_pas: Vec<LocalPa>,
    /// Replication groups by index.
    pub groups: BTreeMap<u16, GroupSpec>,
}

/// What serves a vport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A VF.
    Vf(u16),
    /// A VMQ of the PF.
    Vmq(u16),
    /// A port of the switch.
    Software,
}

/// A vport of this host.
#[derive(Clone, Debug)]
pub struct Vport {
    /// Name of its network interface in the policy.
    pub name: String,
    /// Its MAC.
    pub mac: MacAddr,
    /// Its customer addresses.
    pub addresses: Vec<IpAddr>,
    /// Its virtual subnet.
    pub vsid: u32,
    /// Its virtual network.
    pub rdid: Rdid,
    /// The tag that its frames may have; without one they must be untagged.
    pub vlan: Option<VlanId>,
    /// What serves it.
    pub target: Target,
    /// Whether frames may pass.
    pub up: bool,
    /// Lists for packets to the VM.
    pub acls_in: Arc<AclSet>,
    /// Lists for packets from the VM.
    pub acls_out: Arc<AclSet>,
    /// Version of its policy.
    pub generation: u32,
    /// Which of the host's provider addresses it is pinned to.
    pub local_pa: u8,
    /// Largest IP packet.
    pub mtu: u16,
    /// Flow records that it may own; left out: a quarter of the table.
    pub quota: Option<u32>,
}

/// A virtual subnet: one broadcast domain.
#[derive(Clone, Debug)]
pub struct Subnet {
    /// Its VSID.
    pub vsid: u32,
    /// Its virtual network.
    pub rdid: Rdid,
    /// Its prefixes.
    pub prefixes: Vec<Prefix>,
    /// The router's addresses in it.
    pub gateways: Vec<IpAddr>,
    /// Group for broadcasts of local vports, if there are receivers.
    pub group_out: Option<u16>,
    /// Group for broadcasts of other hosts: local vports only.
    pub group_in: Option<u16>,
}

/// A virtual network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// How it is carried.
    pub encap: Encap,
    /// Whether its subnets are routed between.
    pub distributed_router: bool,
}

/// Location of a customer address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Location {
    /// On this host.
    Local(VportId),
    /// On another host, through a tunnel.
    Remote {
        /// The host.
        peer: u16,
        /// The tunnel, for local vports pinned to each of our provider addresses.
        tunnels: [u16; 2],
    },
}

/// A customer address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Its virtual network.
    pub rdid: Rdid,
    /// The address.
    pub ca: IpAddr,
    /// MAC of the VM that has it.
    pub mac: MacAddr,
    /// Its subnet.
    pub vsid: u32,
    /// Where it is.
    pub location: Location,
    /// Version of this mapping.
    pub generation: u32,
    /// The generation cell, see [`cell_of`].
    pub cell: u16,
}

/// The generation cell of a mapping: 1 to 65,535. Cell 0 belongs to no mapping and its generation is 0.
pub fn cell_of(rdid: Rdid, ca: IpAddr) -> u16 {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    let mut add = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    add(&rdid.0);
    match ca {
        IpAddr::V4(a) => add(&a.octets()),
        IpAddr::V6(a) => add(&a.octets()),
    }
    let folded = (hash ^ hash >> 16 ^ hash >> 32 ^ hash >> 48) as u16;
    folded.max(1)
}

/// All mappings, by address and by MAC.
#[derive(Clone, Debug, Default)]
pub struct Mappings {
    by_ca: BTreeMap<(Rdid, IpAddr), Mapping>,
    by_mac: BTreeMap<(u32, MacAddr), (Rdid, IpAddr)>,
    macs: BTreeMap<MacAddr, u32>,
}

impl Mappings {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a mapping, or replaces that of the same address. Of several addresses of a MAC in a subnet the first is
    /// found by MAC.
    pub fn insert(&mut self, mapping: Mapping) {
        self.by_mac.entry((mapping.vsid, mapping.mac)).or_insert((mapping.rdid, mapping.ca));
        self.macs.entry(mapping.mac).or_insert(mapping.vsid);
        self.by_ca.insert((mapping.rdid, mapping.ca), mapping);
    }

    /// By virtual network and address.
    pub fn by_ca(&self, rdid: Rdid, ca: IpAddr) -> Option<&Mapping> {
        self.by_ca.get(&(rdid, ca))
    }

    /// By subnet and MAC.
    pub fn by_mac(&self, vsid: u32, mac: MacAddr) -> Option<&Mapping> {
        self.by_mac.get(&(vsid, mac)).and_then(|key| self.by_ca.get(key))
    }

    /// Whether any subnet has this MAC.
    pub fn knows_mac(&self, mac: MacAddr) -> bool {
        self.macs.contains_key(&mac)
    }

    /// All, by virtual network and address.
    pub fn iter(&self) -> impl Iterator<Item = &Mapping> {
        self.by_ca.values()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_ca.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_ca.is_empty()
    }
}

/// Another host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its provider addresses.
    pub pas: Vec<IpAddr>,
    /// VSIDs that it may send.
    pub vsids: BTreeSet<u32>,
}

/// A tunnel to another host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TunnelSpec {
    /// Its index.
    pub index: u16,
    /// VXLAN or NVGRE.
    pub encap: Encap,
    /// Our provider address.
    pub local_pa: IpAddr,
    /// Theirs.
    pub remote_pa: IpAddr,
    /// The uplink that our address belongs to.
    pub uplink: u8,
    /// Tag of the provider network.
    pub vlan: Option<VlanId>,
    /// MTU of the provider network.
    pub mtu: u16,
}

/// A provider address of this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalPa {
    /// The address.
    pub addr: IpAddr,
    /// MAC that it has, whichever uplink serves it.
    pub mac: MacAddr,
    /// Its subnet.
    pub prefix: Prefix,
    /// Router to other subnets.
    pub gateway: Option<IpAddr>,
    /// The uplink that it belongs to.
    pub uplink: u8,
    /// Tag of the provider network.
    pub vlan: Option<VlanId>,
    /// MTU of the provider network.
    pub mtu: u16,
}

/// A replication group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupSpec {
    /// Its index.
    pub index: u16,
    /// The receivers of a copy.
    pub members: Vec<Member>,
}

impl Snapshot {
    /// A host without vports, peers and addresses.
    pub fn empty(router_mac: MacAddr, entropy: HashSecret) -> Self {
        Snapshot {
            host: 0,
            router_mac,
            entropy,
            vports: BTreeMap::new(),
            subnets: BTreeMap::new(),
            networks: BTreeMap::new(),
            mappings: Mappings::new(),
            peers: BTreeMap::new(),
            tunnels: BTreeMap::new(),
            local_pas: Vec::new(),
            groups: BTreeMap::new(),
        }
    }

    /// The vports of this host at both ends of a connection. `None`: the end is not on this host.
    pub fn local_ends(&self, ends: &Ends) -> [Option<VportId>; 2] {
        [ends.first.0, ends.second.0].map(|ca| match self.mappings.by_ca(ends.rdid, ca)?.location {
            Location::Local(id) => Some(id),
            Location::Remote { .. } => None,
        })
    }

    /// Encapsulation of a virtual network.
    pub fn encap(&self, rdid: Rdid) -> Encap {
        self.networks.get(&rdid).map_or(Encap::Vxlan, |n| n.encap)
    }
}
