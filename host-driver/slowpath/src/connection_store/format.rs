//! What the file of connections looks like: a header, what each vport was, a slot for each connection.
//!
//! All of it is words of 64 bits, little-endian. The header has its first page for itself; what was vport `n` are two words
//! at [`VPORTS`]` + 2 n`; the connection at place `n` is a slot of eight words at [`SLOTS`]` + 8 n`:
//!
//! | word | |
//! | --- | --- |
//! | 0 | check 0..32, owner 32..48, IP protocol 48..56, state 56..63, IPv6 63; 0: no connection |
//! | 1 | when it was last seen 0..32, port of the first end 32..48, of the second 48..64 |
//! | 2, 3 | address of the first end; IPv4: its first four bytes |
//! | 4, 5 | address of the second end |
//! | 6, 7 | virtual network |
//!
//! Word 0 is written last when a connection begins, and first when it ends; what changes while it lives is in word 0 and in
//! the first half of word 1, which the check does not cover. So each word that a killed daemon leaves behind is of a whole
//! slot; the check is for a file that was damaged otherwise.

use std::net::{IpAddr, Ipv4Addr};

use culvert_flow::HashSecret;
use culvert_packet::{MacAddr, Rdid, VportId};
use culvert_policy::Connection;
use culvert_policy::connection::{Ends, State};

/// The first word.
pub(super) const MAGIC: u64 = u64::from_le_bytes(*b"culvconn");
/// Version of this form. Another check, order or meaning of anything is another version.
pub(super) const VERSION: u32 = 1;
/// Words of a slot.
pub(super) const SLOT: usize = 8;
/// Words that get their memory at a time: 64 KiB.
pub(super) const CHUNK: usize = 8192;
/// The first word about vports.
pub(super) const VPORTS: usize = CHUNK;
/// The first word about connections.
pub(super) const SLOTS: usize = VPORTS + 2 * 65_536;
/// Most slots that a file may have: more than any host has connections.
pub(super) const MOST: usize = 1 << 24;
/// Where the header says when its daemon was last alive, in milliseconds of the system's monotonic clock.
pub(super) const ALIVE: usize = 5;

const IPV6: u64 = 1 << 63;
const PRESENT: u64 = 1 << 63;

/// A change of the flow hash would be a change of this form: a test keeps a slot to be compared with.
const CHECK: HashSecret = HashSecret([
    0x9e37_79b9_7f4a_7c15,
    0xf39c_c060_5ced_c834,
    0x1082_276b_f3a2_7251,
    0xf86c_6a11_d0c1_8e95,
    0x2767_f0b1_53d2_7b7f,
    0x0347_045b_5bf1_827f,
    0x0188_6f09_2840_3002,
    0xc1d6_4ba4_0f33_5e36,
    0xf06a_d7ae_9717_877e,
]);

/// Which start of the machine a file is of: connections end with it, and so does the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Boot(pub(super) [u8; 16]);

/// The first words of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) slots: u32,
    pub(super) boot: Boot,
    pub(super) alive: u64,
}

/// Why a file is not used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error("it is no file of connections")]
    Other,
    #[error("it is of version {found}, and this culvertd knows version {VERSION}")]
    Version { found: u32 },
    #[error("its slots have {found} bytes and not {}", 8 * SLOT)]
    SlotSize { found: u32 },
    #[error("it says that it has {found} slots, more than {MOST}")]
    TooMany { found: u64 },
    #[error("it does not have {expected} bytes, as its {slots} slots need")]
    Length { slots: u32, expected: usize },
    #[error("it is not this user's own file, which nobody else may read or write")]
    Owner,
    #[error("it was written before this machine was started")]
    Boot,
    #[error(transparent)]
    System(#[from] std::io::Error),
}

impl Header {
    /// Words of a file with so many slots.
    pub(super) fn words(slots: u32) -> usize {
        SLOTS + SLOT * slots as usize
    }

    pub(super) fn encode(&self) -> [u64; 6] {
        let [low, high] = halves(&self.boot.0);
        let form = u64::from(VERSION) | (8 * SLOT as u64) << 32;
        [MAGIC, form, self.slots.into(), low, high, self.alive]
    }

    pub(super) fn decode(words: &[u64; 6]) -> Result<Self, Refused> {
        let [magic, form, slots, low, high, alive] = *words;
        let (version, size) = (form as u32, (form >> 32) as u32);
        if magic != MAGIC {
            return Err(Refused::Other);
        }
        if version != VERSION {
            return Err(Refused::Version { found: version });
        }
        if size as usize != 8 * SLOT {
            return Err(Refused::SlotSize { found: size });
        }
        if slots > MOST as u64 {
            return Err(Refused::TooMany { found: slots });
        }
        Ok(Header { slots: slots as u32, boot: Boot(whole(low, high)), alive })
    }
}

