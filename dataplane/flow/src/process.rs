//! One packet through the core: parse, key, hash, probe, apply.
//!
//! [`Datapath::process`] composes the stages for one packet. Engines that work on bursts call the same stages in another
//! order over the burst; they do not rewrite them.

use culvert_packet::{Encap, Family, Fragment, Headers, Reason, VportId, edit, parse, parse_outer};

use crate::datapath::Datapath;
use crate::encap::{self, Variable};
use crate::frame::Frame;
use crate::key;
use crate::pending::{BufferId, Ticket};
use crate::port::Port;
use crate::record::{Actions, FlowKey};
use crate::table::RecordId;
use crate::tables::Tunnel;

/// What the hardware knows of a packet's checksums before the core sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Checksum {
    /// Nothing.
    #[default]
    Unknown,
    /// Outer UDP checksum, or the checksum of a frame without outer headers: right.
    Good,
    /// Wrong.
    Bad,
}

/// Outer part of a packet from the wire; all zero for a frame of a vport.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct OuterInfo {
    /// Bytes of outer headers.
    pub inner: u16,
    /// Length of the inner frame; the packet may be padded behind it.
    pub inner_len: u16,
    /// Index of the outer source PA.
    pub peer: u16,
    /// VSID.
    pub vsid: u32,
    /// ECN bits of the outer header.
    pub ecn: u8,
}

/// A packet after the stages parse and key.
#[derive(Clone, Copy, Debug)]
pub struct Classified {
    /// Its key.
    pub key: FlowKey,
    /// Headers of the inner frame, offsets from its start.
    pub headers: Headers,
    /// Outer part.
    pub outer: OuterInfo,
}

/// What the flow table says of a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Probe {
    /// A live record of the current generation.
    Hit(RecordId),
    /// A live record of an older generation.
    Stale(RecordId),
    /// The host is deciding; the slot.
    Pending(u16),
    /// No record.
    Miss,
}

/// What is to be done with a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The frame, rewritten, leaves by `to`.
    Forward {
        /// A vport or an uplink.
        to: Port,
        /// By this record.
        record: RecordId,
        /// The host gets a copy (TCP control).
        copy: bool,
        /// The capture queue gets a copy.
        capture: bool,
    },
    /// The frame, rewritten but for outer headers, goes to each member of the group.
    Replicate {
        /// By this record.
        record: RecordId,
        /// The group.
        group: u16,
    },
    /// The frame, turned into the answer to it, leaves by the uplink that it came in by.
    Answer,
    /// To the host, unchanged.
    Punt {
        /// Why.
        reason: Reason,
        /// The pending flow, if it has one.
        ticket: Option<Ticket>,
    },
    /// The engine keeps the buffer: it is in the waiting list of its flow.
    Wait,
    /// Nowhere.
    Drop {
        /// Why.
        reason: Reason,
    },
}

