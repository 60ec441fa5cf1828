//! Feature bits and register layout of virtio-net over PCI.

use culvert_virtio::feature;

/// Features that are always offered; `ACCESS_PLATFORM` as configured. No segmentation, no indirect descriptors.
pub(super) const OFFERED: u64 = feature::CSUM
    | feature::GUEST_CSUM
    | feature::MTU
    | feature::MAC
    | feature::MRG_RXBUF
    | feature::STATUS
    | feature::CTRL_VQ
    | feature::CTRL_RX
    | feature::CTRL_VLAN
    | feature::CTRL_MAC_ADDR
    | feature::EVENT_IDX
    | feature::VERSION_1;

/// Bits of the device status (2.1).
pub(super) mod status {
    pub(in super::super) const FEATURES_OK: u8 = 8;
    pub(in super::super) const DRIVER_OK: u8 = 4;
    pub(in super::super) const NEEDS_RESET: u8 = 0x40;
}

/// Queues: receive, transmit, control.
pub(super) const RX: usize = 0;
pub(super) const TX: usize = 1;
pub(super) const CONTROL: usize = 2;
pub(super) const QUEUES: usize = 3;
/// Largest queue that is offered, as vhost-user's: a sender that cuts segments sends dozens of frames at a time.
pub(super) const MAX_QUEUE_SIZE: u16 = 1024;

/// Vectors: configuration, receive, transmit, and one to spare for control.
pub(super) const VECTORS: u16 = 4;
/// `VIRTIO_MSI_NO_VECTOR`.
pub(super) const NO_VECTOR: u16 = 0xffff;

/// Length of `virtio_net_hdr` with `num_buffers`, which `VERSION_1` always has.
pub(super) const HEADER_LEN: usize = 12;
/// Flags of `virtio_net_hdr`.
pub(super) const NEEDS_CSUM: u8 = 1;
pub(super) const DATA_VALID: u8 = 2;
/// `VIRTIO_NET_S_LINK_UP`.
pub(super) const LINK_UP: u16 = 1;

/// BAR 0: one page for each structure.
pub(super) mod bar {
    pub(in super::super) const LEN: u64 = 0x4000;
    pub(in super::super) const COMMON: u32 = 0x0000;
    pub(in super::super) const ISR: u32 = 0x1000;
    pub(in super::super) const DEVICE: u32 = 0x2000;
    pub(in super::super) const NOTIFY: u32 = 0x3000;
    pub(in super::super) const PAGE: u32 = 0x1000;
    /// Distance between the queues' notification registers.
    pub(in super::super) const NOTIFY_STRIDE: u32 = 4;
}
