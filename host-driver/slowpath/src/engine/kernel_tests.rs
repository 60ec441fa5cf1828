//! The engine on addresses of the kernel: it asks the kernel for next hops, and sends nothing on the wire.

use std::net::Ipv4Addr;

use culvert_flow::pending::Ticket;
use culvert_flow::{Actions, Classified, FlowHot, FlowRecord, Port};
use culvert_offload::{FlowCommand, Upcall, UpcallMeta};
use culvert_packet::craft::{self, Ends};
use culvert_packet::{Encap, Headers, MacAddr, Offload, Reason, VportId, arp};

use super::*;
use crate::policy::{DecisionRequest, ExpiredConnection};
use crate::underlay::{LocalPa, TunnelPath};

const OURS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const REMOTE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 20);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 254);
const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 0x77]);
const HOP: NextHopId = NextHopId { pa: 0, addr: REMOTE };

/// Sends everything into the tunnel.
struct Always;

impl Policy for Always {
    fn decide(&mut self, request: &DecisionRequest<'_>) -> Decision {
        let Classified { key, .. } = *request.packet;
        let hot = FlowHot {
            actions: Actions::PUSH_OUTER.bits(),
            tunnel: 7,
            out: Port::None.bits(),
            ..FlowHot::default()
        };
        let record = FlowRecord { key, hot, ..FlowRecord::default() };
        Decision::Forward(Box::new(culvert_policy::Forward { record, reverse: None, offload: Ok(()) }))
    }

    fn tcp_control(&mut self, _: u64, _: &Headers, _: u32) {}

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

fn tables() -> NicTables {
    let pa = LocalPa { addr: OURS.into(), mac: MacAddr([2, 0, 0, 0, 0, 1]), uplink: 0, vlan: None };
    let tunnel = TunnelPath {
        index: 7,
        uplink: 0,
        local: OURS.into(),
        remote: REMOTE.into(),
        // From the policy. The kernel's route is the valid one.
        next_hop: Some(GATEWAY.into()),
        encap: Encap::Vxlan,
        vlan: None,
        mtu: 1600,
    };
    NicTables { local_pas: vec![pa], tunnels: vec![tunnel], ..NicTables::default() }
}

fn engine() -> Engine<Always> {
    let mut engine = Engine::new(Always, 2, [true, true]).on_kernel_addresses();
    engine.replace_tables(&tables(), 0);
    engine
}

fn punted(input: Port, reason: Reason, frame: Vec<u8>) -> Upcall {
    let meta = UpcallMeta {
        reason,
        input,
        ticket: Some(Ticket { slot: 5, sequence: 1 }),
        copy: None,
        peer: 0,
        now: 0,
        offload: Offload::default(),
    };
    Upcall::parse(meta, frame)
}

fn packet() -> Upcall {
    let ends = Ends {
        src_mac: MacAddr([2, 0, 0, 0, 1, 1]),
        dst_mac: MacAddr([2, 0, 0, 0, 1, 2]),
        src: [10, 1, 1, 11].into(),
        dst: [10, 1, 1, 12].into(),
    };
    let mut frame = vec![0; 128];
    let len = craft::udp(&mut frame, &ends, 1000, 2000, b"payload").expect("fits");
    frame.truncate(len);
    punted(Port::Vport(VportId(3)), Reason::Miss, frame)
}

fn gateway_resolved() -> NeighbourEvent {
    NeighbourEvent::Resolved { remote: REMOTE.into(), via: GATEWAY.into(), mac: MAC }
}

#[test]
fn the_kernel_resolves_hosts_and_no_request_goes_on_the_wire() {
    let mut engine = engine();
    assert_eq!(engine.take_kernel_requests(), [HOP]);
    assert_eq!(engine.take_kernel_requests(), []);
    assert_eq!(engine.take_commands(), []);
}

#[test]
fn packets_wait_for_the_kernels_answer() {
    let mut engine = engine();
    engine.upcall(packet(), 1);
    assert_eq!(engine.take_commands(), []);
    engine.kernel_event(0, &gateway_resolved(), 2);
    let commands = engine.take_commands();
    let [FlowCommand::SetTunnel(7, tunnel), FlowCommand::Insert(_), FlowCommand::Reinject(..)] =
        &commands[..]
    else {
        panic!("{commands:?}")
    };
    assert_eq!(tunnel.header[..6], MAC.0);
    let other = MacAddr([2, 0, 0, 0, 0, 0x78]);
    engine.kernel_event(
        0,
        &NeighbourEvent::Resolved { remote: REMOTE.into(), via: REMOTE.into(), mac: other },
        3,
    );
    let commands = engine.take_commands();
    let [FlowCommand::SetTunnel(7, tunnel)] = &commands[..] else { panic!("{commands:?}") };
    assert_eq!(tunnel.header[..6], other.0);
}

#[test]
fn packets_to_an_unreachable_host_are_dropped_at_once_and_it_is_resolved_again() {
    for event in [
        NeighbourEvent::Unanswered { remote: REMOTE.into(), via: GATEWAY.into() },
        NeighbourEvent::NoRoute { remote: REMOTE.into() },
    ] {
        let mut engine = engine();
        engine.upcall(packet(), 1);
        engine.take_kernel_requests();
        engine.kernel_event(0, &event, 2);
        let commands = engine.take_commands();
        assert!(matches!(commands[..], [FlowCommand::Dropped(_, Reason::NextHopTimeout)]), "{commands:?}");
        engine.tick(10_000);
        assert_eq!(engine.take_kernel_requests(), [HOP]);
        engine.kernel_event(0, &gateway_resolved(), 10_001);
        let commands = engine.take_commands();
        assert!(matches!(commands[..], [FlowCommand::SetTunnel(7, _)]), "{commands:?}");
        engine.kernel_event(0, &event, 10_002);
        engine.upcall(packet(), 10_003);
        let commands = engine.take_commands();
        assert!(
            matches!(commands[..], [FlowCommand::Insert(_), FlowCommand::Reinject(..)]),
            "a MAC stays in use: {commands:?}"
        );
    }
}

#[test]
fn links_move_no_address_and_announce_none() {
    let mut engine = engine();
    engine.kernel_event(0, &gateway_resolved(), 1);
    engine.take_kernel_requests();
    engine.take_commands();
    engine.set_links([false, true], 2);
    assert_eq!(engine.addresses()[0].serving_uplink, 0);
    assert_eq!(engine.take_commands(), []);
    engine.set_links([true, true], 3);
    let commands = engine.take_commands();
    assert!(commands.iter().all(|command| matches!(command, FlowCommand::SetTunnel(7, _))), "{commands:?}");
    assert_eq!(engine.take_kernel_requests(), [HOP], "the neighbours may have changed");
}

#[test]
fn arp_requests_for_the_kernels_addresses_get_no_reply() {
    let mut engine = engine();
    let request = arp::Packet {
        operation: arp::Operation::REQUEST,
        sender_mac: MAC,
        sender: GATEWAY,
        target_mac: MacAddr::ZERO,
        target: OURS,
    };
    let mut frame = vec![0; 64];
    let len = craft::arp(&mut frame, &request).expect("fits");
    frame.truncate(len);
    engine.upcall(punted(Port::Uplink(0), Reason::Control, frame), 1);
    let commands = engine.take_commands();
    assert!(matches!(commands[..], [FlowCommand::Dropped(_, Reason::Control)]), "{commands:?}");
}
