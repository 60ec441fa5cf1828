//! The measured work: flows of one kind, their tables, their frames.

use culvert_abi::soc::Sizes;
use culvert_flow::record::{Actions, FlowHot, FlowRecord};
use culvert_flow::tables::{Peer, Tunnel, Vport};
use culvert_flow::{HashSecret, Port, key};
use culvert_lockstep::frames::{Outer, encapsulate, ethernet, ipv4, tcp};
use culvert_packet::encap::OuterSpec;
use culvert_packet::{Encap, MacAddr, VportId, parse};

/// The local provider address.
pub const LOCAL: [u8; 4] = [192, 168, 1, 10];
/// The remote provider address.
pub const REMOTE: [u8; 4] = [192, 168, 2, 20];
/// MAC of the remote provider address.
pub const REMOTE_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
/// Destination MAC of frames from the wire.
pub const WIRE_MAC: [u8; 6] = [2, 0, 0, 0, 1, 1];
/// The VSID of all flows.
pub const VSID: u32 = 5001;
/// The FlowID of NVGRE frames from the wire (RFC 7637 section 3.2).
pub const FLOW_ID: u8 = 0x5a;
/// Generation of vports and mappings.
const GENERATION: u32 = 7;

/// Direction and encapsulation of each packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// Decapsulation of frames from the wire, instead of encapsulation.
    pub decap: bool,
    /// Encapsulation.
    pub encap: Encap,
}

impl Kind {
    /// All four.
    pub const ALL: [Kind; 4] = [
        Kind { decap: false, encap: Encap::Vxlan },
        Kind { decap: true, encap: Encap::Vxlan },
        Kind { decap: false, encap: Encap::Nvgre },
        Kind { decap: true, encap: Encap::Nvgre },
    ];

    /// Its name in tables.
    pub fn name(self) -> String {
        format!("{} {}", self.encap, if self.decap { "decap" } else { "encap" })
    }
}

/// The port that receives its packets.
pub fn input(kind: Kind) -> Port {
    if kind.decap { Port::Uplink(0) } else { Port::Vport(VportId(0)) }
}

/// Vport 0 on VF 0.
pub fn vport() -> Vport {
    Vport {
        flags: Vport::PRESENT | Vport::UP,
        vsid: VSID,
        generation: GENERATION,
        quota: u32::MAX,
        ..Vport::default()
    }
}

/// The local and the remote provider address.
pub fn addresses() -> (Peer, Peer) {
    let peer = |a: [u8; 4], index| {
        let mut addr = [0; 16];
        addr[..4].copy_from_slice(&a);
        Peer { addr, family: 4, index, reserved: 0 }
    };
    (peer(LOCAL, 0), peer(REMOTE, 1))
}

/// The tunnel to the remote provider address.
pub fn tunnel(encap: Encap) -> Tunnel {
    let spec = OuterSpec {
        encap,
        src_mac: MacAddr([2, 0, 0, 0, 0, 1]),
        dst_mac: MacAddr(REMOTE_MAC),
        vlan: None,
        src: LOCAL.into(),
        dst: REMOTE.into(),
    };
    Tunnel::new(&spec.template().expect("both addresses are IPv4"), 0, 1550)
}

/// The hash's secret.
pub fn secret() -> HashSecret {
    HashSecret(std::array::from_fn(|i| (i as u64 + 3).wrapping_mul(0x9e37_79b9_7f4a_7c15)))
}

/// Sizes of tables for `flows` flows, which fill them to two thirds at most.
pub fn sizes(flows: u32) -> Sizes {
    Sizes::new((flows * 3 / 2).next_power_of_two().ilog2().max(10))
}

/// The hosts of flow `n`: the lower half is the source in 10.1.0.0/16, the upper half the destination in 10.2.0.0/16. No two
/// flows have the same.
pub fn host(n: u32) -> u32 {
    n.wrapping_mul(2_654_435_761)
}

/// Source port of flow `n`.
pub fn port(n: u32) -> u16 {
    1024 + (n % 60_000) as u16
}

/// MACs of senders and of receivers.
pub const MACS: [[u8; 6]; 2] = [[0, 0x1d, 0xd8, 7, 0, 1], [0, 0x1d, 0xd8, 7, 0, 2]];
/// Addresses of the two hosts whose flows differ by port alone.
pub const PAIR: [[u8; 4]; 2] = [[10, 1, 1, 11], [10, 1, 1, 12]];

/// A frame of flow `n` from the guest, or from the wire; its inner frame has `len` bytes with the Ethernet header.
pub fn frame(kind: Kind, n: u32, len: usize) -> Vec<u8> {
    let host = host(n);
    let ends = [[10, 1, (host >> 8) as u8, host as u8], [10, 2, (host >> 24) as u8, (host >> 16) as u8]];
    frame_between(kind, ends, n, len)
}

/// A frame of flow `n` between the two hosts of [`PAIR`].
pub fn pair_frame(kind: Kind, n: u32, len: usize) -> Vec<u8> {
    frame_between(kind, PAIR, n, len)
}

fn frame_between(kind: Kind, [src, dst]: [[u8; 4]; 2], n: u32, len: usize) -> Vec<u8> {
    let segment = tcp(&src, &dst, (port(n), 443), 0x10, &vec![0x5a; len - 54]);
    let inner = ethernet(MACS[1], MACS[0], 0x0800, &ipv4(src, dst, 6, 64, 0, 0x4000, &segment));
    if !kind.decap {
        return inner;
    }
    let nvgre = kind.encap == Encap::Nvgre;
    encapsulate(&Outer { addresses: (REMOTE, LOCAL), vsid: VSID, nvgre, ecn: 0 }, &inner)
}

/// The record of flow `n`.
pub fn record(kind: Kind, n: u32) -> FlowRecord {
    let inner = frame(Kind { decap: false, ..kind }, n, 64);
    let headers = parse(&inner).expect("a well-formed frame");
    let common = FlowHot {
        gen_dst: GENERATION,
        gen_src: GENERATION,
        entropy: 0xc000 | n as u16,
        ..FlowHot::default()
    };
    let copy = Actions::COPY_TCP_CONTROL;
    let (key, hot) = if kind.decap {
        let hot = FlowHot { actions: (Actions::POP_OUTER | copy).bits(), out: 0, ..common };
        (key::inbound(kind.encap, VSID, 1, &inner, &headers), hot)
    } else {
        let out = Port::None.bits();
        let hot =
            FlowHot { actions: (Actions::PUSH_OUTER | copy).bits(), out, vsid: VSID, gen_dst: 0, ..common };
        (key::outbound(VportId(0), &inner, &headers), hot)
    };
    FlowRecord { key, hot, ..FlowRecord::default() }
}
