//! Cutting a large frame of a VM into the segments that it stands for, encapsulated or not, as a NIC would (TSO, USO).
//!
//! A frame that is yet to be segmented passes the core once, as one packet. What stands in its lengths, in its checksum of
//! the transport header and, when it is encapsulated, in that of the outer UDP header, holds for the large frame or for
//! nothing: every segment's are made here.

use core::ops::Range;

use crate::checksum::{self, Checksum};
use crate::{ChecksumState, Family, Fragment, Gso, Offload, Protocol, parse, parse_outer, udp};

/// More than the headers of an encapsulated segment have, unless it is full of options.
pub const MAX_HEADERS: usize = 256;

/// The least payload of a segment: what is left of Linux's least MSS of 48 behind timestamps is 36. A VM that asks for
/// less would have one frame cost as much as thousands.
const LEAST: u16 = 32;

/// IP and transport header, from the frame's first byte on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    family: Family,
    l3: usize,
    l4: usize,
}

/// How one frame is cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segmentation {
    /// Outer headers, and whether their UDP checksum is used. Of GRE there is none.
    outer: Option<(Part, Outer)>,
    inner: Part,
    tcp: bool,
    mss: usize,
    payload: Range<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outer {
    Gre,
    Udp { checksum: bool },
}

impl Segmentation {
    /// How `frame` is cut by what `offload` says of it. `None`: not at all, since it is not what it is said to be.
    pub fn of(frame: &[u8], offload: &Offload) -> Option<Self> {
        let tcp = match offload.gso {
            Gso::None => return None,
            Gso::TcpV4 | Gso::TcpV6 => true,
            Gso::Udp => false,
        };
        let protocol = if tcp { Protocol::TCP } else { Protocol::UDP };
        let outer = match parse_outer(frame) {
            Ok(outer) => outer,
            Err(_) => return None,
        };
        let base = outer.map_or(0, |outer| usize::from(outer.inner));
        let headers = parse(frame.get(base..)?).ok()?;
        let (l3, l4) = (base + usize::from(headers.l3), base + usize::from(headers.l4));
        let family = match offload.gso {
            Gso::TcpV4 => headers.family == Family::V4,
            Gso::TcpV6 => headers.family == Family::V6,
            Gso::Udp | Gso::None => headers.is_ip(),
        };
        let whole = headers.fragment == Fragment::None && headers.protocol == protocol.0;
        if !family || !whole || headers.l4 == 0 || offload.mss < LEAST {
            return None;
        }
        let len = if tcp { usize::from(*frame.get(l4 + 12)? >> 4) * 4 } else { 8 };
        let (start, end) = (l4 + len, l3 + usize::from(headers.l3_len));
        if (tcp && len < 20) || start > end || start > MAX_HEADERS || end > frame.len() {
            return None;
        }
        let outer = outer.map(|outer| {
            let part = Part { family: outer.family, l3: usize::from(outer.l3), l4: usize::from(outer.l4) };
            let kind = match outer.encap {
                crate::Encap::Vxlan => Outer::Udp { checksum: outer.udp_checksum != 0 },
                crate::Encap::Nvgre => Outer::Gre,
            };
            (part, kind)
        });
        let inner = Part { family: headers.family, l3, l4 };
        Some(Segmentation { outer, inner, tcp, mss: usize::from(offload.mss), payload: start..end })
    }

    /// How many segments there are: at least one.
    pub fn count(&self) -> usize {
        self.payload.len().div_ceil(self.mss).max(1)
    }

    /// Length of the longest segment, headers and all.
    pub fn longest(&self) -> usize {
        self.payload.start + self.mss.min(self.payload.len())
    }

    /// Bytes of all headers: each segment has them.
    pub fn headers(&self) -> usize {
        self.payload.start
    }

    /// Whether the frame is encapsulated.
    pub fn is_encapsulated(&self) -> bool {
        self.outer.is_some()
    }

    /// Prepares the frame for a receiver that takes it whole, or cuts it itself: stores the sum of the pseudo-header, and
    /// says which checksum is to be completed. The second number is the length of all headers.
    pub fn leave_whole(&self, frame: &mut [u8], offload: &Offload) -> (Offload, u16) {
        let Part { l3, l4, .. } = self.inner;
        let offset = if self.tcp { 16 } else { 6 };
        let sum = self.pseudo(frame, self.payload.end - l4).sum();
        if let Some(field) = frame.get_mut(l4 + offset..l4 + offset + 2) {
            field.copy_from_slice(&sum.to_be_bytes());
        }
        let inner_l3 = l3 as u16;
        let (checksum, start, offset) = (ChecksumState::Partial, l4 as u16, offset as u16);
        let offload = Offload { checksum, start, offset, inner_l3, inner_l4: start, ..*offload };
        (offload, self.payload.start as u16)
    }

