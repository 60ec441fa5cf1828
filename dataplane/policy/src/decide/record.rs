//! Flow records: the NIC's actions on packets of a key.

use culvert_flow::hash::entropy;
use culvert_flow::record::{Actions, Direction};
use culvert_flow::{FlowCold, FlowHot, FlowKey, FlowRecord, Port};
use culvert_packet::{Encap, MacAddr, VportId};

use super::stateful::Tracked;
use crate::snapshot::{Location, Mapping, Snapshot, Vport};

/// What all records of a flow have in common.
#[derive(Clone, Copy)]
pub(super) struct Common {
    /// The connection.
    pub(super) tracked: Option<Tracked>,
    /// Rules that allowed it.
    pub(super) rules: [u32; 2],
}

impl Common {
    fn cold(&self, answers: bool) -> FlowCold {
        let mut cold = FlowCold::default();
        if let Some(t) = &self.tracked {
            cold.connection = t.id.cold(t.reverse != answers);
        }
        cold.rules[..2].copy_from_slice(&self.rules);
        cold
    }
}

fn copy_of(key: &FlowKey) -> Actions {
    if key.protocol == 6 && key.fragment == 0 { Actions::COPY_TCP_CONTROL } else { Actions::empty() }
}

/// From a local vport to a mapping's location. `routed`: by the distributed router.
pub(super) fn outbound(
    s: &Snapshot,
    vport: &Vport,
    key: FlowKey,
    to: &Mapping,
    routed: bool,
    common: &Common,
    answers: bool,
) -> FlowRecord {
    let mut actions = copy_of(&key);
    if routed {
        actions |= Actions::ROUTE | Actions::SET_DST_MAC;
    }
    let mut hot = FlowHot {
        dst_mac: to.mac.0,
        vsid: to.vsid,
        entropy: entropy(&s.entropy, &key.words()),
        gen_src: vport.generation,
        gen_map: to.generation,
        map_cell: to.cell,
        ..FlowHot::default()
    };
    match to.location {
        Location::Local(id) => {
            hot.out = Port::Vport(id).bits();
            hot.gen_dst = s.vports.get(&id).map_or(0, |v| v.generation);
        }
        Location::Remote { tunnels, .. } => {
            actions |= Actions::PUSH_OUTER;
            hot.out = Port::None.bits();
            hot.tunnel = tunnels[usize::from(vport.local_pa % 2)];
        }
    }
    hot.actions = actions.bits();
    FlowRecord { key, hot, cold: common.cold(answers) }
}

/// From another host to a local vport. `from`: the mapping of the source.
pub(super) fn inbound(
    id: VportId,
    vport: &Vport,
    key: FlowKey,
    from: &Mapping,
    common: &Common,
    answers: bool,
) -> FlowRecord {
    let hot = FlowHot {
        actions: (Actions::POP_OUTER | copy_of(&key)).bits(),
        out: Port::Vport(id).bits(),
        gen_dst: vport.generation,
        gen_map: from.generation,
        map_cell: from.cell,
        ..FlowHot::default()
    };
    FlowRecord { key, hot, cold: common.cold(answers) }
}

/// To all members of a subnet.
pub(super) fn flood(s: &Snapshot, vport: Option<&Vport>, key: FlowKey, group: u16, vsid: u32) -> FlowRecord {
    let mut actions = Actions::REPLICATE;
    if vport.is_none() {
        actions |= Actions::POP_OUTER;
    }
    let hot = FlowHot {
        actions: actions.bits(),
        tunnel: group,
        out: Port::None.bits(),
        vsid,
        entropy: entropy(&s.entropy, &key.words()),
        gen_src: vport.map_or(0, |v| v.generation),
        ..FlowHot::default()
    };
    FlowRecord { key, hot, ..FlowRecord::default() }
}

/// Key of the answers to packets of `key`, as far as the inner packet goes. `None`: there are none (ICMP that is no
/// echo, fragments).
fn answer(key: &FlowKey, src_mac: MacAddr, dst_mac: MacAddr) -> Option<FlowKey> {
    if key.fragment != 0 || key.family == 0 {
        return None;
    }
    let (src_port, dst_port) = match (key.protocol, key.src_port) {
        // Echo request and reply, RFC 792 and RFC 4443: the type changes, the identifier stays.
        (1, 8) => (0, key.dst_port),
        (1, 0) => (8, key.dst_port),
        (58, 128) => (129, key.dst_port),
        (58, 129) => (128, key.dst_port),
        (1 | 58, _) => return None,
        (_, port) => (key.dst_port, port),
    };
    Some(FlowKey {
        src_mac: src_mac.0,
        dst_mac: dst_mac.0,
        src: key.dst,
        dst: key.src,
        src_port,
        dst_port,
        ..*key
    })
}

/// Key of the answers from another host: it routes them itself if we routed the first packet.
pub(super) fn answer_from_wire(
    s: &Snapshot,
    key: &FlowKey,
    vport: &Vport,
    to: &Mapping,
    peer: u16,
    routed: bool,
) -> Option<FlowKey> {
    let src_mac = if routed { s.router_mac } else { to.mac };
    let encap: Encap = s.encap(vport.rdid);
    answer(key, src_mac, vport.mac).map(|key| FlowKey {
        direction: Direction::Inbound as u8,
        encap: encap as u8,
        source: peer,
        vsid: vport.vsid,
        ..key
    })
}

/// Key of the answers of a local vport. `routed`: it sends them to the router.
pub(super) fn answer_from_vport(
    key: &FlowKey,
    id: VportId,
    vport: &Vport,
    to_mac: MacAddr,
) -> Option<FlowKey> {
    answer(key, vport.mac, to_mac).map(|key| FlowKey {
        direction: Direction::Outbound as u8,
        encap: 0,
        source: id.0,
        vsid: 0,
        ..key
    })
}
