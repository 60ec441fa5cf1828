//! SoC memory: its map, the rings between board and firmware, and the control block.
//!
//! The memory is a file that both map. The board owns all packet buffers: each one that it hands to the firmware comes
//! back in exactly one descriptor that has [`RELEASE`] set. Ring indices count descriptors, wrapping, one writer each,
//! written with Release and read with Acquire.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::offload::OffloadBits;

/// Where RAM begins for the SoC's processor.
pub const RAM_BASE: u64 = 0x8000_0000;
/// Bytes of RAM.
pub const RAM_LEN: u64 = 256 << 20;
/// Image, data and stacks of the firmware: from [`RAM_BASE`].
pub const IMAGE_LEN: u64 = 16 << 20;
/// Offset of the control block ([`ctrl`]).
pub const CTRL: u64 = 0x0100_0000;
/// Offset of the ring from board to firmware.
pub const RX_RING: u64 = 0x0110_0000;
/// Its entries.
pub const RX_SIZE: u32 = 1024;
/// Offset of the ring from firmware to board.
pub const TX_RING: u64 = 0x0120_0000;
/// Its entries.
pub const TX_SIZE: u32 = 4096;
/// Offset of the header scratch: [`HEADER_LEN`] bytes for each entry of the ring to the board. A descriptor with
/// `header_len` is preceded on the wire by that many bytes of its entry's scratch.
pub const TX_HEADERS: u64 = 0x0130_0000;
/// Scratch of one entry.
pub const HEADER_LEN: u32 = 128;
/// Offset of the log ring.
pub const LOG: u64 = 0x0140_0000;
/// Offset of the panic report: zero-terminated text.
pub const PANIC: u64 = 0x0141_0000;
/// Offset of the tables, laid out by the firmware in the order of [`Sizes`].
pub const TABLES: u64 = 0x0200_0000;
/// Offset of the packet buffers.
pub const BUFFERS: u64 = 0x0c00_0000;
/// Bytes of a packet buffer.
pub const BUFFER_LEN: u32 = 2048;
/// Bytes kept free in front of a frame, for outer headers. A multiple of 64, plus 2: the IP header is then aligned.
pub const HEADROOM: u32 = 130;
/// Number of packet buffers.
pub const BUFFER_COUNT: u32 = 8192;

/// Words of the control block, each on a line of its own: offsets from [`CTRL`].
pub mod ctrl {
    /// u32, firmware: [`READY`](super::READY) when it serves the rings; 0 while it starts (the board clears it).
    pub const FW_READY: u64 = 0x000;
    /// u32, firmware: its [`VERSION`](crate::VERSION).
    pub const FW_ABI: u64 = 0x040;
    /// u32, firmware: counts up while it lives, at least ten times a second.
    pub const HEARTBEAT: u64 = 0x080;
    /// u32, firmware: 1 while it sleeps in `wfi` or is about to.
    pub const FW_SLEEPS: u64 = 0x0c0;
    /// u32, board: 1 while it sleeps or is about to; the firmware then rings.
    pub const BOARD_SLEEPS: u64 = 0x100;
    /// u32, board: descriptors produced in the ring to the firmware.
    pub const RX_PRODUCED: u64 = 0x140;
    /// u32, firmware: descriptors consumed of it.
    pub const RX_CONSUMED: u64 = 0x180;
    /// u32, firmware: descriptors produced in the ring to the board.
    pub const TX_PRODUCED: u64 = 0x1c0;
    /// u32, board: descriptors consumed of it.
    pub const TX_CONSUMED: u64 = 0x200;
    /// u32, board: number of the mailbox request.
    pub const MBOX_BELL: u64 = 0x240;
    /// u32, firmware: number of the request answered.
    pub const MBOX_DONE: u64 = 0x280;
    /// u64, firmware: bytes ever written to the log.
    pub const LOG_HEAD: u64 = 0x2c0;
    /// u32, board: boot epoch, set before the processor starts.
    pub const EPOCH: u64 = 0x300;
    /// u32, board: log2 of the number of flow records wanted (13 to 21), set before the processor starts; 0: 17.
    pub const FLOWS_LOG2: u64 = 0x304;
    /// u64, firmware: packets finished without waiting for the host.
    pub const FINISHED: u64 = 0x340;
    /// u64, firmware: packets given to the host.
    pub const PUNTED: u64 = 0x348;
    /// u32, board: 1: no pauses, exit when rings are empty (instruction counting).
    pub const BENCH: u64 = 0x380;
    /// u64, firmware: instructions retired over the last measured batch, and packets in it.
    pub const BENCH_INSTRET: u64 = 0x3c0;
    /// u64, firmware: packets of that batch.
    pub const BENCH_PACKETS: u64 = 0x3c8;
    /// Request words.
    pub const MBOX_REQUEST: u64 = 0x400;
    /// Reply words.
    pub const MBOX_REPLY: u64 = 0x500;
}

