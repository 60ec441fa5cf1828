//! Operations that a descriptor names: packets, commands of the host, and what the firmware answers.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What a descriptor is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Op {
    /// Board to firmware: a frame that came in at `port`.
    Frame = 1,
    /// Host: this frame came in at `port` and takes the way of its flow. `ticket`: it is one that was at the host. `arg1`:
    /// [`OF_VM`](Self::OF_VM) or 0.
    InjectLookup = 2,
    /// Host: this frame leaves by `target` as it is. `ticket` and `port` as above.
    InjectOut = 3,
    /// Host: `arg0` packets of `ticket` that came in at `port` end here; `reason` says why. `arg1` as above.
    Dropped = 4,
    /// Payload: [`FlowRecord`](crate::FlowRecord)s to insert or replace, key by key. A pending record gets its verdict.
    FlowInsert = 16,
    /// Payload: [`FlowKey`](crate::FlowKey)s to delete.
    FlowDelete = 17,
    /// Read back records from number `arg0` on, as many as fit. Reply: records; `arg0` where to go on, `u32::MAX` at the end.
    FlowRead = 18,
    /// As `FlowRead`, but only records that were not used for `arg1` milliseconds.
    FlowIdle = 19,
    /// Forget all records that are not pending.
    FlowClear = 20,
    /// Payload: keys. Reply: their records, as far as they exist.
    FlowGet = 21,
    /// Payload: a [`Tunnel`](crate::Tunnel) for index `arg0`.
    TunnelSet = 32,
    /// Payload: a [`Group`](crate::Group) for index `arg0`.
    GroupSet = 33,
    /// Payload: [`Peer`](crate::Peer)s to add. `arg0` 1: forget the others first.
    PeersSet = 34,
    /// Payload: up to four [`Peer`](crate::Peer)s, our own addresses, in place of the former.
    LocalSet = 35,
    /// Payload: a [`Vport`](crate::Vport) for index `arg0`; its counters are left as they are.
    VportSet = 36,
    /// Reply: [`Vport`](crate::Vport)s from index `arg0` on, as many as fit.
    VportRead = 37,
    /// Payload: [`CellWrite`]s.
    CellsSet = 38,
    /// Payload: [`VmqFilter`]s, in place of the former.
    VmqFilters = 39,
    /// Reply: drops by reason, 64 bits each, reasons `arg0` and up, as many as fit.
    DropsRead = 48,
    /// Reply: [`TunnelCounters`] from index `arg0` on.
    TunnelRead = 49,
    /// The host has restarted: what was at it is lost. Pending records go, their packets count as `host_restart`.
    HostRestart = 50,
    /// Nothing but a completion: all that was before it is done.
    Fence = 51,

    /// Firmware to board: send by `port` (board's numbering).
    Transmit = 64,
    /// Firmware to board: to the host; `reason` says why, `ticket` names the pending flow.
    Upcall = 65,
    /// Firmware to board: dropped with `reason`.
    Drop = 66,
    /// Firmware to board: answer of a host command: `cookie`, `reason` 0 for success, reply as payload.
    Complete = 67,
    /// Board to firmware: `arg0` frames of `arg1` bytes for the vport `port` did not reach it: they are no frames to it, but
    /// drops of it. The board has counted their reason.
    Lost = 68,
}

impl Op {
    /// From its number.
    #[inline]
    pub const fn from_u8(value: u8) -> Option<Self> {
        use Op::*;
        const ALL: [Op; 27] = [
            Frame,
            InjectLookup,
            InjectOut,
            Dropped,
            FlowInsert,
            FlowDelete,
            FlowRead,
            FlowIdle,
            FlowClear,
            FlowGet,
            TunnelSet,
            GroupSet,
            PeersSet,
            LocalSet,
            VportSet,
            VportRead,
            CellsSet,
            VmqFilters,
            DropsRead,
            TunnelRead,
            HostRestart,
            Fence,
            Transmit,
            Upcall,
            Drop,
            Complete,
            Lost,
        ];
        let mut i = 0;
        while i < ALL.len() {
            if ALL[i] as u8 == value {
                return Some(ALL[i]);
            }
            i += 1;
        }
        None
    }

    /// `arg1`: packets of a VM whose port the host serves itself. They were no upcalls, so they return none of the vport's
    /// upcall share.
    pub const OF_VM: u64 = 1;

    /// Whether the host may send it in queue 0.
    pub const fn is_host(self) -> bool {
        let n = self as u8;
        n >= Op::InjectLookup as u8 && n <= Op::Fence as u8
    }
}

/// Sets one generation cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CellWrite {
    /// Mapping cell 0 ..= 65,535, or [`CellWrite::VPORT`] plus a vport's number.
    pub cell: u32,
    /// The generation.
    pub value: u32,
}

impl CellWrite {
    /// Cells of vports start here.
    pub const VPORT: u32 = 1 << 16;
}

/// Steers frames for an inner MAC in a subnet into a VMQ while they have no flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct VmqFilter {
    /// Inner destination MAC.
    pub mac: [u8; 6],
    /// The VMQ: PF queue number less [`QUEUE_VMQ0`](crate::regs::QUEUE_VMQ0).
    pub vmq: u16,
    /// VSID.
    pub vsid: u32,
    /// The vport that it serves.
    pub vport: u32,
}

/// Counters of a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct TunnelCounters {
    /// Wire packets sent.
    pub packets: u64,
    /// Inner bytes sent.
    pub bytes: u64,
}

const _: () = assert!(size_of::<CellWrite>() == 8 && size_of::<VmqFilter>() == 16);
