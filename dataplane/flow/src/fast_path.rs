//! The fast path: the commonest hits, with the flow key in registers and no branch but those that leave it.
//!
//! It takes an untagged IPv4 packet of TCP or UDP, no fragment and no SYN, FIN or RST, whose record only pushes or pops
//! outer headers or hands the packet to another vport of the host. It leaves every other packet unchanged to
//! [`Datapath::process_pipeline`]. Both give the same result; `tests/lockstep` compares them.
//!
//! It has two halves: `fast_key_*` makes the packet's key, `fast_apply_*` finds its record and applies it. An engine
//! that works on bursts prefetches between the two. The second half looks the record up itself, since the table may
//! have changed since the first.

use culvert_packet::encap::Fill;
use culvert_packet::{VportId, parse_outer_common};

use crate::apply::TCP_CONTROL;
use crate::datapath::Datapath;
use crate::encap;
use crate::frame::Frame;
use crate::outer::{Checksum, accept_outer};
use crate::port::Port;
use crate::record::{Actions, Direction, FlowHot};
use crate::table::RecordId;

/// Bytes that the fast path reads of an inner frame: up to the TCP flags.
const HEAD: usize = 48;
/// Headers of IPv4 and TCP.
const LEAST: usize = 40;
/// A MAC address in the lower bits of a word.
const MAC: u64 = (1 << 48) - 1;
/// EtherType IPv4, version 4, five words of header: as they lie in memory.
const IPV4: u64 = 0x0045_0008;
/// More fragments, and the fragment's offset, as they lie in memory.
const FRAGMENT: u32 = 0xff3f;

/// The key and hash of a packet that the fast path may take.
#[derive(Clone, Copy)]
pub struct FastKey {
    words: [u64; 8],
    hash: u64,
    /// Offset and length of its inner frame.
    start: u32,
    len: u32,
    ecn: u8,
}

/// What the fast path reads from an inner frame.
struct Inner {
    words: [u64; 8],
    ecn: u8,
}

#[inline(always)]
fn word<const AT: usize>(head: &[u8; HEAD]) -> u64 {
    const { assert!(AT + 8 <= HEAD) };
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&head[AT..AT + 8]);
    u64::from_le_bytes(bytes)
}

#[inline(always)]
fn inner(frame: &[u8], first: u64) -> Option<Inner> {
    let head = frame.first_chunk::<HEAD>()?;
    let kind = word::<12>(head);
    // Fragment, TTL, protocol.
    let rest = word::<20>(head) as u32;
    let protocol = u64::from(rest >> 24);
    let control = match protocol {
        6 => head[47] & TCP_CONTROL,
        17 => 0,
        _ => return None,
    };
    let total = usize::from(((kind >> 32) as u16).swap_bytes());
    let unlike = kind & 0x00ff_ffff ^ IPV4 | u64::from(rest & FRAGMENT) | u64::from(control);
    // UDP of less than twelve bytes also takes the pipeline.
    if unlike != 0 || total < LEAST || total > frame.len() - 14 {
        return None;
    }
    let addresses = word::<26>(head);
    let ports = u32::from_be(word::<34>(head) as u32).rotate_left(16);
    let words = [
        first,
        word::<0>(head) & MAC,
        word::<6>(head) & MAC | 4 << 48 | protocol << 56,
        addresses & 0xffff_ffff,
        0,
        addresses >> 32,
        0,
        u64::from(ports),
    ];
    Some(Inner { words, ecn: (kind >> 24) as u8 & 3 })
}

/// Whether a live record does this and nothing else. TCP control segments, which are copied, take the pipeline.
#[inline(always)]
fn only(hot: &FlowHot, action: Actions) -> bool {
    hot.actions & !Actions::COPY_TCP_CONTROL.bits() == action.bits() && hot.pending == 0
}

#[inline(always)]
fn count(hot: &mut FlowHot, len: usize, now: u32) {
    hot.last_used = now;
    hot.packets += 1;
    hot.bytes += len as u64;
}

