//! Converts the metadata of upcalls and of reinjected packets from and to ring entries.

use culvert_abi::command::Op;
use culvert_abi::pf::{self, Entry};
use culvert_flow::Port;
use culvert_flow::pending::Ticket;
use culvert_offload::{ControlCopy, ReinjectMeta, UpcallMeta};
use culvert_packet::{ChecksumState, Gso, Offload, Reason};

/// The metadata of an upcall entry. `None`: the entry is no upcall.
pub fn upcall_meta(entry: &Entry) -> Option<UpcallMeta> {
    (entry.op == Op::Upcall as u8).then(|| UpcallMeta {
        reason: Reason::from_u8(entry.reason).unwrap_or(Reason::BadDescriptor),
        input: Port::from_bits(entry.port),
        ticket: Ticket::from_bits(entry.ticket),
        copy: (entry.target & 1 != 0)
            .then_some(ControlCopy { connection: entry.arg1, outer_len: entry.inner }),
        peer: entry.peer,
        now: entry.now,
        offload: from_ring(&entry.offload),
    })
}

/// The entry of a packet that goes back to the NIC.
pub(crate) fn reinject_entry(op: Op, meta: &ReinjectMeta, target: Port) -> Entry {
    Entry {
        op: op as u8,
        port: meta.input.bits(),
        target: target.bits(),
        ticket: meta.ticket.map_or(0, Ticket::bits),
        offload: to_ring(&meta.offload),
        ..Entry::default()
    }
}

fn from_ring(entry: &pf::OffloadBits) -> Offload {
    Offload {
        checksum: ChecksumState::from_u8(entry.checksum).unwrap_or_default(),
        gso: Gso::from_u8(entry.gso).unwrap_or_default(),
        mss: entry.mss,
        start: entry.start,
        offset: entry.offset,
        ..Offload::default()
    }
}

fn to_ring(offload: &Offload) -> pf::OffloadBits {
    let Offload { checksum, gso, mss, start, offset, .. } = *offload;
    pf::OffloadBits { checksum: checksum as u8, gso: gso as u8, mss, start, offset }
}

#[cfg(test)]
mod tests;
