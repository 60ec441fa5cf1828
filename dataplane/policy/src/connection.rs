//! Connection tracking: the state behind flows. A flow record may be evicted and is rebuilt from its connection.

mod slab;
mod table;
mod wheel;

use core::net::IpAddr;

use culvert_flow::FlowKey;
use culvert_packet::{Rdid, VportId};

pub use table::Connections;

/// Identifier of a connection, never 0, and not reused as long as anything may refer to it. [`ConnectionId::REVERSE`] in a
/// record's cold part gives the record's direction.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct ConnectionId(pub u64);

impl ConnectionId {
    /// Bit of `FlowCold::connection` that marks the record of the answers.
    pub const REVERSE: u64 = 1 << 63;

    /// Its encoding in a record's cold part.
    pub const fn cold(self, reverse: bool) -> u64 {
        if reverse { self.0 | Self::REVERSE } else { self.0 }
    }

    /// The place of a connection in its table, from 0: no other one has it as long as this one lives. Not of one that was
    /// [adopted](Connections::adopt).
    pub const fn place(self) -> u32 {
        self.0 as u32
    }

    /// From a cold part: the connection, and whether the record is that of the answers. `None`: no connection.
    pub const fn from_cold(value: u64) -> Option<(Self, bool)> {
        let id = value & !Self::REVERSE;
        if id == 0 { None } else { Some((ConnectionId(id), value & Self::REVERSE != 0)) }
    }
}

/// Both ends; the first is the one that opened the connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct Ends {
    /// The virtual network.
    pub rdid: Rdid,
    /// IP protocol.
    pub protocol: u8,
    /// The one that opened it, and its port or ICMP identifier.
    pub first: (IpAddr, u16),
    /// The other.
    pub second: (IpAddr, u16),
}

impl Ends {
    /// Seen from the other end.
    pub fn reversed(self) -> Self {
        Ends { first: self.second, second: self.first, ..self }
    }
}

/// State of a connection; of TCP as an observer sees it (RFC 9293 section 3.3.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// UDP, ICMP and others: only the time-out counts.
    Timed,
    /// SYN seen.
    Opening,
    /// Answered.
    Established,
    /// FIN seen from one side (`true`: from the first).
    Closing(bool),
    /// FIN from both sides, or RST.
    Closed,
}

/// Time-outs of idle connections by state, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// SYN without answer.
    pub opening: u32,
    /// Established TCP (RFC 5382 section 5: at least 2 hours 4 minutes).
    pub established: u32,
    /// One side has closed.
    pub closing: u32,
    /// Both have.
    pub closed: u32,
    /// UDP (RFC 4787 section 4.3: at least 2 minutes).
    pub udp: u32,
    /// ICMP (RFC 5508 section 3.2: at least 60 seconds).
    pub icmp: u32,
    /// Anything else.
    pub other: u32,
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts {
            opening: 30_000,
            established: 7_500_000,
            closing: 120_000,
            closed: 10_000,
            udp: 180_000,
            icmp: 60_000,
            other: 180_000,
        }
    }
}

/// A connection.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Connection {
    /// Its ends.
    pub ends: Ends,
    /// The local vport that counts it against its quota.
    pub owner: VportId,
    /// Its state.
    pub state: State,
    /// When the host last saw a packet of it. The NIC's records may have a later time.
    pub last_seen: u32,
    /// Keys of its two records: of the one that spoke first, and of the answers.
    pub keys: [Option<FlowKey>; 2],
}

/// Effect of a decision on the connections.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Effect {
    /// A new one, under the identifier that the decision was given.
    Create(ConnectionId, Connection),
    /// A packet of an existing one was seen: its new state, and the keys its records have now.
    Update(ConnectionId, State, [Option<FlowKey>; 2]),
}

/// Effects of one decision.
pub type Effects = Option<Effect>;

/// Why a new connection is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Full {
    /// The table is full.
    Table,
    /// The vport has used its share.
    Vport,
}

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// State of a connection that begins with such a packet.
pub(crate) fn first_state(protocol: u8, tcp_flags: u8) -> State {
    match protocol {
        6 if tcp_flags & RST != 0 => State::Closed,
        6 if tcp_flags & (SYN | ACK) == SYN => State::Opening,
        // Not its first segment: a restart lost the connection.
        6 => State::Established,
        _ => State::Timed,
    }
}

/// State after a packet. A SYN from the first side reopens a closed connection (a reused port).
pub(crate) fn next_state(state: State, reverse: bool, flags: u8) -> State {
    let fin = flags & FIN != 0;
    match state {
        State::Timed => State::Timed,
        _ if flags & RST != 0 => State::Closed,
        State::Closed if !reverse && flags & (SYN | ACK) == SYN => State::Opening,
        State::Closed => State::Closed,
        State::Opening | State::Established if fin => State::Closing(!reverse),
        State::Opening if reverse || flags & (SYN | ACK) == ACK => State::Established,
        State::Opening => State::Opening,
        State::Established => State::Established,
        State::Closing(first) if fin && first == reverse => State::Closed,
        State::Closing(first) => State::Closing(first),
    }
}
