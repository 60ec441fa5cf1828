//! Stateful access control lists: the answers of an allowed connection pass, whatever the lists say of them.

use core::net::IpAddr;

use culvert_flow::FlowKey;
use culvert_packet::{Fragment, Rdid, Reason, VportId};

use super::packet::Packet;
use crate::acl::{AclSet, Action, Matched, Tuple};
use crate::connection::{
    Connection, ConnectionId, Connections, Effect, Effects, Ends, Full, State, first_state, next_state,
};
use crate::snapshot::Snapshot;
use crate::trace::{Layer, ListDirection, TraceSink};

/// ICMP and ICMPv6.
const ICMP: [u8; 2] = [1, 58];

/// The connection that a packet belongs to.
#[derive(Clone, Copy)]
pub(super) struct Tracked {
    /// Its identifier.
    pub(super) id: ConnectionId,
    /// Whether the packet is one of the answers.
    pub(super) reverse: bool,
    /// State of the connection, if there was one before this packet.
    existing: Option<State>,
    ends: Ends,
    owner: VportId,
}

/// Whether lists look at ports of a protocol.
fn has_ports(protocol: u8) -> bool {
    matches!(protocol, 6 | 17 | 132)
}

/// The fields that lists match.
fn tuple(packet: &Packet<'_>, src: IpAddr, dst: IpAddr) -> Tuple {
    let has_ports = has_ports(packet.headers.protocol) && packet.headers.fragment != Fragment::Later;
    let ports = has_ports.then_some((packet.headers.l4_src, packet.headers.l4_dst));
    Tuple { src, dst, protocol: packet.headers.protocol, ports }
}

/// Both ends of a packet. `None`: it is not tracked (fragments, ICMP other than echo).
fn ends(packet: &Packet<'_>, rdid: Rdid, src: IpAddr, dst: IpAddr) -> Option<Ends> {
    let h = &packet.headers;
    if h.fragment != Fragment::None {
        return None;
    }
    let (from, to) = match h.protocol {
        1 if !matches!(h.l4_src, 0 | 8) => return None,
        58 if !matches!(h.l4_src, 128 | 129) => return None,
        protocol if ICMP.contains(&protocol) => (h.l4_dst, h.l4_dst),
        _ => (h.l4_src, h.l4_dst),
    };
    Some(Ends { rdid, protocol: h.protocol, first: (src, from), second: (dst, to) })
}

/// The lists that a packet has to pass, with their vports.
pub(super) type Lists<'a> = [Option<(VportId, ListDirection, &'a AclSet)>; 2];

/// Lets a packet pass if it belongs to a connection, or if all lists allow a new one.
///
/// # Errors
/// The reason why it ends.
pub(super) fn pass(
    connections: &Connections,
    packet: &Packet<'_>,
    rdid: Rdid,
    (src, dst): (IpAddr, IpAddr),
    owner: VportId,
    lists: &Lists<'_>,
    trace: &mut impl TraceSink,
) -> Result<(Option<Tracked>, [u32; 2]), Reason> {
    let ends = ends(packet, rdid, src, dst);
    let known = ends.and_then(|ends| connections.find(&ends).map(|(id, reverse)| (ends, id, reverse)));
    let tracked = known.map(|(ends, id, reverse)| Tracked {
        id,
        reverse,
        existing: connections.get(id).map(|c| c.state),
        ends,
        owner,
    });
    // Answers pass. Packets of the side that opened the connection are checked: the policy may have changed.
    if let Some(answer) = tracked.filter(|t| t.reverse) {
        trace.step(Layer::Connection, Some(owner), "answer", "allow");
        return Ok((Some(answer), [0; 2]));
    }
    let tuple = tuple(packet, src, dst);
    let mut rules = [0; 2];
    for (slot, (vport, direction, acls)) in rules.iter_mut().zip(lists.iter().flatten()) {
        let checked = acls.check_each(&tuple, |acl, rule| {
            if tracked.is_none() || rule.action == Action::Deny {
                trace.decided(&acl.name, *direction, &rule.name);
            }
        });
        match checked {
            Matched::Denied { rule, .. } => {
                trace.step(Layer::Acl, Some(*vport), rule, "deny");
                return Err(Reason::AclDeny);
            }
            Matched::Allowed(Some((rule, number))) => {
                trace.step(Layer::Acl, Some(*vport), rule, "allow");
                *slot = number;
            }
            Matched::Allowed(None) => trace.step(Layer::Acl, Some(*vport), "default", "allow"),
        }
    }
    if tracked.is_some() {
        trace.step(Layer::Connection, Some(owner), "known", "allow");
        return Ok((tracked, rules));
    }
    let Some(ends) = ends else { return Ok((None, rules)) };
    let id = connections.room(owner).map_err(|full| match full {
        Full::Table => Reason::ConnTableFull,
        Full::Vport => Reason::VportQuota,
    })?;
    trace.step(Layer::Connection, Some(owner), "new", "create");
    Ok((Some(Tracked { id, reverse: false, existing: None, ends, owner }), rules))
}

/// Whether a policy allows a connection: one end is on this host, the other has a mapping, and the lists of the ends on
/// this host allow it.
pub fn allows(snapshot: &Snapshot, ends: &Ends) -> bool {
    let ((src, src_port), (dst, dst_port)) = (ends.first, ends.second);
    let mapped = [src, dst].iter().all(|ca| snapshot.mappings.by_ca(ends.rdid, *ca).is_some());
    let ports = has_ports(ends.protocol).then_some((src_port, dst_port));
    let tuple = Tuple { src, dst, protocol: ends.protocol, ports };
    let [from, to] = snapshot.local_ends(ends).map(|id| snapshot.vports.get(&id?));
    let lists = [from.map(|v| &v.acls_out), to.map(|v| &v.acls_in)];
    let mut here = lists.iter().flatten().peekable();
    mapped && here.peek().is_some() && here.all(|acls| matches!(acls.check(&tuple), Matched::Allowed(_)))
}

impl Tracked {
    /// Effects on the connection when the packet is forwarded, with the keys of its own record and the other direction's.
    pub(super) fn effects(
        &self,
        packet: &Packet<'_>,
        own: FlowKey,
        other: Option<FlowKey>,
        now: u32,
    ) -> Effects {
        let flags = packet.headers.tcp_flags;
        let keys = if self.reverse { [other, Some(own)] } else { [Some(own), other] };
        Some(match &self.existing {
            Some(state) => Effect::Update(self.id, next_state(*state, self.reverse, flags), keys),
            None => Effect::Create(
                self.id,
                Connection {
                    ends: self.ends,
                    owner: self.owner,
                    state: first_state(self.ends.protocol, flags),
                    last_seen: now,
                    keys,
                },
            ),
        })
    }
}
