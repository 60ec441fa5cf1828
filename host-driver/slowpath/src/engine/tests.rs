//! The engine with a scripted policy: order of commands, tickets, waiting for next hops, takeover of an uplink.

use std::collections::HashMap;

use culvert_flow::FlowHot;
use culvert_flow::pending::Ticket;
use culvert_offload::ControlCopy;
use culvert_packet::craft::{self, Ends};
use culvert_packet::{Encap, Headers, OuterSpec, VportId, parse_outer};
use proptest::prelude::*;

use culvert_packet::MacAddr;

use super::*;
use crate::decide::Expired;
use crate::plan::Plan;
use crate::uplink::LocalPa;

const GATEWAY: [u8; 4] = [192, 168, 1, 1];
const GATEWAY_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 0x77]);
const VPORT: Port = Port::Vport(VportId(3));

/// Decides by the UDP destination port.
#[derive(Default)]
struct Script {
    controls: Vec<u64>,
}

const REMOTE: u16 = 1;
const LOCAL: u16 = 2;
const DENIED: u16 = 3;
const ANSWERED: u16 = 4;
const KEPT: u16 = 5;

fn flow(record: FlowRecord, reverse: Option<FlowRecord>, offload: Result<(), Reason>) -> Decision {
    Decision::Forward(Box::new(Forward { record, reverse, offload }))
}

