//! Every field of an entry becomes a field of the metadata, and the metadata comes back in an entry.

use culvert_packet::VportId;

use super::*;

const TICKET: Ticket = Ticket { slot: 7, sequence: 3 };

const BITS: pf::OffloadBits = pf::OffloadBits {
    checksum: ChecksumState::Partial as u8,
    gso: Gso::TcpV6 as u8,
    mss: 1400,
    start: 54,
    offset: 16,
};

/// The same in the terms of the packet crate.
fn offload() -> Offload {
    Offload {
        checksum: ChecksumState::Partial,
        gso: Gso::TcpV6,
        mss: 1400,
        start: 54,
        offset: 16,
        ..Offload::default()
    }
}

/// An upcall for a packet of a pending flow, with a value in every field.
fn upcall() -> Entry {
    Entry {
        addr: 0x1_0000_0000,
        len: 1514,
        op: Op::Upcall as u8,
        reason: Reason::Pending as u8,
        port: Port::Uplink(1).bits(),
        target: 0,
        peer: 42,
        ticket: TICKET.bits(),
        cookie: 9,
        arg0: 10,
        arg1: 0xc0_ffee,
        now: 123_456,
        inner: 50,
        original_len: 1514,
        offload: BITS,
        vsid: 5001,
        reserved: 0,
    }
}

#[test]
fn every_field_of_an_upcall_is_converted() {
    let expected = UpcallMeta {
        reason: Reason::Pending,
        input: Port::Uplink(1),
        ticket: Some(TICKET),
        copy: None,
        peer: 42,
        now: 123_456,
        offload: offload(),
    };
    assert_eq!(upcall_meta(&upcall()), Some(expected));
}

#[test]
fn a_copy_names_its_connection_and_the_length_of_its_outer_headers() {
    let entry = Entry { target: 1, ticket: 0, port: Port::Vport(VportId(3)).bits(), ..upcall() };
    let meta = upcall_meta(&entry).unwrap();
    assert_eq!(meta.copy, Some(ControlCopy { connection: 0xc0_ffee, outer_len: 50 }));
    assert_eq!((meta.ticket, meta.input), (None, Port::Vport(VportId(3))));
    // Only bit 0 of `target` marks a copy.
    assert_eq!(upcall_meta(&Entry { target: 2, ..entry }).unwrap().copy, None);
}

#[test]
fn unknown_numbers_have_a_value_and_other_entries_none() {
    let offload = pf::OffloadBits { checksum: 0xff, gso: 0xff, ..BITS };
    let meta = upcall_meta(&Entry { reason: 0xff, offload, ..upcall() }).unwrap();
    assert_eq!(meta.reason, Reason::BadDescriptor);
    assert_eq!((meta.offload.checksum, meta.offload.gso), (ChecksumState::None, Gso::None));
    for op in [Op::Transmit, Op::Complete, Op::InjectLookup] {
        assert_eq!(upcall_meta(&Entry { op: op as u8, ..upcall() }), None);
    }
}

#[test]
fn a_reinjected_packet_keeps_its_port_its_ticket_and_its_offload_state() {
    let meta = upcall_meta(&upcall()).unwrap().reinject();
    let expected = Entry {
        op: Op::InjectOut as u8,
        port: Port::Uplink(1).bits(),
        target: Port::Vport(VportId(3)).bits(),
        ticket: TICKET.bits(),
        offload: BITS,
        ..Entry::default()
    };
    assert_eq!(reinject_entry(Op::InjectOut, &meta, Port::Vport(VportId(3))), expected);
    let without_ticket = ReinjectMeta { ticket: None, ..meta };
    assert_eq!(reinject_entry(Op::InjectLookup, &without_ticket, Port::None).ticket, 0);
}
