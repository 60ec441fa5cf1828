//! The packet that a decision is about.

use core::net::IpAddr;

use culvert_flow::FlowKey;
use culvert_packet::{Encap, Family, Fragment, Headers, MacAddr, Reason, VportId};

/// Where a packet came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// From a vport of this host.
    Vport(VportId),
    /// From another host.
    Wire {
        /// Its index.
        peer: u16,
        /// How the packet was carried.
        encap: Encap,
        /// Its VSID.
        vsid: u32,
    },
}

/// A packet without a flow record.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// Where it came in.
    pub input: Input,
    /// The inner frame.
    pub frame: &'a [u8],
    /// Its headers.
    pub headers: Headers,
    /// Its flow key.
    pub key: FlowKey,
}

impl Packet<'_> {
    pub(super) fn dst_mac(&self) -> MacAddr {
        MacAddr(self.key.dst_mac)
    }

    pub(super) fn src_mac(&self) -> MacAddr {
        MacAddr(self.key.src_mac)
    }

    /// Source and destination address of an IP packet.
    pub(super) fn addresses(&self) -> Option<(IpAddr, IpAddr)> {
        let v4 = |a: &[u8; 16]| IpAddr::from([a[0], a[1], a[2], a[3]]);
        match self.headers.family {
            Family::V4 => Some((v4(&self.key.src), v4(&self.key.dst))),
            Family::V6 => Some((IpAddr::from(self.key.src), IpAddr::from(self.key.dst))),
            Family::Arp | Family::Other => None,
        }
    }

    /// Whether flows of such packets can be installed.
    pub(super) fn offload(&self) -> Result<(), Reason> {
        if self.headers.fragment == Fragment::None { Ok(()) } else { Err(Reason::FragmentsNotOffloaded) }
    }
}