/// What a vport is as far as its connections are concerned: whoever has its number later may be somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) mac: MacAddr,
    pub(super) vsid: u32,
}

impl Identity {
    pub(super) fn encode(&self) -> [u64; 2] {
        let m = self.mac.0;
        let mac = u64::from_le_bytes([m[0], m[1], m[2], m[3], m[4], m[5], 0, 0]);
        [PRESENT | mac, self.vsid.into()]
    }

    pub(super) fn decode([mac, vsid]: [u64; 2]) -> Option<Self> {
        let [m0, m1, m2, m3, m4, m5, zero, top] = mac.to_le_bytes();
        let mac = MacAddr([m0, m1, m2, m3, m4, m5]);
        let is_one = zero == 0 && u64::from(top) << 56 == PRESENT;
        is_one.then_some(Identity { mac, vsid: u32::try_from(vsid).ok()? })
    }
}

/// The slot of the connection at place `n`, last seen at `seen` milliseconds of the system's clock.
pub(super) fn encode(n: u32, c: &Connection, seen: u32) -> [u64; SLOT] {
    let (first, second) = (c.ends.first, c.ends.second);
    // Both are of one family: they were in one packet.
    let family = if first.0.is_ipv6() { IPV6 } else { 0 };
    let state = u64::from(number(c.state)) << 56;
    let head = u64::from(c.owner.0) << 32 | u64::from(c.ends.protocol) << 48 | state | family;
    let ports = u64::from(first.1) << 32 | u64::from(second.1) << 48;
    let [a, b] = [first.0, second.0].map(|ip| halves(&bytes(ip)));
    let r = halves(&c.ends.rdid.0);
    let checked = [head, ports | u64::from(n), a[0], a[1], b[0], b[1], r[0], r[1]];
    let [head, ports] = [head | check(&checked), ports | u64::from(seen)];
    [head, ports, a[0], a[1], b[0], b[1], r[0], r[1]]
}

/// What is in the slot at place `n`, and when it was last seen. `None`: nothing, or nothing whole.
pub(super) fn decode(n: u32, words: &[u64; SLOT]) -> Option<(Connection, u32)> {
    let [head, ports, a0, a1, b0, b1, r0, r1] = *words;
    let low = u64::from(u32::MAX);
    if head & low != check(&[head & !low, ports & !low | u64::from(n), a0, a1, b0, b1, r0, r1]) {
        return None;
    }
    let state = state_of((head >> 56 & 0x7f) as u8)?;
    let address = |low, high| {
        let all: [u8; 16] = whole(low, high);
        match (head & IPV6 != 0, all) {
            (true, all) => Some(IpAddr::from(all)),
            (false, [a, b, c, d, rest @ ..]) => {
                (rest == [0; 12]).then_some(IpAddr::V4(Ipv4Addr::new(a, b, c, d)))
            }
        }
    };
    let ends = Ends {
        rdid: Rdid(whole(r0, r1)),
        protocol: (head >> 48) as u8,
        first: (address(a0, a1)?, (ports >> 32) as u16),
        second: (address(b0, b1)?, (ports >> 48) as u16),
    };
    let owner = VportId((head >> 32) as u16);
    Some((Connection { ends, owner, state, last_seen: 0, keys: [None, None] }, ports as u32))
}

fn check(words: &[u64; SLOT]) -> u64 {
    CHECK.hash(words) >> 32
}

/// Never 0: no connection is an empty slot.
fn number(state: State) -> u8 {
    match state {
        State::Timed => 1,
        State::Opening => 2,
        State::Established => 3,
        State::Closing(false) => 4,
        State::Closing(true) => 5,
        State::Closed => 6,
    }
}

fn state_of(number: u8) -> Option<State> {
    Some(match number {
        1 => State::Timed,
        2 => State::Opening,
        3 => State::Established,
        4 => State::Closing(false),
        5 => State::Closing(true),
        6 => State::Closed,
        _ => return None,
    })
}

fn bytes(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        }
        IpAddr::V6(ip) => ip.octets(),
    }
}

fn halves(bytes: &[u8; 16]) -> [u64; 2] {
    let all = u128::from_le_bytes(*bytes);
    [all as u64, (all >> 64) as u64]
}

fn whole(low: u64, high: u64) -> [u8; 16] {
    (u128::from(low) | u128::from(high) << 64).to_le_bytes()
}
