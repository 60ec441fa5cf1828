//! BAR0 of the PF: 64 KiB, 32-bit registers, little-endian.
//!
//! A register access is slow (over vfio-user 12 to 16 microseconds): nothing per packet or per burst uses one, except
//! a doorbell when the other side sleeps.

/// Size of BAR0.
pub const BAR0_LEN: u64 = 0x1_0000;

/// Read: [`MAGIC_VALUE`].
pub const MAGIC: u32 = 0x000;
/// "CLVT".
pub const MAGIC_VALUE: u32 = u32::from_le_bytes(*b"CLVT");
/// Read: [`VERSION`](crate::VERSION) of the board.
pub const ABI: u32 = 0x004;
/// Read: MAC ports in bits 7:0, VFs in 15:8, PF queues in 23:16.
pub const CAPS: u32 = 0x008;
/// Read: link of MAC port n in bit n.
pub const LINK: u32 = 0x00c;
/// Read: [`FirmwareState`].
pub const FW_STATE: u32 = 0x010;
/// Read: counts the starts of the firmware since power-on.
pub const FW_EPOCH: u32 = 0x014;
/// Read: the firmware's heartbeat, counts up about ten times a second.
pub const FW_HEARTBEAT: u32 = 0x018;
/// Read: [`ImageError`](crate::image::ImageError) of the last load, or 0.
pub const FW_ERROR: u32 = 0x01c;
/// Write: [`FW_START`] loads the image at [`FW_IMAGE_LOW`] and starts it, [`FW_STOP`] stops it.
pub const FW_CONTROL: u32 = 0x020;
/// Loads and starts.
pub const FW_START: u32 = 1;
/// Stops.
pub const FW_STOP: u32 = 2;
/// I/O address of the image in host memory, low half.
pub const FW_IMAGE_LOW: u32 = 0x024;
/// High half.
pub const FW_IMAGE_HIGH: u32 = 0x028;
/// Length of the image.
pub const FW_IMAGE_LEN: u32 = 0x02c;
/// Read: events since the last read, cleared by it: [`EVENT_LINK`] and the following.
pub const EVENTS: u32 = 0x030;
/// A MAC port's link changed.
pub const EVENT_LINK: u32 = 1 << 0;
/// The firmware's state or epoch changed.
pub const EVENT_FIRMWARE: u32 = 1 << 1;
/// A VF was reset, or its driver came or went.
pub const EVENT_VF: u32 = 1 << 2;
/// A PF queue stopped at a bad descriptor or address; see its [`QUEUE_STATE`].
pub const EVENT_QUEUE: u32 = 1 << 3;

/// Write: the request in [`MBOX_REQUEST`] is complete; the value is its number, not 0. Read: the last number written.
pub const MBOX_BELL: u32 = 0x040;
/// Read: number of the request that [`MBOX_REPLY`] answers.
pub const MBOX_DONE: u32 = 0x044;
/// Request: [`MBOX_WORDS`] words; word 0 is the operation (see [`mailbox`]).
pub const MBOX_REQUEST: u32 = 0x400;
/// Reply: as many words; word 0 is 0 or a `Reason`.
pub const MBOX_REPLY: u32 = 0x500;
/// Words of a request and of a reply.
pub const MBOX_WORDS: usize = 64;

/// Registers of PF queue n: `QUEUES + n * QUEUE_STRIDE`. Queue 0 goes from host to NIC, the others to the host.
pub const QUEUES: u32 = 0x100;
/// Bytes of a queue's registers.
pub const QUEUE_STRIDE: u32 = 0x20;
/// Number of PF queues: 0 commands and injected frames; 1 upcalls; 2 completions; 3 capture; 4 and up VMQs.
pub const QUEUE_COUNT: usize = 20;
/// Queue of commands and injected frames.
pub const QUEUE_COMMAND: usize = 0;
/// Queue of upcalls and copies of TCP control segments.
pub const QUEUE_UPCALL: usize = 1;
/// Queue of completions.
pub const QUEUE_COMPLETION: usize = 2;
/// Queue of captured packets.
pub const QUEUE_CAPTURE: usize = 3;
/// First VMQ.
pub const QUEUE_VMQ0: usize = 4;
/// Offset in a queue's registers: I/O address of the ring, low half.
pub const QUEUE_BASE_LOW: u32 = 0x00;
/// High half.
pub const QUEUE_BASE_HIGH: u32 = 0x04;
/// Entries as a power of two: 4 to 12.
pub const QUEUE_SIZE: u32 = 0x08;
/// Write 1 to start the queue with its indices at 0, 0 to stop it; reads as [`QUEUE_RUNNING`] or [`QUEUE_FAULT`].
pub const QUEUE_STATE: u32 = 0x0c;
/// The queue runs.
pub const QUEUE_RUNNING: u32 = 1;
/// The queue stopped: a descriptor or an address was bad.
pub const QUEUE_FAULT: u32 = 2;
/// Write: wakes the board's queue engine.
pub const QUEUE_BELL: u32 = 0x10;