impl Policy for Script {
    fn decide(&mut self, q: &Question<'_>) -> Decision {
        let key = q.packet.key;
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

    fn control(&mut self, connection: u64, _: &Headers, _: u32) {
        self.controls.push(connection);
    }

    fn expired(&mut self, _: u32, _: usize) -> Vec<Expired> {
        Vec::new()
    }

    fn knows(&self, _: u64) -> bool {
        true
    }

    fn touch(&mut self, _: u64, _: u32) {}

    fn forget(&mut self, _: u64) {}

    fn connections(&self) -> usize {
        0
    }

    fn records(&self) -> Vec<FlowRecord> {
        Vec::new()
    }

    fn adopt(&mut self, _: &[FlowRecord], _: u32) {}
}

fn frame(to: u16) -> Vec<u8> {
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

/// A ticket with this slot; 0: none.
fn ticket(slot: u32) -> Option<Ticket> {
    (slot != 0).then_some(Ticket { slot: slot as u16, sequence: 1 })
}

fn punted(input: Port, reason: Reason, ticket: u32, frame: Vec<u8>) -> Upcall {
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

fn plan() -> Plan {
    let pa = |n: u8| LocalPa {
        addr: [192, 168, 1, 10 + n].into(),
        mac: MacAddr([2, 0, 0, 0, 0, 0x10 + n]),
        uplink: n,
        vlan: None,
    };
    let way = Way {
        index: 7,
        uplink: 1,
        local: [192, 168, 1, 11].into(),
        remote: [192, 168, 2, 20].into(),
        next_hop: Some(GATEWAY.into()),
        encap: Encap::Vxlan,
        vlan: None,
        mtu: 1600,
    };
    Plan { locals: vec![pa(0), pa(1)], ways: vec![way], ..Plan::default() }
}

fn engine() -> Engine<Script> {
    let mut engine = Engine::new(Script::default(), 2, [true, true]);
    engine.plan(&plan(), 0);
    engine
}

/// The gateway's answer to our question.
fn arp_reply() -> Vec<u8> {
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

fn resolved() -> Engine<Script> {
    let mut engine = engine();
    engine.upcall(punted(Port::Uplink(1), Reason::Control, 0, arp_reply()), 1);
    engine.take_commands();
    engine
}

#[test]
fn a_policy_announces_addresses_and_asks_for_next_hops() {
    let commands = engine().take_commands();
    let sent: Vec<_> = commands
        .iter()
        .map(|step| match step {
            FlowCommand::PacketOut(back, Port::Uplink(n), frame) if back.ticket.is_none() => {
                (*n, frame[38..42].to_vec())
            }
            other => panic!("{other:?}"),
        })
        .collect();
    let expected = [(0, vec![192, 168, 1, 10]), (1, vec![192, 168, 1, 11]), (1, GATEWAY.to_vec())];
    assert_eq!(sent, expected);
}

#[test]
fn records_come_before_the_packet_and_both_directions_together() {
    let mut engine = resolved();
    let packet = frame(REMOTE);
    engine.upcall(punted(VPORT, Reason::Miss, 5, packet.clone()), 2);
    let commands = engine.take_commands();
    let [FlowCommand::Insert(records), FlowCommand::Reinject(back, sent, _)] = &commands[..] else {
        panic!("{commands:?}")
    };
    assert_eq!(records.len(), 2);
    assert_eq!((back.ticket, back.input, sent), (ticket(5), VPORT, &packet));
}

#[test]
fn flows_wait_for_their_next_hop_and_leave_in_order_behind_its_tunnel() {
    let mut engine = engine();
    engine.take_commands();
    for ticket in [5, 6, 5] {
        engine.upcall(punted(VPORT, Reason::Miss, ticket, frame(REMOTE)), 2);
    }
    assert_eq!(engine.take_commands(), vec![]);
    engine.upcall(punted(Port::Uplink(1), Reason::Control, 0, arp_reply()), 3);
    let commands = engine.take_commands();
    let Some(FlowCommand::SetTunnel(7, tunnel)) = commands.first() else { panic!("{commands:?}") };
    assert_eq!((tunnel.uplink, &tunnel.header[..6]), (1, &GATEWAY_MAC.0[..]));
    assert_eq!(tunnel.max_inner, 1600 - 36);
    let order: Vec<u32> = commands
        .iter()
        .filter_map(|s| match s {
            FlowCommand::Reinject(back, _, _) => back.ticket.map(|t| u32::from(t.slot)),
            _ => None,
        })
        .collect();
    assert_eq!(order, [5, 6, 5]);
}

#[test]
fn answers_are_not_installed_before_their_next_hop_is_known() {
    let mut engine = engine();
    engine.take_commands();
    engine.upcall(punted(VPORT, Reason::Miss, 5, frame(LOCAL)), 2);
    let commands = engine.take_commands();
    let [FlowCommand::Insert(records), FlowCommand::Reinject(..)] = &commands[..] else {
        panic!("{commands:?}")
    };
    assert_eq!(records.len(), 1);
}

#[test]
fn a_silent_next_hop_drops_what_waited() {
    let mut engine = engine();
    engine.upcall(punted(VPORT, Reason::Miss, 5, frame(REMOTE)), 0);
    engine.take_commands();
    for second in 1..=6 {
        engine.tick(second * 1000);
    }
    let drops: Vec<_> =
        engine.take_commands().into_iter().filter(|s| matches!(s, FlowCommand::Dropped(..))).collect();
    let [FlowCommand::Dropped(back, Reason::NextHopTimeout)] = &drops[..] else { panic!("{drops:?}") };
    assert_eq!(back.ticket, ticket(5));
}

#[test]
fn without_a_ticket_nothing_is_installed() {
    let mut engine = resolved();
    engine.upcall(punted(VPORT, Reason::TableFull, 0, frame(REMOTE)), 2);
    let commands = engine.take_commands();
    let [FlowCommand::PacketOut(back, Port::Uplink(1), sent)] = &commands[..] else { panic!("{commands:?}") };
    assert_eq!(back.ticket, None);
    let outer = parse_outer(sent).expect("valid").expect("encapsulated");
    assert_eq!((outer.vsid, &sent[usize::from(outer.inner)..]), (5001, &frame(REMOTE)[..]));
}

#[test]
fn what_must_not_be_offloaded_is_forwarded_with_its_ticket() {
    let mut engine = resolved();
    engine.upcall(punted(VPORT, Reason::Miss, 5, frame(KEPT)), 2);
    let commands = engine.take_commands();
    let [FlowCommand::PacketOut(back, Port::Vport(VportId(9)), _)] = &commands[..] else {
        panic!("{commands:?}")
    };
    assert_eq!(back.ticket, ticket(5));
}

#[test]
fn answers_and_denials_settle_their_tickets() {
    let mut engine = resolved();
    engine.upcall(punted(VPORT, Reason::Miss, 5, frame(ANSWERED)), 2);
    engine.upcall(punted(VPORT, Reason::Miss, 6, frame(DENIED)), 2);
    let commands = engine.take_commands();
    let [FlowCommand::PacketOut(answer, VPORT, _), FlowCommand::Dropped(denied, Reason::AclDeny)] =
        &commands[..]
    else {
        panic!("{commands:?}")
    };
    assert_eq!((answer.ticket, denied.ticket), (ticket(5), ticket(6)));
}

#[test]
fn a_copy_informs_the_policy_and_goes_nowhere() {
    let mut engine = resolved();
    let mut copy = punted(VPORT, Reason::TcpControl, 0, frame(REMOTE));
    copy.meta.copy = Some(ControlCopy { connection: 42, outer_len: 0 });
    engine.upcall(copy, 2);
    assert_eq!(engine.take_commands(), vec![]);
    assert_eq!(engine.policy().controls, [42]);
}

#[test]
fn a_dead_uplinks_address_moves_with_its_tunnels() {
    let mut engine = resolved();
    engine.links([true, false], 10);
    let commands = engine.take_commands();
    let Some(FlowCommand::PacketOut(_, Port::Uplink(0), announcement)) = commands.first() else {
        panic!("{commands:?}")
    };
    assert_eq!(announcement[6..12], [2, 0, 0, 0, 0, 0x11]);
    assert_eq!(
        (&announcement[28..32], &announcement[38..42]),
        (&[192, 168, 1, 11][..], &[192, 168, 1, 11][..])
    );
    let moved = |commands: &[FlowCommand]| {
        commands.iter().find_map(|s| match s {
            FlowCommand::SetTunnel(7, t) => Some(t.uplink),
            _ => None,
        })
    };
    assert_eq!(moved(&commands), Some(0));
    engine.links([true, true], 20);
    assert_eq!(moved(&engine.take_commands()), Some(1));
}

#[test]
fn a_policy_without_a_tunnel_takes_it_away() {
    let mut engine = resolved();
    engine.plan(&Plan { ways: Vec::new(), ..plan() }, 5);
    let commands = engine.take_commands();
    let [FlowCommand::SetTunnel(7, tunnel)] = &commands[..] else { panic!("{commands:?}") };
    assert_eq!(tunnel.encap, 0);
    engine.upcall(punted(VPORT, Reason::Miss, 5, frame(REMOTE)), 6);
    let commands = engine.take_commands();
    assert!(matches!(commands[..], [FlowCommand::Dropped(_, Reason::GroupMissing)]), "{commands:?}");
}

/// A frame from the wire around `inner`.
fn wire(inner: &[u8]) -> Vec<u8> {
    let spec = OuterSpec {
        encap: Encap::Vxlan,
        src_mac: GATEWAY_MAC,
        dst_mac: MacAddr([2, 0, 0, 0, 0, 0x11]),
        vlan: None,
        src: [192, 168, 2, 20].into(),
        dst: [192, 168, 1, 11].into(),
    };
    let mut frame = [0; 256];
    let template = spec.template().expect("same family");
    let len = craft::encapsulated(&mut frame, &template, 5001, 50_000, inner).expect("fits");
    frame[..len].to_vec()
}

#[derive(Clone, Debug)]
enum Event {
    Packet { input: u8, to: u16, ticket: bool, cut: usize },
    Arp,
    Tick,
    Links([bool; 2]),
    Plan { ways: bool },
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => (0u8..3, 1u16..7, any::<bool>(), prop_oneof![9 => Just(0usize), 1 => 0usize..60])
            .prop_map(|(input, to, ticket, cut)| Event::Packet { input, to, ticket, cut }),
        1 => Just(Event::Arp),
        2 => Just(Event::Tick),
        1 => any::<[bool; 2]>().prop_map(Event::Links),
        1 => any::<bool>().prop_map(|ways| Event::Plan { ways }),
    ]
}

fn settle(commands: Vec<FlowCommand>, seen: &mut HashMap<u32, u32>) {
    for step in commands {
        let back = match step {
            FlowCommand::Reinject(back, _, _)
            | FlowCommand::PacketOut(back, ..)
            | FlowCommand::Dropped(back, _) => back,
            FlowCommand::Insert(_) | FlowCommand::Delete(_) | FlowCommand::SetTunnel(..) => continue,
        };
        if let Some(ticket) = back.ticket {
            *seen.entry(u32::from(ticket.slot)).or_insert(0) += 1;
        }
    }
}

proptest! {
    /// Whatever comes in whichever order: each packet with a ticket settles it once, and none is left over.
    #[test]
    fn every_ticket_comes_back_exactly_once(events in proptest::collection::vec(event(), 1..120)) {
        let mut engine = engine();
        let (mut now, mut tickets, mut seen) = (0u32, 0u32, HashMap::new());
        for event in events {
            match event {
                Event::Packet { input, to, ticket, cut } => {
                    let (port, mut bytes) = match input {
                        0 => (VPORT, frame(to)),
                        1 => (Port::Uplink(1), wire(&frame(to))),
                        _ => (Port::Uplink(1), arp_reply()),
                    };
                    bytes.truncate(bytes.len() - cut.min(bytes.len()));
                    let reason = if input == 2 { Reason::Control } else { Reason::Miss };
                    tickets += u32::from(ticket);
                    engine.upcall(punted(port, reason, if ticket { tickets } else { 0 }, bytes), now);
                }
                Event::Arp => engine.upcall(punted(Port::Uplink(1), Reason::Control, 0, arp_reply()), now),
                Event::Tick => {
                    now += 1000;
                    engine.tick(now);
                }
                Event::Links(up) => engine.links(up, now),
                Event::Plan { ways: true } => engine.plan(&plan(), now),
                Event::Plan { ways: false } => engine.plan(&Plan { ways: Vec::new(), ..plan() }, now),
            }
            settle(engine.take_commands(), &mut seen);
        }
        engine.plan(&Plan::default(), now);
        settle(engine.take_commands(), &mut seen);
        prop_assert_eq!(seen.len() as u32, tickets);
        prop_assert!(seen.values().all(|n| *n == 1));
    }
}
