//! Fixtures of the engine's tests: a scripted policy, its tables, packets and upcalls.

use culvert_flow::FlowHot;
use culvert_flow::pending::Ticket;
use culvert_packet::craft::{self, Ends};
use culvert_packet::{Encap, Headers, MacAddr, VportId};

use super::*;
use crate::policy::ExpiredConnection;
use crate::underlay::{LocalPa, TunnelPath};

pub(super) const GATEWAY: [u8; 4] = [192, 168, 1, 1];
pub(super) const GATEWAY_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 0x77]);
pub(super) const VPORT: Port = Port::Vport(VportId(3));

/// Decides by the UDP destination port.
#[derive(Default)]
pub(super) struct Script {
    pub(super) controls: Vec<u64>,
}

pub(super) const REMOTE: u16 = 1;
pub(super) const LOCAL: u16 = 2;
pub(super) const DENIED: u16 = 3;
pub(super) const ANSWERED: u16 = 4;
pub(super) const KEPT: u16 = 5;

pub(super) fn flow(record: FlowRecord, reverse: Option<FlowRecord>, offload: Result<(), Reason>) -> Decision {
    Decision::Forward(Box::new(Forward { record, reverse, offload }))
}

impl Policy for Script {
    fn decide(&mut self, request: &DecisionRequest<'_>) -> Decision {
        let key = request.packet.key;
        let record = |actions: Actions, tunnel, out: Port| {
            let hot = FlowHot {
                actions: actions.bits(),
                tunnel,
                out: out.bits(),
                vsid: 5001,
                ..FlowHot::default()
            };
            FlowRecord { key, hot, ..FlowRecord::default() }
        };
        let local = record(Actions::empty(), 0, Port::Vport(VportId(9)));
        match key.dst_port {
            REMOTE => {
                let forward = record(Actions::PUSH_OUTER, 7, Port::None);
                flow(forward, Some(local), Ok(()))
            }
            LOCAL => {
                let reverse = record(Actions::PUSH_OUTER, 7, Port::None);
                flow(local, Some(reverse), Ok(()))
            }
            DENIED => Decision::Drop(Reason::AclDeny),
            ANSWERED => Decision::Reply(b"the answer of the host".to_vec()),
            _ => flow(local, None, Err(Reason::OffloadDisabled)),
        }
    }

    fn tcp_control(&mut self, connection: u64, _: &Headers, _: u32) {
        self.controls.push(connection);
    }

    fn expired(&mut self, _: u32, _: usize) -> Vec<ExpiredConnection> {
        Vec::new()
    }

    fn contains(&self, _: u64) -> bool {
        true
    }

    fn touch(&mut self, _: u64, _: u32) {}

    fn remove(&mut self, _: u64) {}

    fn connections(&self) -> usize {
        0
    }

    fn records(&self) -> Vec<FlowRecord> {
        Vec::new()
    }

    fn adopt(&mut self, _: &[FlowRecord], _: u32) {}
}

pub(super) fn frame(to: u16) -> Vec<u8> {
    let ends = Ends {
        src_mac: MacAddr([2, 0, 0, 0, 1, 1]),
        dst_mac: MacAddr([2, 0, 0, 0, 1, 2]),
        src: [10, 1, 1, 11].into(),
        dst: [10, 1, 1, 12].into(),
    };
    let mut frame = [0; 128];
    let len = craft::udp(&mut frame, &ends, 1000, to, b"payload").expect("fits");
    frame[..len].to_vec()
}

/// A ticket with this slot; 0: no ticket.
pub(super) fn ticket(slot: u32) -> Option<Ticket> {
    (slot != 0).then_some(Ticket { slot: slot as u16, sequence: 1 })
}

pub(super) fn punted(input: Port, reason: Reason, ticket: u32, frame: Vec<u8>) -> Upcall {
    let meta = UpcallMeta {
        reason,
        input,
        ticket: self::ticket(ticket),
        copy: None,
        peer: 1,
        now: 0,
        offload: Offload::default(),
    };
    Upcall::parse(meta, frame)
}

pub(super) fn tables() -> NicTables {
    let pa = |n: u8| LocalPa {
        addr: [192, 168, 1, 10 + n].into(),
        mac: MacAddr([2, 0, 0, 0, 0, 0x10 + n]),
        uplink: n,
        vlan: None,
    };
    let tunnel = TunnelPath {
        index: 7,
        uplink: 1,
        local: [192, 168, 1, 11].into(),
        remote: [192, 168, 2, 20].into(),
        next_hop: Some(GATEWAY.into()),
        encap: Encap::Vxlan,
        vlan: None,
        mtu: 1600,
    };
    NicTables { local_pas: vec![pa(0), pa(1)], tunnels: vec![tunnel], ..NicTables::default() }
}

pub(super) fn engine() -> Engine<Script> {
    let mut engine = Engine::new(Script::default(), 2, [true, true]);
    engine.replace_tables(&tables(), 0);
    engine
}

/// The gateway's reply to our ARP request.
pub(super) fn arp_reply() -> Vec<u8> {
    let request = culvert_packet::arp::Packet {
        operation: culvert_packet::arp::Operation::REQUEST,
        sender_mac: MacAddr([2, 0, 0, 0, 0, 0x11]),
        sender: [192, 168, 1, 11].into(),
        target_mac: MacAddr::ZERO,
        target: GATEWAY.into(),
    };
    let mut frame = [0; 64];
    let len = craft::arp(&mut frame, &request.reply(GATEWAY_MAC)).expect("fits");
    frame[..len].to_vec()
}

pub(super) fn resolved() -> Engine<Script> {
    let mut engine = engine();
    engine.upcall(punted(Port::Uplink(1), Reason::Control, 0, arp_reply()), 1);
    engine.take_commands();
    engine
}
