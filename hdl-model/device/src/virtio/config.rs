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

/// What a VF may still send in its turn: a chain of many descriptors, or of many bytes, takes as much of the engine's time
/// as many frames. A chain that is longer than the rest leaves a debt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TxBudget {
    /// Chains.
    pub frames: usize,
    /// Their descriptors.
    pub descriptors: i64,
    /// Bytes of their frames.
    pub bytes: i64,
}

impl TxBudget {
    /// Whether another chain may be taken.
    pub fn lasts(&self) -> bool {
        self.frames > 0 && self.descriptors > 0 && self.bytes > 0
    }

    /// A new turn with this much; debts remain.
    pub fn renew(&mut self, turn: TxBudget) {
        self.frames = turn.frames;
        self.descriptors = self.descriptors.saturating_add(turn.descriptors).min(turn.descriptors);
        self.bytes = self.bytes.saturating_add(turn.bytes).min(turn.bytes);
    }

    /// Charges what a chain has caused beyond itself.
    pub fn charge_more(&mut self, descriptors: usize, bytes: usize) {
        self.descriptors = self.descriptors.saturating_sub(descriptors as i64);
        self.bytes = self.bytes.saturating_sub(bytes as i64);
    }

    /// Charges a chain.
    pub(super) fn charge(&mut self, descriptors: usize, bytes: usize) {
        self.frames = self.frames.saturating_sub(1);
        self.charge_more(descriptors, bytes);
    }
}

/// How far a frame for a guest has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// It is in the guest's buffers.
    Done,
    /// A thread of the VF will put it there: [`take_late`](super::NetDevice::take_late) tells what became of it.
    Queued,
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
    /// Number of causes.
    pub const COUNT: usize = 3;
    /// All causes, in the order of their counters.
    pub const ALL: [Self; Self::COUNT] = [Self::NoBuffer, Self::Stopped, Self::TooLong];

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
    /// Taken from the guest, and not yet passed on when the guest reset its device.
    Reset,
}

impl Discard {
    /// Number of causes.
    pub const COUNT: usize = 4;
    /// All causes, in the order of their counters.
    pub const ALL: [Self; Self::COUNT] = [Self::Truncated, Self::Oversize, Self::BadOffload, Self::Reset];

    /// The reason under which the board counts such a drop.
    pub const fn reason(self) -> Reason {
        match self {
            Self::Truncated => Reason::Runt,
            Self::Oversize => Reason::TooLong,
            Self::BadOffload => Reason::BadDescriptor,
            Self::Reset => Reason::QueueReset,
        }
    }
}