impl Datapath<'_> {
    /// Forwards a packet from a vport: the port that it leaves by, and the record. `None`: it takes the pipeline,
    /// unchanged.
    #[inline(always)]
    pub fn fast_outbound(
        &mut self,
        frame: &mut Frame<'_>,
        id: VportId,
        now: u32,
    ) -> Option<(Port, RecordId)> {
        // First, so that frames of a vport that is down are not read.
        self.vports.get(usize::from(id.0)).filter(|v| v.is_up())?;
        let keyed = self.fast_key_outbound(frame.bytes(), id)?;
        self.fast_apply_outbound(&keyed, frame, id, now)
    }

    /// Forwards a packet from the wire: the vport that it goes to, and the record. `None`: it takes the pipeline,
    /// unchanged.
    #[inline(always)]
    pub fn fast_inbound(
        &mut self,
        frame: &mut Frame<'_>,
        checksum: Checksum,
        now: u32,
    ) -> Option<(VportId, RecordId)> {
        let keyed = self.fast_key_inbound(frame.bytes(), checksum)?;
        self.fast_apply_inbound(&keyed, frame, now)
    }

    /// The first half for a packet from a vport. `None`: it takes the pipeline.
    #[inline(always)]
    pub fn fast_key_outbound(&self, frame: &[u8], id: VportId) -> Option<FastKey> {
        let first = Direction::Outbound as u64 | u64::from(id.0) << 16;
        let Inner { words, ecn } = inner(frame, first)?;
        let hash = self.table.hash_ipv4(&words);
        Some(FastKey { words, hash, start: 0, len: frame.len() as u32, ecn })
    }

    /// The first half for a packet from the wire. `None`: it takes the pipeline.
    #[inline(always)]
    pub fn fast_key_inbound(&self, frame: &[u8], checksum: Checksum) -> Option<FastKey> {
        let outer = parse_outer_common(frame)?;
        // A checksum that is not verified, or wrong, and an outer ECN mark take the pipeline.
        let unverified = outer.udp_checksum != 0 && checksum != Checksum::Good;
        if outer.tos & 3 != 0 || unverified {
            return None;
        }
        let peer = accept_outer(&self.peers, &outer, checksum).ok()?;
        let first = Direction::Inbound as u64
            | (outer.encap as u64) << 8
            | u64::from(peer) << 16
            | u64::from(outer.vsid) << 32;
        let (start, len) = (usize::from(outer.inner), usize::from(outer.inner_len));
        let Inner { words, ecn } = inner(frame.get(start..start + len)?, first)?;
        let hash = self.table.hash_ipv4(&words);
        Some(FastKey { words, hash, start: start as u32, len: len as u32, ecn })
    }

    /// Prefetches the flow's bucket.
    #[inline(always)]
    pub fn prefetch_bucket(&self, keyed: &FastKey) {
        self.table.prefetch_bucket(keyed.hash);
    }

    /// Prefetches the flow's key and record. Its bucket should have been prefetched before.
    #[inline(always)]
    pub fn prefetch_record(&self, keyed: &FastKey) {
        self.table.prefetch_record(keyed.hash);
    }

    /// The second half for a packet from a vport. `None`: there is no record, or one for the pipeline.
    #[inline(always)]
    pub fn fast_apply_outbound(
        &mut self,
        keyed: &FastKey,
        frame: &mut Frame<'_>,
        id: VportId,
        now: u32,
    ) -> Option<(Port, RecordId)> {
        let vport = self.vports.get(usize::from(id.0)).filter(|v| v.is_up())?;
        let record = self.table.find_ipv4(&keyed.words, keyed.hash)?;
        let hot = self.table.hot_mut(record);
        let fresh = hot.gen_src == vport.generation
            && self.map_cells.get(usize::from(hot.map_cell)) == Some(&hot.gen_map);
        let len = keyed.len as usize;
        if hot.out < Port::MAX_VPORTS {
            // To a vport of this host, as it is.
            let to = self.vports.get(usize::from(hot.out))?;
            if !fresh || !only(hot, Actions::empty()) || hot.gen_dst != to.generation {
                return None;
            }
            count(hot, len, now);
            return Some((hot.out(), record));
        }
        let tunnel = self.tunnels.get_mut(usize::from(hot.tunnel))?;
        let fresh = fresh && only(hot, Actions::PUSH_OUTER) && hot.gen_dst == 0;
        if !fresh || frame.longest(len) > usize::from(tunnel.max_inner) {
            return None;
        }
        let fill = Fill { inner_len: len, ecn: keyed.ecn, entropy: hot.entropy, vsid: hot.vsid };
        if !encap::push_common(tunnel, &fill, frame) {
            return None;
        }
        tunnel.count(len);
        count(hot, len, now);
        Some((Port::Uplink(tunnel.uplink), record))
    }

    /// The second half for a packet from the wire. `None`: there is no record, or one for the pipeline.
    #[inline(always)]
    pub fn fast_apply_inbound(
        &mut self,
        keyed: &FastKey,
        frame: &mut Frame<'_>,
        now: u32,
    ) -> Option<(VportId, RecordId)> {
        let record = self.table.find_ipv4(&keyed.words, keyed.hash)?;
        let hot = self.table.hot_mut(record);
        let vport = self.vports.get(usize::from(hot.out))?;
        let fresh = only(hot, Actions::POP_OUTER)
            && hot.gen_dst == vport.generation
            && hot.out < Port::MAX_VPORTS
            && self.map_cells.get(usize::from(hot.map_cell)) == Some(&hot.gen_map);
        let (start, len) = (keyed.start as usize, keyed.len as usize);
        if !fresh || !frame.cut(start, len) {
            return None;
        }
        count(hot, len, now);
        Some((VportId(hot.out), record))
    }
}