/// Registers of VF n: `VFS + n * VF_STRIDE`. What the host allows a VF; set before its driver comes.
pub const VFS: u32 = 0x800;
/// Bytes of a VF's registers.
pub const VF_STRIDE: u32 = 0x20;
/// First four bytes of the MAC, first in bits 7:0.
pub const VF_MAC_LOW: u32 = 0x00;
/// Last two bytes.
pub const VF_MAC_HIGH: u32 = 0x04;
/// MTU.
pub const VF_MTU: u32 = 0x08;
/// [`VF_LINK_UP`] and the following.
pub const VF_FLAGS: u32 = 0x0c;
/// Link state that the guest sees.
pub const VF_LINK_UP: u32 = 1 << 0;
/// The guest may set another MAC.
pub const VF_ALLOW_MAC: u32 = 1 << 1;
/// The guest may turn promiscuous mode on.
pub const VF_ALLOW_PROMISC: u32 = 1 << 2;
/// Packets of the VF that may be at the host at a time; reaching it stops its transmit ring.
pub const VF_UPCALL_SHARE: u32 = 0x10;
/// Read: 1 when a driver has set DRIVER_OK.
pub const VF_DRIVER_OK: u32 = 0x14;

/// The firmware's log: byte count ever written, then a window of [`LOG_LEN`] bytes used as a ring.
pub const LOG_HEAD: u32 = 0x034;
/// Window of the log ring.
pub const LOG: u32 = 0x2000;
/// Its length.
pub const LOG_LEN: u32 = 0x1000;
/// Text of the last panic, zero-terminated.
pub const PANIC: u32 = 0x3000;
/// Its length.
pub const PANIC_LEN: u32 = 0x200;

/// Board's counters, 64 bits each, low half first: drops by `Reason` number.
pub const DROPS: u32 = 0x4000;
/// Counters of board port n (VF 0..64, then uplinks at 64 and 65): `PORTS + n * PORT_STRIDE`: frames in, bytes in,
/// frames out, bytes out, frames dropped, frames carried by messages because the VF's memory is not shared.
pub const PORTS: u32 = 0x5000;
/// Bytes of a port's counters.
pub const PORT_STRIDE: u32 = 0x40;
/// Packets that the firmware finished, and that it gave to the host: 64 bits each.
pub const FW_FINISHED: u32 = 0x4800;
/// Packets that the firmware gave to the host.
pub const FW_PUNTED: u32 = 0x4808;

/// State of the firmware, as the board sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum FirmwareState {
    /// Not started.
    Off = 0,
    /// Started, not yet ready.
    Booting = 1,
    /// The interface versions fit, rings run.
    Ready = 2,
    /// It stopped its heartbeat or its process ended; the board starts it again.
    Dead = 3,
    /// The image was refused; see [`FW_ERROR`].
    Refused = 4,
}

impl FirmwareState {
    /// From the register.
    pub fn from_u32(value: u32) -> Option<Self> {
        Some(match value {
            0 => Self::Off,
            1 => Self::Booting,
            2 => Self::Ready,
            3 => Self::Dead,
            4 => Self::Refused,
            _ => return None,
        })
    }
}

/// Operations of the mailbox: word 0 of a request. Used at bring-up only; everything that must be ordered with packets
/// is a command in queue 0.
pub mod mailbox {
    /// Word 1: the driver's version. Reply: 1 version, 2 flow records, 3 tunnels, 4 groups, 5 vports, 6 peers,
    /// 7 pending slots, 8 firmware epoch, 9 and 10 router MAC as in `CONFIGURE`; 0 before it.
    pub const HELLO: u32 = 1;
    /// Words 1 to 18: the flow hash's secret (nine 64-bit words, low half first); word 19 and 20: router MAC as in
    /// `VF_MAC_LOW` and `VF_MAC_HIGH`. Clears all tables. Must come before [`START`].
    pub const CONFIGURE: u32 = 2;
    /// Packets may flow. Before it, the board holds them.
    pub const START: u32 = 3;
    /// Reply: words 1.. as the request. Tests the way to the firmware.
    pub const ECHO: u32 = 4;
}