/// Value of `FW_READY`.
pub const READY: u32 = 0x4c49_5645;

/// One descriptor, either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(8))]
pub struct Descriptor {
    /// Number of the packet buffer; [`NO_BUFFER`] for none.
    pub buffer: u32,
    /// Where the frame or payload begins in it.
    pub offset: u16,
    /// Its length.
    pub len: u16,
    /// [`Op`](crate::command::Op).
    pub op: u8,
    /// `Reason` number, or 0.
    pub reason: u8,
    /// [`RELEASE`] and the following.
    pub flags: u16,
    /// `Frame`: [`BoardPort`] it came in by. Host operations: `flow::Port` bits. `Transmit`: [`BoardPort`].
    /// `Upcall`, `Drop`: [`BoardPort`] that it once came in by.
    pub port: u16,
    /// Host operations: `target`. `Upcall`: PF queue.
    pub target: u16,
    /// Pending ticket, 0 for none.
    pub ticket: u32,
    /// Completion cookie.
    pub cookie: u32,
    /// Time, milliseconds, wrapping; set by the board in every descriptor to the firmware.
    pub now: u32,
    /// As the operation says.
    pub arg0: u32,
    /// `flow::Port` bits of the input port (`Upcall`).
    pub vport: u16,
    /// Index of the outer source PA (`Upcall`).
    pub peer: u16,
    /// Bytes of this entry's header scratch that go in front (`Transmit`).
    pub header_len: u16,
    /// Bytes of outer headers in front of the inner frame (`Upcall`).
    pub inner: u16,
    /// As the operation says.
    pub arg1: u64,
    /// Offload metadata.
    pub offload: OffloadBits,
    /// VSID of an encapsulated packet (`Upcall`).
    pub vsid: u32,
    /// 0.
    pub reserved: u32,
}

/// No packet buffer.
pub const NO_BUFFER: u32 = u32::MAX;
/// Flag: the buffer goes back to the board when this descriptor is done.
pub const RELEASE: u16 = 1 << 0;
/// Flag: before anything else, the first bytes go to the host as a copy (TCP control); `arg1` is the connection.
pub const COPY: u16 = 1 << 1;
/// Flag: to be copied to the capture queue as well.
pub const CAPTURE: u16 = 1 << 2;
/// Flag of `Frame` and injected ones: this packet has used up one unit of its VF's upcall share (`Upcall`), or
/// gives it back.
pub const SHARE: u16 = 1 << 3;

/// Ports in the board's numbering, 16 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BoardPort {
    /// VF 0 to 63.
    Vf(u8),
    /// A PF queue, by number.
    Queue(u8),
    /// A MAC port.
    Uplink(u8),
    /// None of them.
    None,
}

impl BoardPort {
    /// The 16 bits.
    #[inline(always)]
    pub const fn bits(self) -> u16 {
        match self {
            BoardPort::Vf(n) => n as u16,
            BoardPort::Queue(n) => 0x100 + n as u16,
            BoardPort::Uplink(n) => 0x200 + n as u16,
            BoardPort::None => 0xffff,
        }
    }

    /// From the 16 bits.
    #[inline(always)]
    pub const fn from_bits(bits: u16) -> Self {
        match bits >> 8 {
            0 if bits < 64 => BoardPort::Vf(bits as u8),
            1 => BoardPort::Queue(bits as u8),
            2 => BoardPort::Uplink(bits as u8),
            _ => BoardPort::None,
        }
    }
}

const _: () = {
    assert!(size_of::<Descriptor>() == 64);
    assert!(core::mem::offset_of!(Descriptor, op) == 8 && core::mem::offset_of!(Descriptor, now) == 24);
    assert!(BUFFERS + BUFFER_LEN as u64 * BUFFER_COUNT as u64 <= RAM_LEN);
};

/// How many entries the firmware's tables have. They lie from [`TABLES`] on, each table aligned to 4 KiB, in this order:
/// buckets, keys, hot parts, cold parts, tunnels, groups, peers, vports, mapping cells, pending slots, waiting links.
pub use culvert_flow::TableSizes as Sizes;

const _: () = assert!((1u64 << 19) * (192 + 2) < BUFFERS - TABLES - (4 << 20));
