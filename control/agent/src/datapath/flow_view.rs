//! Flow records as views: numbers become names and words.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use culvert_api::view::{FlowState, FlowView};
use culvert_flow::record::{Actions, Direction, FlowKey, FlowRecord};
use culvert_flow::{Port, tables::Member};
use culvert_packet::{MacAddr, Reason, VportId};
use culvert_policy::snapshot::Snapshot;

/// Names for the numbers in flow records, from the policy.
pub(super) struct Names<'s> {
    snapshot: Option<&'s Snapshot>,
}

impl<'s> Names<'s> {
    pub(super) fn new(snapshot: Option<&'s Snapshot>) -> Self {
        Self { snapshot }
    }

    /// The vport that a flow comes from or goes to.
    pub(super) fn vport(&self, record: &FlowRecord) -> Option<u16> {
        match (record.key.direction(), record.hot.out()) {
            (Some(Direction::Outbound), _) => Some(record.key.source),
            (_, Port::Vport(VportId(id))) => Some(id),
            _ => None,
        }
    }

    /// The VSID of its packets where they arrive.
    pub(super) fn vsid(&self, record: &FlowRecord) -> u32 {
        match record.key.direction() {
            Some(Direction::Inbound) => record.key.vsid,
            _ => self
                .snapshot
                .and_then(|s| s.vports.get(&VportId(record.key.source)))
                .map_or(record.hot.vsid, |v| v.vsid),
        }
    }

    /// The view of a record; `not_offloaded` says why it is not in a NIC.
    pub(super) fn view(
        &self,
        id: u64,
        (record, idle_ms): (&FlowRecord, u32),
        not_offloaded: Option<Reason>,
    ) -> FlowView {
        let (key, hot) = (&record.key, &record.hot);
        FlowView {
            id,
            direction: match key.direction() {
                Some(Direction::Inbound) => "inbound".to_owned(),
                _ => "outbound".to_owned(),
            },
            vport: self.vport(record),
            vsid: self.vsid(record),
            source_mac: MacAddr(key.src_mac).to_string(),
            destination_mac: MacAddr(key.dst_mac).to_string(),
            source: address(key, &key.src),
            destination: address(key, &key.dst),
            protocol: protocol(key),
            source_port: if key.family == 0 { 0 } else { key.src_port },
            destination_port: if key.family == 0 { 0 } else { key.dst_port },
            action: self.actions(record).join(", "),
            state: state(record, not_offloaded),
            not_offloaded: not_offloaded.map(|reason| reason.as_str().to_owned()).unwrap_or_default(),
            packets: hot.packets,
            bytes: hot.bytes,
            idle_ms,
        }
    }

    /// The actions of a record, in words.
    pub(super) fn actions(&self, record: &FlowRecord) -> Vec<String> {
        let (hot, actions) = (&record.hot, record.hot.actions());
        let mut out = Vec::new();
        let mut add = |flag: Actions, text: String| {
            if actions.contains(flag) {
                out.push(text);
            }
        };
        add(Actions::DROP, format!("drop {}", hot.drop_reason().as_str()));
        add(Actions::POP_OUTER, "decapsulate".to_owned());
        add(Actions::ROUTE, "route".to_owned());
        add(Actions::SET_DST_MAC, format!("to {}", MacAddr(hot.dst_mac)));
        add(Actions::POP_VLAN, "untag".to_owned());
        add(Actions::PUSH_VLAN, format!("tag {}", hot.vlan & 0xfff));
        add(Actions::REPLICATE, self.group(hot.tunnel));
        add(Actions::PUSH_OUTER, self.tunnel(hot.tunnel, hot.vsid));
        let leaves = !actions.intersects(Actions::DROP | Actions::REPLICATE | Actions::PUSH_OUTER);
        if leaves && hot.out() != Port::None {
            out.push(format!("out {}", port_name(hot.out())));
        }
        out
    }

    fn tunnel(&self, index: u16, vsid: u32) -> String {
        match self.snapshot.and_then(|s| s.tunnels.get(&index)) {
            Some(t) => format!("{} {vsid} {} -> {}, uplink {}", t.encap, t.local_pa, t.remote_pa, t.uplink),
            None => format!("tunnel {index}, VSID {vsid}"),
        }
    }

    fn group(&self, index: u16) -> String {
        match self.snapshot.and_then(|s| s.groups.get(&index)) {
            Some(group) => {
                let tunnels = group.members.iter().filter(|m| matches!(m, Member::Tunnel(_))).count();
                format!("replicate to {tunnels} hosts and {} vports", group.members.len() - tunnels)
            }
            None => format!("replicate to group {index}"),
        }
    }
}

/// A port as people write it.
pub(super) fn port_name(port: Port) -> String {
    match port {
        Port::Vport(id) => format!("vport {id}"),
        Port::Uplink(n) => format!("uplink {n}"),
        Port::Host => "host".to_owned(),
        Port::None => "nowhere".to_owned(),
    }
}

/// What forwards a flow; `not_offloaded` says why it is not in a NIC.
pub(super) fn state(record: &FlowRecord, not_offloaded: Option<Reason>) -> FlowState {
    match not_offloaded {
        _ if record.hot.pending != 0 => FlowState::Pending,
        None => FlowState::Offloaded,
        Some(_) => FlowState::Software,
    }
}

fn address(key: &FlowKey, bytes: &[u8; 16]) -> String {
    let [a, b, c, d, ..] = *bytes;
    match key.family {
        4 => IpAddr::V4(Ipv4Addr::new(a, b, c, d)).to_string(),
        6 => IpAddr::V6(Ipv6Addr::from(*bytes)).to_string(),
        _ => String::new(),
    }
}

fn protocol(key: &FlowKey) -> String {
    match (key.family, key.protocol) {
        (0, _) => format!("{:#06x}", key.dst_port),
        (_, 1) => "ICMP".to_owned(),
        (_, 6) => "TCP".to_owned(),
        (_, 17) => "UDP".to_owned(),
        (_, 58) => "ICMPv6".to_owned(),
        (_, other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use culvert_flow::FlowHot;

    #[test]
    fn a_record_in_words() {
        let mut record = FlowRecord::default();
        record.key.direction = Direction::Outbound as u8;
        record.key.source = 3;
        record.key.family = 4;
        record.key.protocol = 6;
        record.key.src[..4].copy_from_slice(&[10, 1, 1, 11]);
        record.key.dst_port = 80;
        record.hot = FlowHot { tunnel: 7, vsid: 5001, ..FlowHot::default() };
        record.hot.actions = (Actions::ROUTE | Actions::PUSH_OUTER).bits();
        let view = Names::new(None).view(0, (&record, 7), None);
        assert_eq!((view.vport, view.vsid, view.source.as_str()), (Some(3), 5001, "10.1.1.11"));
        assert_eq!((view.protocol.as_str(), view.destination_port), ("TCP", 80));
        assert_eq!(view.action, "route, tunnel 7, VSID 5001");
    }
}
