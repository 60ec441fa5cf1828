//! Builds nf_tables messages: a table that one process owns, with sets, a chain and rules (linux/netfilter/nf_tables.h,
//! nfnetlink.h).

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
const NEW_SET: u16 = 9;
const NEW_ELEMENT: u16 = 12;
const DELETE_ELEMENT: u16 = 14;

/// `NFT_TABLE_F_OWNER` (Linux 5.12): the table belongs to the socket that created it. The kernel removes it when that
/// socket is closed, however its process ends, and lets no other socket change or flush it.
const TABLE_OWNER: u32 = 2;

/// Where the offset of a field counts from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Base {
    /// The IP header's start.
    Network = 1,
    /// The transport header's start; later fragments have none.
    Transport = 2,
}

/// Bytes of a packet: base, offset and length.
pub(super) type Field = (Base, u32, usize);

/// What a rule compares.
#[derive(Clone, Debug)]
pub(super) enum Match {
    /// The EtherType behind any VLAN tags.
    EtherType(u16),
    /// Bytes at an offset.
    Bytes(Base, u32, Vec<u8>),
    /// Bits of the bytes at an offset: mask and value.
    Bits(Base, u32, Vec<u8>, Vec<u8>),
    /// Fields that together are an element of a set, each filled up with zeros to a multiple of four bytes.
    Element(&'static str, Vec<Field>),
}

/// A set of a table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Set {
    pub(super) name: &'static str,
    /// Its number in the batch that creates it.
    pub(super) id: u32,
    /// What `nft` shows an element as: a number of its data types for each part, six bits each.
    pub(super) key_type: u32,
    /// Bytes of an element.
    pub(super) key_len: u32,
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

    /// Creates an empty set.
    pub(super) fn new_set(&mut self, table: &str, set: &Set) {
        let flags = 0;
        let attributes = [
            text(1, table),
            text(2, set.name),
            number(3, flags),
            number(4, set.key_type),
            number(5, set.key_len),
            number(10, set.id),
        ];
        self.message(NEW_SET, NLM_F_CREATE | NLM_F_EXCL, &attributes);
    }

    /// Adds elements to a set, at most [`MAX_ELEMENTS`].
    pub(super) fn add_elements(&mut self, table: &str, set: &Set, keys: &[Vec<u8>]) {
        self.message(NEW_ELEMENT, NLM_F_CREATE, &elements(table, set, keys));
    }

    /// Removes elements that a set has, at most [`MAX_ELEMENTS`].
    pub(super) fn delete_elements(&mut self, table: &str, set: &Set, keys: &[Vec<u8>]) {
        self.message(DELETE_ELEMENT, 0, &elements(table, set, keys));
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

/// Elements in one message: attributes have lengths of 16 bits.
pub(super) const MAX_ELEMENTS: usize = 1024;

fn elements(table: &str, set: &Set, keys: &[Vec<u8>]) -> [DefaultNla; 3] {
    let element = |key: &Vec<u8>| nested(1, &[nested(1, &[DefaultNla::new(1, key.clone())])]);
    let list: Vec<DefaultNla> = keys.iter().map(element).collect();
    [text(1, table), text(2, set.name), nested(3, &list)]
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

/// Loads fields into registers, and ends the rule unless they match.
fn compare(field: &Match) -> Vec<DefaultNla> {
    let (register, protocol) = (1, 1);
    let load = |to, (base, offset, len): Field| {
        let attributes = [number(1, to), number(2, base as u32), number(3, offset), number(4, len as u32)];
        expression("payload", &attributes)
    };
    let data = |kind, bytes: &[u8]| nested(kind, &[DefaultNla::new(1, bytes.to_vec())]);
    let equals = |value: &[u8]| {
        let equal = 0;
        expression("cmp", &[number(1, register), number(2, equal), data(3, value)])
    };
    match field {
        Match::EtherType(value) => {
            let load = expression("meta", &[number(1, register), number(2, protocol)]);
            vec![load, equals(&value.to_be_bytes())]
        }
        Match::Bytes(base, at, value) => vec![load(register, (*base, *at, value.len())), equals(value)],
        Match::Bits(base, at, mask, value) => {
            let len = mask.len();
            let and = [
                number(1, register),
                number(2, register),
                number(3, len as u32),
                data(4, mask),
                data(5, &vec![0; len]),
            ];
            vec![load(register, (*base, *at, len)), expression("bitwise", &and), equals(value)]
        }
        Match::Element(set, fields) => {
            // Registers of four bytes each, in a row.
            let first = 8;
            let mut next = first;
            let mut all = Vec::new();
            for field in fields {
                all.push(load(next, *field));
                next += field.2.div_ceil(4) as u32;
            }
            all.push(expression("lookup", &[text(1, set), number(2, first)]));
            all
        }
    }
}
