//! Applies the actions of a flow record to a packet.

use culvert_packet::encap::Fill;
use culvert_packet::{MacAddr, Reason, edit};

use crate::classify::Classified;
use crate::datapath::Datapath;
use crate::encap::push_outer;
use crate::frame::Frame;
use crate::port::Port;
use crate::record::{Actions, FlowCold, FlowHot};
use crate::rewrite;
use crate::table::RecordId;
use crate::tables::Tunnel;
use crate::verdict::Verdict;

/// TCP flags FIN, SYN and RST.
pub(crate) const TCP_CONTROL: u8 = 0x07;

/// What a record's actions made of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Applied {
    /// The rewritten frame leaves by a port.
    Forward {
        /// A vport or an uplink.
        to: Port,
        /// The host gets a copy (TCP control).
        copy: bool,
        /// The capture queue gets a copy.
        capture: bool,
    },
    /// The frame, rewritten but for outer headers, goes to each member of a group.
    Replicate {
        /// The group.
        group: u16,
    },
    /// The record cannot serve the packet, which is unchanged and not counted.
    Punt(Reason),
    /// The packet is dropped.
    Drop(Reason),
}

/// Applies a record to a frame, without a flow table: `hot` and `cold` are the record's parts, `c` is the frame's
/// classification, `tunnels` and `router_mac` are what the actions refer to. Counts the packet in `hot`.
#[inline(always)]
pub fn apply_record(
    (hot, cold): (&mut FlowHot, &FlowCold),
    frame: &mut Frame<'_>,
    c: &Classified,
    tunnels: &mut [Tunnel],
    router_mac: MacAddr,
    now: u32,
) -> Applied {
    let actions = hot.actions();
    let inner_len = if c.outer.inner == 0 { frame.len() } else { usize::from(c.outer.inner_len) };
    if actions.contains(Actions::ROUTE) && c.headers.ttl <= 1 {
        return Applied::Punt(Reason::Ttl);
    }
    let tunnel = if actions.contains(Actions::PUSH_OUTER) {
        match tunnels.get_mut(usize::from(hot.tunnel)) {
            Some(tunnel) if frame.longest(inner_len) <= usize::from(tunnel.max_inner) => Some(tunnel),
            Some(tunnel) if tunnel.encap != 0 => return Applied::Punt(Reason::MtuExceeded),
            _ => return Applied::Punt(Reason::NextHopUnresolved),
        }
    } else {
        None
    };
    hot.last_used = now;
    hot.packets += 1;
    hot.bytes += inner_len as u64;
    if actions.contains(Actions::DROP) {
        return Applied::Drop(hot.drop_reason());
    }
    let control = c.headers.tcp_flags & TCP_CONTROL != 0;
    let copy = control && actions.contains(Actions::COPY_TCP_CONTROL);
    if actions.contains(Actions::POP_OUTER) {
        if !frame.cut(usize::from(c.outer.inner), inner_len) {
            return Applied::Drop(Reason::OuterTruncated);
        }
        if c.outer.ecn != 0 && !edit::decapsulate_ecn(frame.bytes_mut(), &c.headers, c.outer.ecn) {
            return Applied::Drop(Reason::OuterEcn);
        }
    }
    if actions.intersects(Actions::INNER_EDITS)
        && let Err(reason) = rewrite::inner(frame, &c.headers, hot, cold, router_mac)
    {
        return Applied::Drop(reason);
    }
    if actions.contains(Actions::REPLICATE) {
        return Applied::Replicate { group: hot.tunnel };
    }
    let to = match tunnel {
        Some(tunnel) => {
            let fill =
                Fill { inner_len: frame.len(), ecn: c.headers.ecn(), entropy: hot.entropy, vsid: hot.vsid };
            if !push_outer(tunnel, &fill, frame) {
                return Applied::Drop(Reason::NoBuffer);
            }
            Port::Uplink(tunnel.uplink)
        }
        None => hot.out(),
    };
    Applied::Forward { to, copy, capture: actions.contains(Actions::CAPTURE) }
}

impl Datapath<'_> {
    /// Applies a record of the flow table to a packet. A packet that it cannot serve stays unchanged and is punted.
    #[inline(always)]
    pub fn apply(&mut self, id: RecordId, frame: &mut Frame<'_>, c: &Classified, now: u32) -> Verdict {
        match apply_record(self.table.parts_mut(id), frame, c, self.tunnels, self.router_mac, now) {
            Applied::Forward { to, copy, capture } => Verdict::Forward { to, record: id, copy, capture },
            Applied::Replicate { group } => Verdict::Replicate { record: id, group },
            Applied::Punt(reason) => Verdict::Punt { reason, ticket: None },
            Applied::Drop(reason) => Verdict::Drop { reason },
        }
    }
}
