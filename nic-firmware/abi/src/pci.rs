//! Identities of the PCIe functions.

/// Vendor id. VFs share it, as PCIe requires (SR-IOV 3.4.1.1), and a virtio device has 0x1af4.
pub const VENDOR: u16 = 0x1af4;
/// Device id of the PF: in the range that the vendor keeps for experiments, outside that of virtio devices.
pub const PF_DEVICE: u16 = 0x10f0;
/// Device id of a VF: virtio-net, modern (virtio 1.2, 4.1.2.1).
pub const VF_DEVICE: u16 = 0x1041;
/// Revision of the PF.
pub const PF_REVISION: u8 = 1;
/// Class code of both: network controller, Ethernet.
pub const CLASS_ETHERNET: u32 = 0x02_00_00;
/// VFs that a PF can have.
pub const TOTAL_VFS: u16 = 64;
/// MSI-X vectors of the PF: 0 for events, 1 for the mailbox, 2 + n for PF queue n.
pub const PF_VECTORS: u16 = 32;
/// Vector that reports link, firmware and VF events.
pub const VECTOR_EVENT: u16 = 0;
/// Vector of the mailbox's reply.
pub const VECTOR_MAILBOX: u16 = 1;
/// Vector of PF queue 0.
pub const VECTOR_QUEUE0: u16 = 2;
