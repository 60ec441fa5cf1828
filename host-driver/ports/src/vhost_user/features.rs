//! What a guest and its network device have agreed on (virtio 1.2, 5.1.3 and 6; vhost-user).

use culvert_packet::{ChecksumState, Gso, Offload};
use culvert_virtio::feature::{
    CSUM, EVENT_IDX, GUEST_CSUM, GUEST_ECN, GUEST_TSO4, GUEST_TSO6, GUEST_USO4, GUEST_USO6, HOST_ECN,
    HOST_TSO4, HOST_TSO6, HOST_USO, INDIRECT_DESC, MQ, MRG_RXBUF, VERSION_1,
};

/// Not of the device, but of the connection to its VMM.
const PROTOCOL_FEATURES: u64 = 1 << 30;

/// What guest and device have agreed on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Features(u64);

impl Features {
    /// What is offered.
    pub(super) const OFFERED: u64 = CSUM
        | GUEST_CSUM
        | GUEST_TSO4
        | GUEST_TSO6
        | GUEST_ECN
        | HOST_TSO4
        | HOST_TSO6
        | HOST_ECN
        | MRG_RXBUF
        | MQ
        | INDIRECT_DESC
        | EVENT_IDX
        | PROTOCOL_FEATURES
        | VERSION_1
        | GUEST_USO4
        | GUEST_USO6
        | HOST_USO;

    /// `None`: something that was not offered.
    pub(super) fn accept(bits: u64) -> Option<Self> {
        (bits & !Self::OFFERED == 0).then_some(Features(bits))
    }

    fn has(self, bits: u64) -> bool {
        self.0 & bits == bits
    }

    pub(super) fn event_idx(self) -> bool {
        self.has(EVENT_IDX)
    }

    pub(super) fn indirect(self) -> bool {
        self.has(INDIRECT_DESC)
    }

    pub(super) fn mergeable(self) -> bool {
        self.has(MRG_RXBUF)
    }

    /// Whether rings begin disabled (vhost-user, ring states).
    pub(super) fn protocol(self) -> bool {
        self.has(PROTOCOL_FEATURES)
    }

    /// Length of the header before a frame (5.1.6): old drivers leave out the count of buffers where it has no use.
    pub(super) fn header_len(self) -> usize {
        if self.has(VERSION_1) || self.mergeable() { 12 } else { 10 }
    }

    /// Whether the guest is told of checksums that are complete, or completes them itself.
    pub(super) fn guest_checksum(self) -> bool {
        self.has(GUEST_CSUM)
    }

    /// Whether the guest takes frames whole that are to be cut in this way.
    pub(super) fn guest_takes(self, gso: Gso) -> bool {
        let bits = match gso {
            Gso::None => return true,
            Gso::TcpV4 => GUEST_TSO4,
            Gso::TcpV6 => GUEST_TSO6,
            Gso::Udp => GUEST_USO4 | GUEST_USO6,
        };
        self.has(bits | GUEST_CSUM)
    }

    /// Whether the guest may ask for this.
    pub(super) fn guest_may_ask(self, offload: &Offload) -> bool {
        let bits = match offload.gso {
            Gso::None => 0,
            Gso::TcpV4 => HOST_TSO4,
            Gso::TcpV6 => HOST_TSO6,
            Gso::Udp => HOST_USO,
        };
        self.has(bits) && (offload.checksum != ChecksumState::Partial || self.has(CSUM))
    }
}
