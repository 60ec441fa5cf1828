//! Feature bits of a guest's network device (virtio 1.2, 5.1.3 and 6; vhost-user).

use culvert_packet::{ChecksumState, Gso, Offload};
use culvert_virtio::feature::{
    CSUM, EVENT_IDX, GUEST_CSUM, GUEST_ECN, GUEST_TSO4, GUEST_TSO6, GUEST_USO4, GUEST_USO6, HOST_ECN,
    HOST_TSO4, HOST_TSO6, HOST_USO, INDIRECT_DESC, MQ, MRG_RXBUF, VERSION_1,
};

use crate::tx_offload::TxOffloads;

/// A bit of the vhost-user connection, not of the device.
const PROTOCOL_FEATURES: u64 = 1 << 30;

/// The negotiated features.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Features(u64);

impl Features {
    /// The features that the device offers.
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

    /// Takes the driver's choice. `None`: it has a bit that was not offered.
    pub(super) fn negotiate(bits: u64) -> Option<Self> {
        (bits & !Self::OFFERED == 0).then_some(Features(bits))
    }

    fn has(self, bits: u64) -> bool {
        self.0 & bits == bits
    }

    /// Event indices suppress kicks and interrupts (2.7.10).
    pub(super) fn event_idx(self) -> bool {
        self.has(EVENT_IDX)
    }

    /// Chains may be in indirect tables (2.7.5.3).
    pub(super) fn indirect(self) -> bool {
        self.has(INDIRECT_DESC)
    }

    /// A frame may take several receive buffers (5.1.6.4).
    pub(super) fn mergeable(self) -> bool {
        self.has(MRG_RXBUF)
    }

    /// Whether vrings start disabled (vhost-user, ring states).
    pub(super) fn protocol(self) -> bool {
        self.has(PROTOCOL_FEATURES)
    }

    /// Length of the header before a frame (5.1.6): legacy drivers omit `num_buffers` without mergeable buffers.
    pub(super) fn header_len(self) -> usize {
        if self.has(VERSION_1) || self.mergeable() { 12 } else { 10 }
    }

    /// Whether the guest's header tells of checksums that are verified, or that the guest has to complete.
    pub(super) fn guest_checksum(self) -> bool {
        self.has(GUEST_CSUM)
    }

    /// Offloads that the guest completes itself.
    pub(super) fn guest_offloads(self) -> TxOffloads {
        TxOffloads {
            checksum: self.guest_checksum(),
            tso4: self.has(GUEST_TSO4 | GUEST_CSUM),
            tso6: self.has(GUEST_TSO6 | GUEST_CSUM),
            uso: self.has(GUEST_USO4 | GUEST_USO6 | GUEST_CSUM),
        }
    }

    /// Whether the guest may leave this offload to the device.
    pub(super) fn allows(self, offload: &Offload) -> bool {
        let bits = match offload.gso {
            Gso::None => 0,
            Gso::TcpV4 => HOST_TSO4,
            Gso::TcpV6 => HOST_TSO6,
            Gso::Udp => HOST_USO,
        };
        self.has(bits) && (offload.checksum != ChecksumState::Partial || self.has(CSUM))
    }
}
