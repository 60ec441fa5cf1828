//! Builds nf_tables messages: a table that one process owns, with a chain and rules (linux/netfilter/nf_tables.h, nfnetlink.h).

use netlink_packet_core::{
    DefaultNla, Emitable, NLA_F_NESTED, NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST,
};

use crate::netlink;

/// `NFNL_MSG_BATCH_BEGIN` and `_END`: the kernel applies all messages between them, or none.
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const SUBSYSTEM: u16 = 10;
const FAMILY_NETDEV: u8 = 5;

const NEW_TABLE: u16 = 0;
const GET_TABLE: u16 = 1;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const NEW_RULE: u16 = 6;

/// `NFT_TABLE_F_OWNER` (Linux 5.12): the table belongs to the socket that created it. The kernel removes it when that
/// socket is closed, however its process ends, and lets no other socket change or flush it.
const TABLE_OWNER: u32 = 2;

/// What a rule compares.
#[derive(Clone, Debug)]
pub(super) enum Match {
    /// The EtherType behind any VLAN tags.
    EtherType(u16),
    /// Bytes at an offset from the IP header's start.
    Network(u32, Vec<u8>),
    /// Bytes at an offset from the transport header's start; does not match later fragments.
    Transport(u32, Vec<u8>),
}

/// Messages that the kernel applies together, each with a sequence number.
pub(super) struct Batch {
    bytes: Vec<u8>,
    first: u32,
    count: u32,
}

impl Batch {
    /// An empty batch. The first message gets the sequence number `first`.
    pub(super) fn new(first: u32) -> Self {
        let mut batch = Batch { bytes: Vec::new(), first, count: 0 };
        batch.delimiter(BATCH_BEGIN);
        batch
    }

    /// Removes a table.
    pub(super) fn delete_table(&mut self, table: &str) {
        self.message(DELETE_TABLE, 0, &[text(1, table)]);
    }

    /// Creates a table that this socket owns.
    pub(super) fn new_table(&mut self, table: &str) {
        self.message(NEW_TABLE, NLM_F_CREATE | NLM_F_EXCL, &[text(1, table), number(2, TABLE_OWNER)]);
    }

    /// Creates a chain at an interface's ingress hook, which is behind packet sockets and tc, and before everything else.
    pub(super) fn new_chain(&mut self, table: &str, chain: &str, interface: &str, priority: i32) {
        let (ingress, accept) = (0, 1);
        let hook = nested(4, &[number(1, ingress), number(2, priority as u32), text(3, interface)]);
        let attributes = [text(1, table), text(3, chain), hook, number(5, accept), text(7, "filter")];
        self.message(NEW_CHAIN, NLM_F_CREATE, &attributes);
    }

    /// Appends a rule that counts and drops the packets that fulfil all matches.
    pub(super) fn new_rule(&mut self, table: &str, chain: &str, matches: &[Match]) {
        let mut expressions: Vec<DefaultNla> = matches.iter().flat_map(compare).collect();
        let (verdict, drop) = (0, 0);
        expressions.push(expression("counter", &[]));
        let code = nested(2, &[nested(2, &[number(1, drop)])]);
        expressions.push(expression("immediate", &[number(1, verdict), code]));
        let attributes = [text(1, table), text(2, chain), nested(4, &expressions)];
        self.message(NEW_RULE, NLM_F_CREATE | NLM_F_APPEND, &attributes);
    }

    /// The bytes, and the number of messages. The kernel answers each under its sequence number.
    pub(super) fn finish(mut self) -> (Vec<u8>, u32) {
        self.delimiter(BATCH_END);
        (self.bytes, self.count)
    }

    fn message(&mut self, kind: u16, flags: u16, attributes: &[DefaultNla]) {
        let number = self.first.wrapping_add(self.count);
        self.count += 1;
        self.bytes.extend(message(kind, flags, number, attributes));
    }

    fn delimiter(&mut self, kind: u16) {
        // struct nfgenmsg: family, version, subsystem.
        let [a, b] = SUBSYSTEM.to_be_bytes();
        // Zero is not a sequence number of a message.
        self.bytes.extend(netlink::message(kind, NLM_F_REQUEST, 0, &[0, 0, a, b]));
    }
}

/// A message that asks for a table.
pub(super) fn get_table(table: &str, number: u32) -> Vec<u8> {
    message(GET_TABLE, 0, number, &[text(1, table)])
}

fn message(kind: u16, flags: u16, number: u32, attributes: &[DefaultNla]) -> Vec<u8> {
    let payload = [&[FAMILY_NETDEV, 0, 0, 0], &bytes(attributes)[..]].concat();
    netlink::message(SUBSYSTEM << 8 | kind, NLM_F_REQUEST | NLM_F_ACK | flags, number, &payload)
}

fn bytes(attributes: &[DefaultNla]) -> Vec<u8> {
    let mut bytes = vec![0; attributes.buffer_len()];
    attributes.emit(&mut bytes);
    bytes
}

fn text(kind: u16, text: &str) -> DefaultNla {
    DefaultNla::new(kind, [text.as_bytes(), &[0]].concat())
}

fn number(kind: u16, number: u32) -> DefaultNla {
    DefaultNla::new(kind, number.to_be_bytes().to_vec())
}

fn nested(kind: u16, attributes: &[DefaultNla]) -> DefaultNla {
    DefaultNla::new(kind | NLA_F_NESTED, bytes(attributes))
}

fn expression(name: &str, data: &[DefaultNla]) -> DefaultNla {
    nested(1, &[text(1, name), nested(2, data)])
}

/// Loads a field into a register, and ends the rule unless it equals the value.
fn compare(field: &Match) -> [DefaultNla; 2] {
    let (register, protocol, network, transport) = (1, 1, 1, 2);
    let payload = |base, offset, len: usize| {
        let attributes = [number(1, register), number(2, base), number(3, offset), number(4, len as u32)];
        expression("payload", &attributes)
    };
    let (load, value) = match field {
        Match::EtherType(value) => {
            (expression("meta", &[number(1, register), number(2, protocol)]), value.to_be_bytes().to_vec())
        }
        Match::Network(offset, value) => (payload(network, *offset, value.len()), value.clone()),
        Match::Transport(offset, value) => (payload(transport, *offset, value.len()), value.clone()),
    };
    let equal = 0;
    let value = nested(3, &[DefaultNla::new(1, value)]);
    [load, expression("cmp", &[number(1, register), number(2, equal), value])]
}
