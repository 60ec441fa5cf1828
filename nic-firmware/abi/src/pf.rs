//! Rings in host memory between the driver and the board's queue engine.
//!
//! A ring is one page-aligned piece of DMA memory: [`RING_HEADER`] bytes of indices, then its entries. Indices count
//! entries ever produced, wrapping; entry `i` is at `i % size`. Each index has one writer.
//!
//! * Queue 0 (host to NIC): the host writes entries and then `host_index`; the board takes them and writes `nic_index`.
//!   A buffer that an entry names belongs to the board until `nic_index` has passed it.
//! * Other queues (NIC to host): the host writes entries with empty buffers and then `host_index`; the board fills
//!   buffer and entry and then writes `nic_index`.
//! * The board sets `nic_sleeps` before it sleeps and looks at `host_index` once more; the host, after it has written
//!   `host_index`, fences, and rings the queue's bell if `nic_sleeps` is set. The same the other way round with
//!   `host_sleeps` and the queue's interrupt.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub use crate::offload::OffloadBits;

/// Bytes before the first entry: one line for each word.
pub const RING_HEADER: u64 = 256;
/// Offset of `host_index` (u32, written by the host).
pub const HOST_INDEX: u64 = 0;
/// Offset of `host_sleeps` (u32, written by the host).
pub const HOST_SLEEPS: u64 = 64;
/// Offset of `nic_index` (u32, written by the board).
pub const NIC_INDEX: u64 = 128;
/// Offset of `nic_sleeps` (u32, written by the board).
pub const NIC_SLEEPS: u64 = 192;
/// Longest frame or payload of an entry: a packet buffer of the SoC less its headroom.
pub const MAX_PAYLOAD: u32 = crate::soc::BUFFER_LEN - crate::soc::HEADROOM;

/// Bytes of a ring.
pub const fn ring_len(size_log2: u32) -> u64 {
    RING_HEADER + ((size_of::<Entry>() as u64) << size_log2)
}

/// One entry, either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(8))]
pub struct Entry {
    /// I/O address of the buffer; written by the host.
    pub addr: u64,
    /// Queue 0: bytes to take. Others: bytes of the buffer (host), then bytes in it (board).
    pub len: u32,
    /// [`Op`](crate::command::Op): queue 0 as the host says; others `Upcall`, `Complete` or `Transmit` (a frame).
    pub op: u8,
    /// `Reason` number.
    pub reason: u8,
    /// Vport or uplink that the packet came in by: `flow::Port` as bits.
    pub port: u16,
    /// Where it leaves (`InjectOut`): `flow::Port` as bits. To the host: bit 0 set: the flow record is not pending and
    /// the packet itself has gone on, this is a copy.
    pub target: u16,
    /// Index of the outer source PA of an inbound packet.
    pub peer: u16,
    /// Pending slot in the low half, sequence in the high half; 0 for none.
    pub ticket: u32,
    /// Chosen by the host; comes back with the completion. 0: no completion wanted.
    pub cookie: u32,
    /// As the operation says.
    pub arg0: u32,
    /// As the operation says. To the host: the connection of a copied segment.
    pub arg1: u64,
    /// Time, milliseconds, wrapping (board).
    pub now: u32,
    /// Bytes of outer headers in front of the inner frame (upcalls from the wire), else 0.
    pub inner: u16,
    /// Capture: original length.
    pub original_len: u16,
    /// Offload metadata.
    pub offload: OffloadBits,
    /// VSID of an encapsulated packet.
    pub vsid: u32,
    /// 0.
    pub reserved: u32,
}

const _: () = {
    assert!(size_of::<Entry>() == 64);
    assert!(core::mem::offset_of!(Entry, ticket) == 20 && core::mem::offset_of!(Entry, arg1) == 32);
    assert!(core::mem::offset_of!(Entry, offload) == 48);
};
