//! A VF's settings by the host, and the results of its frames for the queue engine.

use std::collections::BTreeSet;

use culvert_packet::Reason;

/// Which VLANs a guest may add to its receive filter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum VlanPolicy {
    /// None: every `VLAN_ADD` is refused.
    #[default]
    Nothing,
    /// These ids.
    Only(BTreeSet<u16>),
    /// All of 1 to 4094.
    Any,
}

impl VlanPolicy {
    /// Whether the guest may receive frames of this VLAN.
    pub fn allows(&self, vlan: u16) -> bool {
        match self {
            Self::Nothing => false,
            Self::Only(ids) => ids.contains(&vlan),
            Self::Any => (1..=4094).contains(&vlan),
        }
    }
}

/// The host's settings of a VF. The guest sees address, MTU and link in the device configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VfConfig {
    /// MAC address of the port.
    pub mac: [u8; 6],
    /// Largest layer 3 packet in bytes, 68 to 65535.
    pub mtu: u16,
    /// Whether the guest may set another MAC address.
    pub allow_mac_change: bool,
    /// Whether the guest may ask for promiscuous or all-multicast reception.
    pub allow_promisc: bool,
    /// VLANs that the guest may add.
    pub vlans: VlanPolicy,
    /// Link state that the guest sees.
    pub link_up: bool,
    /// Offer `VIRTIO_F_ACCESS_PLATFORM`: needed where the guest has a virtual IOMMU.
    pub access_platform: bool,
}

impl VfConfig {
    /// A port with this address, its link up, that allows the guest nothing beyond it.
    pub fn new(mac: [u8; 6], mtu: u16) -> Self {
        Self {
            mac,
            mtu,
            allow_mac_change: false,
            allow_promisc: false,
            vlans: VlanPolicy::Nothing,
            link_up: true,
            access_platform: true,
        }
    }
}

/// Checksum state of a transmitted frame (virtio 1.2, 5.1.6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// Complete, or of no concern.
    None,
    /// The device is to sum from `start` to the end and store the result at `start + offset`. Both are checked to lie
    /// inside the frame.
    Partial {
        /// First byte that is summed, counted from the frame's first byte.
        start: u16,
        /// Place of the checksum, counted from `start`.
        offset: u16,
    },
}

/// One transmitted frame, now in the engine's buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxFrame {
    /// Length in bytes, from the Ethernet header on, without FCS.
    pub len: usize,
    /// State of its checksum.
    pub csum: Checksum,
}

/// Why a frame was not delivered to a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RxError {
    /// The guest has posted no buffers, or too few for this frame.
    #[error("the guest has posted no receive buffer for the frame")]
    NoBuffer,
    /// The guest's driver is not running, or its queue stopped at a fault.
    #[error("the receive queue is not running")]
    Stopped,
    /// Without mergeable buffers: the one buffer is shorter than the frame.
    #[error("the frame is longer than the guest's receive buffer")]
    TooLong,
}

impl RxError {
    /// The reason under which the board counts such a drop.
    pub const fn reason(self) -> Reason {
        match self {
            Self::NoBuffer => Reason::RingFull,
            Self::Stopped => Reason::QueueStopped,
            Self::TooLong => Reason::TooLong,
        }
    }
}

/// Why a transmitted frame was discarded; the queue keeps running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Discard {
    /// Shorter than a virtio header and an Ethernet header.
    Truncated,
    /// Longer than the engine's buffer.
    Oversize,
    /// Checksum offsets outside the frame, or an offload that was not offered.
    BadOffload,
}

impl Discard {
    /// Number of causes.
    pub const COUNT: usize = 3;
    /// All causes, in the order of their counters.
    pub const ALL: [Self; Self::COUNT] = [Self::Truncated, Self::Oversize, Self::BadOffload];

    /// The reason under which the board counts such a drop.
    pub const fn reason(self) -> Reason {
        match self {
            Self::Truncated => Reason::Runt,
            Self::Oversize => Reason::TooLong,
            Self::BadOffload => Reason::BadDescriptor,
        }
    }
}
