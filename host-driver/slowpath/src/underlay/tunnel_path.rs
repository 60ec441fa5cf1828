//! A tunnel's path: its two ends and its next hop, before the next hop's MAC is known.

use std::net::IpAddr;

use culvert_flow::tables::Tunnel;
use culvert_packet::{Encap, MacAddr, OuterSpec, VlanId};
use culvert_policy::snapshot::{Snapshot, TunnelSpec};

use super::next_hop::NextHopId;

/// A tunnel of the policy, before its next hop is resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TunnelPath {
    /// Its index in the NIC's table.
    pub index: u16,
    /// Home uplink of our address.
    pub uplink: u8,
    /// Our provider address.
    pub local: IpAddr,
    /// The other host's provider address.
    pub remote: IpAddr,
    /// The address whose MAC frames are sent to; `None`: there is no route.
    pub next_hop: Option<IpAddr>,
    /// Encapsulation.
    pub encap: Encap,
    /// VLAN of the PA network.
    pub vlan: Option<VlanId>,
    /// Largest outer IP packet.
    pub mtu: u16,
}

impl TunnelPath {
    /// The path of a policy's tunnel: direct if the other host is on our prefix, otherwise by the gateway.
    pub(crate) fn new(snapshot: &Snapshot, spec: &TunnelSpec) -> Self {
        let local = snapshot.local_pas.iter().find(|pa| pa.addr == spec.local_pa);
        let next_hop = local.and_then(|pa| {
            if pa.prefix.contains(spec.remote_pa) { Some(spec.remote_pa) } else { pa.gateway }
        });
        TunnelPath {
            index: spec.index,
            uplink: spec.uplink,
            local: spec.local_pa,
            remote: spec.remote_pa,
            next_hop,
            encap: spec.encap,
            vlan: spec.vlan,
            mtu: spec.mtu,
        }
    }

    /// The next hop of this tunnel, `pa` being the number of our address. Only IPv4 next hops can be resolved.
    pub(super) fn hop(&self, pa: u8) -> Option<NextHopId> {
        match self.next_hop {
            Some(IpAddr::V4(addr)) => Some(NextHopId { pa, addr }),
            _ => None,
        }
    }

    /// The NIC's tunnel entry. `None`: the two addresses are of different families.
    pub(super) fn tunnel(&self, src_mac: MacAddr, dst_mac: MacAddr, uplink: u8) -> Option<Tunnel> {
        let spec = OuterSpec {
            encap: self.encap,
            src_mac,
            dst_mac,
            vlan: self.vlan,
            src: self.local,
            dst: self.remote,
        };
        let template = spec.template().ok()?;
        // The MTU counts from the outer IP header on.
        let outer = u16::from(template.len - template.ip_offset);
        Some(Tunnel::new(&template, uplink, self.mtu.saturating_sub(outer)))
    }
}
