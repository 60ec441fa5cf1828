//! The format of the connection file: a header, the identity of each vport, an entry for each connection.
//!
//! The file consists of 64-bit words, little-endian. The header has the first chunk for itself; the identity of vport `n` is
//! two words at [`VPORTS_AT`]` + 2 n`; the connection with index `n` is an entry of eight words at [`ENTRIES_AT`]` + 8 n`:
//!
//! | word | bits |
//! | --- | --- |
//! | 0 | checksum 0..32, owner 32..48, IP protocol 48..56, state 56..63, IPv6 63; 0: no connection |
//! | 1 | last last_seen 0..32, port of the first end 32..48, of the second 48..64 |
//! | 2, 3 | address of the first end; IPv4: its first four bytes |
//! | 4, 5 | address of the second end |
//! | 6, 7 | RDID |
//!
//! What changes during the life of a connection is in word 0 and in the lower half of word 1, which the checksum does not
//! cover. So a daemon that is killed between two words leaves an intact entry behind; the checksum detects other damage.

use std::net::{IpAddr, Ipv4Addr};

use culvert_flow::HashSecret;
use culvert_packet::{MacAddr, Rdid, VportId};
use culvert_policy::Connection;
use culvert_policy::connection::{Ends, State};

/// The first word.
pub(super) const MAGIC: u64 = u64::from_le_bytes(*b"culvconn");
/// Version of the format. Any change of checksum, order or meaning is another version.
pub(super) const VERSION: u32 = 1;
/// Words of an entry.
pub(super) const ENTRY_WORDS: usize = 8;
/// Words that are read at a time: 64 KiB.
pub(super) const CHUNK_WORDS: usize = 8192;
/// The first word of the vports' identities.
pub(super) const VPORTS_AT: usize = CHUNK_WORDS;
/// The first word of the connections' entries.
pub(super) const ENTRIES_AT: usize = VPORTS_AT + 2 * 65_536;
/// Limit of a file's entries: more than any host has connections.
pub(super) const MAX_ENTRIES: usize = 1 << 24;
/// The header's word that says when its daemon was last alive, in milliseconds of the system's monotonic clock.
pub(super) const ALIVE_AT: usize = 5;

const IPV6: u64 = 1 << 63;
const PRESENT: u64 = 1 << 63;

/// Secret of the checksum. A change of the flow hash is a change of this format: a test compares an entry.
const CHECKSUM_SECRET: HashSecret = HashSecret([
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

/// The kernel's id of one boot of the machine: a reboot ends connections and restarts the monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BootId(pub(super) [u8; 16]);

/// The first words of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) entries: u32,
    pub(super) boot: BootId,
    pub(super) alive: u64,
}

/// Why a file is not used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unusable {
    #[error("it is no connection file")]
    Magic,
    #[error("it has version {found}, and this culvertd reads version {VERSION}")]
    Version { found: u32 },
    #[error("its entries have {found} bytes instead of {}", 8 * ENTRY_WORDS)]
    EntrySize { found: u32 },
    #[error("it claims {found} entries, more than {MAX_ENTRIES}")]
    TooMany { found: u64 },
    #[error("it does not have the {expected} bytes that its {entries} entries need")]
    Length { entries: u32, expected: usize },
    #[error("it is not a file that only this user can read and write")]
    Owner,
    #[error("it was written before this machine was started")]
    Boot,
    #[error(transparent)]
    System(#[from] std::io::Error),
}

impl Header {
    /// Words of a file with this many entries.
    pub(super) fn file_words(entries: u32) -> usize {
        ENTRIES_AT + ENTRY_WORDS * entries as usize
    }

    pub(super) fn encode(&self) -> [u64; 6] {
        let [low, high] = halves(&self.boot.0);
        let format = u64::from(VERSION) | (8 * ENTRY_WORDS as u64) << 32;
        [MAGIC, format, self.entries.into(), low, high, self.alive]
    }

    pub(super) fn decode(words: &[u64; 6]) -> Result<Self, Unusable> {
        let [magic, format, entries, low, high, alive] = *words;
        let (version, size) = (format as u32, (format >> 32) as u32);
        if magic != MAGIC {
            return Err(Unusable::Magic);
        }
        if version != VERSION {
            return Err(Unusable::Version { found: version });
        }
        if size as usize != 8 * ENTRY_WORDS {
            return Err(Unusable::EntrySize { found: size });
        }
        if entries > MAX_ENTRIES as u64 {
            return Err(Unusable::TooMany { found: entries });
        }
        Ok(Header { entries: entries as u32, boot: BootId(join(low, high)), alive })
    }
}

/// The VM behind a vport number: another VM may get the number later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct VportIdentity {
    pub(super) mac: MacAddr,
    pub(super) vsid: u32,
}