    /// Writes the headers of segment `n` of `frame` into `header`. Their length, and where in the frame its payload is.
    pub fn segment(&self, frame: &[u8], n: usize, header: &mut [u8; MAX_HEADERS]) -> (usize, Range<usize>) {
        let len = self.payload.start;
        let start = (len + n * self.mss).min(self.payload.end);
        let payload = start..(start + self.mss).min(self.payload.end);
        let (Some(header), Some(whole), Some(data)) =
            (header.get_mut(..len), frame.get(..len), frame.get(payload.clone()))
        else {
            return (0, 0..0);
        };
        header.copy_from_slice(whole);
        let end = len + data.len();
        set_ip(header, self.inner, end, n);
        let l4 = self.inner.l4;
        let field = if self.tcp {
            set_tcp(header, l4, start - len, n == 0, payload.end == self.payload.end);
            l4 + 16
        } else {
            put(header, l4 + 4, (end - l4) as u16);
            l4 + 6
        };
        put(header, field, 0);
        let pseudo = self.pseudo(header, end - l4);
        let mut sum = pseudo;
        let sum = sum.bytes(&header[l4..]).bytes(data).finish();
        put(header, field, if self.tcp { sum } else { udp::not_zero(sum) });
        if let Some((outer, kind)) = self.outer {
            set_ip(header, outer, end, n);
            if let Outer::Udp { checksum } = kind {
                put(header, outer.l4 + 4, (end - outer.l4) as u16);
                put(header, outer.l4 + 6, 0);
                if checksum {
                    // What the inner checksum covers adds up to the complement of its pseudo-header: it is not added again.
                    let mut sum = outer_pseudo(header, outer, end - outer.l4);
                    let sum = sum.bytes(&header[outer.l4..l4]).word(!pseudo.sum()).finish();
                    put(header, outer.l4 + 6, udp::not_zero(sum));
                }
            }
        }
        (len, payload)
    }

    /// Writes the headers of a frame that stands for the segments `range` of `frame`, and is yet to be cut into them, into
    /// `header`. Their length, and where in the frame its payload is. Checksums of TCP and UDP are as in `frame`: they mean
    /// nothing.
    pub fn part(
        &self,
        frame: &[u8],
        range: Range<usize>,
        header: &mut [u8; MAX_HEADERS],
    ) -> (usize, Range<usize>) {
        let len = self.payload.start;
        let [start, end] = [range.start, range.end].map(|n| (len + n * self.mss).min(self.payload.end));
        let (Some(header), Some(whole)) = (header.get_mut(..len), frame.get(..len)) else { return (0, 0..0) };
        header.copy_from_slice(whole);
        let total = len + (end - start);
        set_ip(header, self.inner, total, range.start);
        if self.tcp {
            set_tcp(header, self.inner.l4, start - len, range.start == 0, end == self.payload.end);
        } else {
            put(header, self.inner.l4 + 4, (total - self.inner.l4) as u16);
        }
        if let Some((outer, kind)) = self.outer {
            set_ip(header, outer, total, range.start);
            if let Outer::Udp { .. } = kind {
                put(header, outer.l4 + 4, (total - outer.l4) as u16);
            }
        }
        (len, start..end)
    }

    fn pseudo(&self, frame: &[u8], len: usize) -> Checksum {
        let protocol = if self.tcp { Protocol::TCP } else { Protocol::UDP };
        pseudo(frame, self.inner, protocol, len)
    }
}

fn outer_pseudo(frame: &[u8], part: Part, len: usize) -> Checksum {
    pseudo(frame, part, Protocol::UDP, len)
}

fn pseudo(frame: &[u8], part: Part, protocol: Protocol, len: usize) -> Checksum {
    let addresses = match part.family {
        Family::V6 => frame.get(part.l3 + 8..part.l3 + 40),
        _ => frame.get(part.l3 + 12..part.l3 + 20),
    };
    let addresses = addresses.unwrap_or_default();
    let (src, dst) = addresses.split_at(addresses.len() / 2);
    let mut sum = Checksum::new();
    sum.pseudo(src, dst, protocol, len as u32);
    sum
}

fn put(header: &mut [u8], at: usize, word: u16) {
    if let Some(field) = header.get_mut(at..at + 2) {
        field.copy_from_slice(&word.to_be_bytes());
    }
}

/// Length, identification and checksum of the `n`th packet's IP header; the packet ends at `end`.
fn set_ip(header: &mut [u8], part: Part, end: usize, n: usize) {
    let len = end - part.l3;
    let Some(ip) = header.get_mut(part.l3..) else { return };
    match part.family {
        Family::V4 if ip.len() >= 20 => {
            let size = usize::from(ip[0] & 15) * 4;
            let id = u16::from_be_bytes([ip[4], ip[5]]).wrapping_add(n as u16);
            put(ip, 2, len as u16);
            put(ip, 4, id);
            put(ip, 10, 0);
            let sum = checksum::of(ip.get(..size).unwrap_or_default());
            put(ip, 10, sum);
        }
        Family::V6 => put(ip, 4, (len - 40) as u16),
        _ => {}
    }
}

/// Sequence number and flags of the segment whose payload begins at byte `from` of the whole one's.
fn set_tcp(header: &mut [u8], l4: usize, from: usize, first: bool, last: bool) {
    const FIN: u8 = 1;
    const PSH: u8 = 8;
    const CWR: u8 = 0x80;
    let Some(tcp) = header.get_mut(l4..).and_then(|tcp| tcp.first_chunk_mut::<20>()) else { return };
    let sequence = u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]).wrapping_add(from as u32);
    tcp[4..8].copy_from_slice(&sequence.to_be_bytes());
    if !first {
        tcp[13] &= !CWR;
    }
    if !last {
        tcp[13] &= !(FIN | PSH);
    }
}