impl Datapath<'_> {
    /// Stages parse and key: what a packet is.
    ///
    /// # Errors
    /// The verdict of a packet that has no key: malformed, not for us, or control traffic.
    #[inline(always)]
    pub fn classify(
        &self,
        frame: &[u8],
        input: Port,
        checksum: Checksum,
    ) -> Result<Classified, (Verdict, OuterInfo)> {
        match input {
            Port::Vport(id) => self.classify_outbound(frame, id).map_err(|v| (v, OuterInfo::default())),
            Port::Uplink(_) => self.classify_inbound(frame, checksum),
            Port::Host | Port::None => Err((Verdict::Drop { reason: Reason::NoVport }, OuterInfo::default())),
        }
    }

    #[inline(always)]
    fn classify_outbound(&self, frame: &[u8], id: VportId) -> Result<Classified, Verdict> {
        match self.vports.get(usize::from(id.0)) {
            Some(vport) if vport.is_up() => {}
            Some(vport) if vport.flags & crate::tables::Vport::PRESENT != 0 => {
                return Err(Verdict::Drop { reason: Reason::VportDown });
            }
            _ => return Err(Verdict::Drop { reason: Reason::NoVport }),
        }
        let headers = parse(frame).map_err(|reason| Verdict::Drop { reason })?;
        Ok(Classified { key: key::outbound(id, frame, &headers), headers, outer: OuterInfo::default() })
    }

    #[inline(always)]
    fn classify_inbound(&self, frame: &[u8], checksum: Checksum) -> Result<Classified, (Verdict, OuterInfo)> {
        let drop = |reason| (Verdict::Drop { reason }, OuterInfo::default());
        let outer = match parse_outer(frame) {
            Ok(Some(outer)) => outer,
            Ok(None) => {
                return Err((Verdict::Punt { reason: Reason::Control, ticket: None }, OuterInfo::default()));
            }
            Err(reason) => return Err(drop(reason)),
        };
        if checksum == Checksum::Bad && outer.udp_checksum != 0 {
            return Err(drop(Reason::OuterUdpChecksum));
        }
        let family = u16::from(outer.family);
        if !self.peers.is_local(family, &outer.dst) {
            return Err(drop(Reason::OuterNotOurs));
        }
        let Some(peer) = self.peers.index(family, &outer.src) else {
            return Err(drop(Reason::UnknownSourcePa));
        };
        let info = OuterInfo {
            inner: outer.inner,
            inner_len: outer.inner_len,
            peer,
            vsid: outer.vsid,
            ecn: outer.tos & 3,
        };
        let inner = frame
            .get(usize::from(outer.inner)..usize::from(outer.inner) + usize::from(outer.inner_len))
            .unwrap_or_default();
        let headers = parse(inner).map_err(|reason| (Verdict::Drop { reason }, info))?;
        Ok(Classified {
            key: key::inbound(outer.encap, outer.vsid, peer, inner, &headers),
            headers,
            outer: info,
        })
    }

    /// Stage probe: the record of a key, and whether it may be served.
    #[inline(always)]
    pub fn probe(&self, key: &FlowKey, hash: u64) -> Probe {
        let Some(id) = self.table.find(key, hash) else { return Probe::Miss };
        let hot = self.table.hot(id);
        if hot.pending != 0 {
            return Probe::Pending(hot.pending - 1);
        }
        let generation = |port: Port| match port {
            Port::Vport(VportId(n)) => self.vports.get(usize::from(n)).map_or(0, |v| v.generation),
            _ => 0,
        };
        let outbound = key.direction == crate::record::Direction::Outbound as u8;
        let fresh = self.map_cells.get(usize::from(hot.map_cell)).is_some_and(|&g| g == hot.gen_map)
            && (!outbound || generation(Port::from_bits(key.source)) == hot.gen_src)
            && generation(hot.out()) == hot.gen_dst;
        if fresh { Probe::Hit(id) } else { Probe::Stale(id) }
    }

    /// All stages, for one packet in `buffer`. With [`Verdict::Punt`] comes what the host wants to know of its outer
    /// headers. Drops are counted here, everything else by the engine when it is done.
    #[inline(always)]
    pub fn process(
        &mut self,
        frame: &mut Frame<'_>,
        input: Port,
        checksum: Checksum,
        buffer: BufferId,
        now: u32,
    ) -> (Verdict, OuterInfo) {
        let done = match input {
            Port::Vport(id) => self.fast_outbound(frame, id, now),
            Port::Uplink(_) => {
                self.fast_inbound(frame, checksum, now).map(|(id, record)| (Port::Vport(id), record))
            }
            Port::Host | Port::None => None,
        };
        match done {
            Some((to, record)) => {
                (Verdict::Forward { to, record, copy: false, capture: false }, OuterInfo::default())
            }
            None => self.process_pipeline(frame, input, checksum, buffer, now),
        }
    }

    /// The same without the fast path for the commonest packets.
    #[inline(never)]
    pub fn process_pipeline(
        &mut self,
        frame: &mut Frame<'_>,
        input: Port,
        checksum: Checksum,
        buffer: BufferId,
        now: u32,
    ) -> (Verdict, OuterInfo) {
        let c = match self.classify(frame.bytes(), input, checksum) {
            Ok(c) => c,
            Err((verdict, outer)) => return (self.no_key(verdict, frame, input), outer),
        };
        let hash = self.table.hash(&c.key);
        let verdict = match self.probe(&c.key, hash) {
            Probe::Hit(id) => self.apply(id, frame, &c, now),
            other => self.not_live(other, &c, hash, buffer, now),
        };
        (self.count_if_dropped(verdict, input), c.outer)
    }

    /// A packet that the host has sent back, to be treated by the record of its flow: the pending one that `ticket`
    /// names, or whatever is in the table by now.
    pub fn process_returned(
        &mut self,
        frame: &mut Frame<'_>,
        input: Port,
        ticket: Option<Ticket>,
        buffer: BufferId,
        now: u32,
    ) -> (Verdict, OuterInfo) {
        let c = match self.classify(frame.bytes(), input, Checksum::Unknown) {
            Ok(c) => c,
            Err((verdict, outer)) => return (self.count_if_dropped(verdict, input), outer),
        };
        let own = ticket.and_then(|t| self.pending.decided(t)).filter(|&id| *self.table.key(id) == c.key);
        let verdict = match own {
            Some(id) => self.apply(id, frame, &c, now),
            None => {
                let hash = self.table.hash(&c.key);
                match self.probe(&c.key, hash) {
                    Probe::Hit(id) => self.apply(id, frame, &c, now),
                    other => self.not_live(other, &c, hash, buffer, now),
                }
            }
        };
        (self.count_if_dropped(verdict, input), c.outer)
    }

    /// A packet that has waited for its flow's verdict, which is there now.
    pub fn process_waited(
        &mut self,
        frame: &mut Frame<'_>,
        input: Port,
        checksum: Checksum,
        id: RecordId,
        now: u32,
    ) -> (Verdict, OuterInfo) {
        match self.classify(frame.bytes(), input, checksum) {
            Ok(c) => {
                let verdict = self.apply(id, frame, &c, now);
                (self.count_if_dropped(verdict, input), c.outer)
            }
            Err((verdict, outer)) => (self.count_if_dropped(verdict, input), outer),
        }
    }

    #[inline(always)]
    fn count_if_dropped(&mut self, verdict: Verdict, input: Port) -> Verdict {
        if let Verdict::Drop { reason } = verdict {
            self.count_drop(reason, input);
        }
        verdict
    }

    /// The way of a packet that has no key.
    #[cold]
    fn no_key(&mut self, verdict: Verdict, frame: &mut Frame<'_>, input: Port) -> Verdict {
        match (verdict, input) {
            (Verdict::Punt { reason: Reason::Control, .. }, Port::Uplink(uplink))
                if self.answer_arp(frame, uplink) =>
            {
                Verdict::Answer
            }
            _ => self.count_if_dropped(verdict, input),
        }
    }

    /// The way of a packet whose flow has no record that may be served.
    #[cold]
    fn not_live(&mut self, probe: Probe, c: &Classified, hash: u64, buffer: BufferId, now: u32) -> Verdict {
        if c.headers.fragment != Fragment::None {
            return Verdict::Punt { reason: Reason::Fragment, ticket: None };
        }
        let (opened, reason) = match probe {
            Probe::Pending(slot) => match self.pending.ticket(slot) {
                Some(ticket) => (Ok(ticket), Reason::Pending),
                None if self.pending.wait(slot, buffer) => return Verdict::Wait,
                None => return Verdict::Drop { reason: Reason::PendingOverflow },
            },
            Probe::Stale(id) => (self.reopen(id), Reason::Stale),
            Probe::Miss | Probe::Hit(_) => (self.open(&c.key, hash, now), Reason::Miss),
        };
        match opened {
            Ok(ticket) => Verdict::Punt { reason, ticket: Some(ticket) },
            Err(refused) => Verdict::Punt { reason: refused.0, ticket: None },
        }
    }

    /// Stage apply: what a record does to a packet. A packet that it cannot serve goes to the host unchanged.
    #[inline(always)]
    pub fn apply(&mut self, id: RecordId, frame: &mut Frame<'_>, c: &Classified, now: u32) -> Verdict {
        let hot = self.table.hot_mut(id);
        let actions = hot.actions();
        let inner_len = if c.outer.inner == 0 { frame.len() } else { usize::from(c.outer.inner_len) };
        if actions.contains(Actions::ROUTE) && c.headers.ttl <= 1 {
            return Verdict::Punt { reason: Reason::Ttl, ticket: None };
        }
        let tunnel = if actions.contains(Actions::PUSH_OUTER) {
            match self.tunnels.get_mut(usize::from(hot.tunnel)) {
                Some(tunnel) if frame.longest(inner_len) <= usize::from(tunnel.max_inner) => Some(tunnel),
                Some(tunnel) if tunnel.encap != 0 => {
                    return Verdict::Punt { reason: Reason::MtuExceeded, ticket: None };
                }
                _ => return Verdict::Punt { reason: Reason::NextHopUnresolved, ticket: None },
            }
        } else {
            None
        };
        hot.last_used = now;
        hot.packets += 1;
        hot.bytes += inner_len as u64;
        if actions.contains(Actions::DROP) {
            return Verdict::Drop { reason: hot.drop_reason() };
        }
        let rewrite = *hot;
        let control = c.headers.tcp_flags & TCP_CONTROL != 0;
        let copy = control && actions.contains(Actions::COPY_TCP_CONTROL);
        if actions.contains(Actions::POP_OUTER) {
            if !frame.cut(usize::from(c.outer.inner), inner_len) {
                return Verdict::Drop { reason: Reason::OuterTruncated };
            }
            if c.outer.ecn != 0 && !edit::decapsulate_ecn(frame.bytes_mut(), &c.headers, c.outer.ecn) {
                return Verdict::Drop { reason: Reason::OuterEcn };
            }
        }
        if actions.intersects(Actions::INNER_EDITS)
            && let Err(reason) =
                crate::rewrite::inner(frame, &c.headers, &rewrite, self.table.cold(id), self.router_mac)
        {
            return Verdict::Drop { reason };
        }
        if actions.contains(Actions::REPLICATE) {
            return Verdict::Replicate { record: id, group: rewrite.tunnel };
        }
        let to = match tunnel {
            Some(tunnel) => {
                let v = Variable {
                    inner_len: frame.len(),
                    ecn: ecn(&c.headers),
                    entropy: rewrite.entropy,
                    vsid: rewrite.vsid,
                };
                if !push_outer(tunnel, &v, frame) {
                    return Verdict::Drop { reason: Reason::NoBuffer };
                }
                Port::Uplink(tunnel.uplink)
            }
            None => rewrite.out(),
        };
        Verdict::Forward { to, record: id, copy, capture: actions.contains(Actions::CAPTURE) }
    }

    /// Outer headers of one copy of a replicated frame: written into `out`, with their length and uplink. `None`: the
    /// tunnel is not usable, or the frame too long for it.
    pub fn replicate_header(&mut self, index: u16, v: &Variable, out: &mut [u8]) -> Option<(usize, u8)> {
        let tunnel = self.tunnels.get_mut(usize::from(index))?;
        if v.inner_len > usize::from(tunnel.max_inner) {
            return None;
        }
        let len = encap::write(tunnel, v, out)?;
        tunnel.packets += 1;
        tunnel.bytes += v.inner_len as u64;
        Some((len, tunnel.uplink))
    }
}

/// FIN, SYN, RST.
pub(crate) const TCP_CONTROL: u8 = 0x07;

/// ECN bits of the inner packet.
#[inline(always)]
pub fn ecn(headers: &Headers) -> u8 {
    match headers.family {
        Family::V4 | Family::V6 => headers.tos & 3,
        Family::Arp | Family::Other => 0,
    }
}

#[inline(always)]
fn push_outer(tunnel: &mut Tunnel, v: &Variable, frame: &mut Frame<'_>) -> bool {
    let Some(out) = frame.push(usize::from(tunnel.header_len)) else { return false };
    if encap::write(tunnel, v, out).is_none() {
        return false;
    }
    tunnel.packets += 1;
    tunnel.bytes += v.inner_len as u64;
    true
}

/// How the encapsulation of a key is called.
pub fn encap_of(key: &FlowKey) -> Option<Encap> {
    match key.encap {
        1 => Some(Encap::Vxlan),
        2 => Some(Encap::Nvgre),
        _ => None,
    }
}