impl VportIdentity {
    pub(super) fn encode(&self) -> [u64; 2] {
        let m = self.mac.0;
        let mac = u64::from_le_bytes([m[0], m[1], m[2], m[3], m[4], m[5], 0, 0]);
        [PRESENT | mac, self.vsid.into()]
    }

    pub(super) fn decode([mac, vsid]: [u64; 2]) -> Option<Self> {
        let [m0, m1, m2, m3, m4, m5, zero, top] = mac.to_le_bytes();
        let mac = MacAddr([m0, m1, m2, m3, m4, m5]);
        let is_present = zero == 0 && u64::from(top) << 56 == PRESENT;
        is_present.then_some(VportIdentity { mac, vsid: u32::try_from(vsid).ok()? })
    }
}

/// Encodes the entry of the connection with index `n`, last seen at `last_seen` milliseconds of the system's clock.
pub(super) fn encode(n: u32, c: &Connection, last_seen: u32) -> [u64; ENTRY_WORDS] {
    let (first, second) = (c.ends.first, c.ends.second);
    // Both ends have one family: they come from one packet.
    let family = if first.0.is_ipv6() { IPV6 } else { 0 };
    let state = u64::from(state_number(c.state)) << 56;
    let head = u64::from(c.owner.0) << 32 | u64::from(c.ends.protocol) << 48 | state | family;
    let ports = u64::from(first.1) << 32 | u64::from(second.1) << 48;
    let [a, b] = [first.0, second.0].map(|ip| halves(&bytes(ip)));
    let r = halves(&c.ends.rdid.0);
    let checked = [head, ports | u64::from(n), a[0], a[1], b[0], b[1], r[0], r[1]];
    let [head, ports] = [head | checksum(&checked), ports | u64::from(last_seen)];
    [head, ports, a[0], a[1], b[0], b[1], r[0], r[1]]
}

/// Decodes the entry with index `n`: the connection, and when it was last seen. `None`: empty or corrupt.
pub(super) fn decode(n: u32, words: &[u64; ENTRY_WORDS]) -> Option<(Connection, u32)> {
    let [head, ports, a0, a1, b0, b1, r0, r1] = *words;
    let low = u64::from(u32::MAX);
    if head & low != checksum(&[head & !low, ports & !low | u64::from(n), a0, a1, b0, b1, r0, r1]) {
        return None;
    }
    let state = state_from((head >> 56 & 0x7f) as u8)?;
    let address = |low, high| {
        let all: [u8; 16] = join(low, high);
        match (head & IPV6 != 0, all) {
            (true, all) => Some(IpAddr::from(all)),
            (false, [a, b, c, d, rest @ ..]) => {
                (rest == [0; 12]).then_some(IpAddr::V4(Ipv4Addr::new(a, b, c, d)))
            }
        }
    };
    let ends = Ends {
        rdid: Rdid(join(r0, r1)),
        protocol: (head >> 48) as u8,
        first: (address(a0, a1)?, (ports >> 32) as u16),
        second: (address(b0, b1)?, (ports >> 48) as u16),
    };
    let owner = VportId((head >> 32) as u16);
    Some((Connection { ends, owner, state, last_seen: 0, keys: [None, None] }, ports as u32))
}

fn checksum(words: &[u64; ENTRY_WORDS]) -> u64 {
    CHECKSUM_SECRET.hash(words) >> 32
}

/// The state's number in an entry. It is never 0, which marks an empty entry.
fn state_number(state: State) -> u8 {
    match state {
        State::Timed => 1,
        State::Opening => 2,
        State::Established => 3,
        State::Closing(false) => 4,
        State::Closing(true) => 5,
        State::Closed => 6,
    }
}

fn state_from(number: u8) -> Option<State> {
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

fn join(low: u64, high: u64) -> [u8; 16] {
    (u128::from(low) | u128::from(high) << 64).to_le_bytes()
}
