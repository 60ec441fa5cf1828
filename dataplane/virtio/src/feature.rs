//! Feature bits of a network device (virtio 1.2, 5.1.3 and 6).

/// The device completes checksums.
pub const CSUM: u64 = 1 << 0;
/// The driver takes frames with incomplete checksums.
pub const GUEST_CSUM: u64 = 1 << 1;
/// The device says the largest MTU.
pub const MTU: u64 = 1 << 3;
/// The device has a MAC address.
pub const MAC: u64 = 1 << 5;
/// The driver takes TCP over IPv4 to be segmented.
pub const GUEST_TSO4: u64 = 1 << 7;
/// The driver takes TCP over IPv6 to be segmented.
pub const GUEST_TSO6: u64 = 1 << 8;
/// The driver takes TCP with ECN to be segmented.
pub const GUEST_ECN: u64 = 1 << 9;
/// The device segments TCP over IPv4.
pub const HOST_TSO4: u64 = 1 << 11;
/// The device segments TCP over IPv6.
pub const HOST_TSO6: u64 = 1 << 12;
/// The device segments TCP with ECN.
pub const HOST_ECN: u64 = 1 << 13;
/// A received frame may lie in several buffers.
pub const MRG_RXBUF: u64 = 1 << 15;
/// The device says whether its link is up.
pub const STATUS: u64 = 1 << 16;
/// There is a control queue.
pub const CTRL_VQ: u64 = 1 << 17;
/// The control queue sets the receive mode.
pub const CTRL_RX: u64 = 1 << 18;
/// The control queue sets VLANs.
pub const CTRL_VLAN: u64 = 1 << 19;
/// There may be several pairs of queues.
pub const MQ: u64 = 1 << 22;
/// The control queue sets the MAC address.
pub const CTRL_MAC_ADDR: u64 = 1 << 23;
/// Descriptors may point to tables of descriptors.
pub const INDIRECT_DESC: u64 = 1 << 28;
/// Notifications are suppressed by index.
pub const EVENT_IDX: u64 = 1 << 29;
/// Virtio 1: not a legacy device.
pub const VERSION_1: u64 = 1 << 32;
/// The device's addresses are those of a platform's IOMMU.
pub const ACCESS_PLATFORM: u64 = 1 << 33;
/// The driver takes UDP over IPv4 to be segmented.
pub const GUEST_USO4: u64 = 1 << 54;
/// The driver takes UDP over IPv6 to be segmented.
pub const GUEST_USO6: u64 = 1 << 55;
/// The device segments UDP.
pub const HOST_USO: u64 = 1 << 56;
