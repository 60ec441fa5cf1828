//! Feature bits and register layout of virtio-net over PCI.

/// Feature bits (virtio 1.2, 5.1.3 and 6).
pub(super) mod feature {
    pub(in super::super) const CSUM: u64 = 1 << 0;
    pub(in super::super) const GUEST_CSUM: u64 = 1 << 1;
    pub(in super::super) const MTU: u64 = 1 << 3;
    pub(in super::super) const MAC: u64 = 1 << 5;
    pub(in super::super) const MRG_RXBUF: u64 = 1 << 15;
    pub(in super::super) const STATUS: u64 = 1 << 16;
    pub(in super::super) const CTRL_VQ: u64 = 1 << 17;
    pub(in super::super) const CTRL_RX: u64 = 1 << 18;
    pub(in super::super) const CTRL_VLAN: u64 = 1 << 19;
    pub(in super::super) const CTRL_MAC_ADDR: u64 = 1 << 23;
    pub(in super::super) const EVENT_IDX: u64 = 1 << 29;
    pub(in super::super) const VERSION_1: u64 = 1 << 32;
    pub(in super::super) const ACCESS_PLATFORM: u64 = 1 << 33;

    /// Offered always; `ACCESS_PLATFORM` as configured. No segmentation, no indirect descriptors.
    pub(in super::super) const OFFERED: u64 = CSUM
        | GUEST_CSUM
        | MTU
        | MAC
        | MRG_RXBUF
        | STATUS
        | CTRL_VQ
        | CTRL_RX
        | CTRL_VLAN
        | CTRL_MAC_ADDR
        | EVENT_IDX
        | VERSION_1;
}

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
