//! The slow path's thread with the real policy, on a fake NIC that records its commands.

mod connection_store;
#[expect(dead_code, reason = "the tests of the VMQ bridge use the rest of it")]
mod fake;
mod looking;

use std::collections::BTreeSet;
use std::sync::Arc;

use culvert_flow::pending::Ticket;
use culvert_flow::tables::Vport;
use culvert_flow::{FlowRecord, HashSecret, Port};
use culvert_offload::{Event, FlowCommand, FlowTables as _, Generation, Upcall, UpcallMeta};
use culvert_packet::craft::{self, Ends};
use culvert_packet::{Encap, MacAddr, Offload, Prefix, Rdid, Reason, VportId, arp};
use culvert_policy::acl::AclSet;
use culvert_policy::snapshot::{self, Location, Network, Subnet, Target, TunnelSpec};
use culvert_policy::{Mapping, Snapshot};
use culvert_slowpath::{
    Engine, ForwardOutcome, HostPolicy, Limits, NextHopState, Policy, Settings, SlowPath,
};
use fake::FakeNic;

const RDID: Rdid = Rdid([7; 16]);
const VSID: u32 = 5001;
const GATEWAY: [u8; 4] = [192, 168, 1, 1];
const GATEWAY_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 0x77]);
const PA_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 0x10]);

fn mac(n: u8) -> MacAddr {
    MacAddr([2, 0, 0, 0, 1, n])
}

fn prefix(text: &str) -> Prefix {
    text.parse().expect("prefix")
}

/// Two local vports, and a VM on another host behind the gateway.
fn policy(generation: u32) -> Snapshot {
    let mut s = Snapshot::empty(MacAddr::ZERO, HashSecret([1; 9]));
    s.networks.insert(RDID, Network { encap: Encap::Vxlan, distributed_router: false });
    let subnet = Subnet {
        vsid: VSID,
        rdid: RDID,
        prefixes: vec![prefix("10.1.1.0/24")],
        gateways: vec![],
        group_out: None,
        group_in: None,
    };
    s.subnets.insert(VSID, subnet);
    for n in [11u8, 13] {
        let vport = snapshot::Vport {
            name: format!("vm{n}"),
            mac: mac(n),
            addresses: vec![[10, 1, 1, n].into()],
            vsid: VSID,
            rdid: RDID,
            vlan: None,
            target: if n == 13 { Target::Vmq(0) } else { Target::Vf(0) },
            up: true,
            acls_in: Arc::new(AclSet::default()),
            acls_out: Arc::new(AclSet::default()),
            generation,
            local_pa: 0,
            mtu: 1500,
            quota: None,
        };
        s.vports.insert(VportId(u16::from(n)), vport);
    }
    for n in [11u8, 12, 13] {
        let location = if n == 12 {
            Location::Remote { peer: 2, tunnels: [4, 4] }
        } else {
            Location::Local(VportId(u16::from(n)))
        };
        let ca = [10, 1, 1, n].into();
        let cell = snapshot::cell_of(RDID, ca);
        s.mappings.insert(Mapping { rdid: RDID, ca, mac: mac(n), vsid: VSID, location, generation, cell });
    }
    let peer = snapshot::Peer { pas: vec![[192, 168, 2, 20].into()], vsids: BTreeSet::from([VSID]) };
    s.peers.insert(2, peer);
    let tunnel = TunnelSpec {
        index: 4,
        encap: Encap::Vxlan,
        local_pa: [192, 168, 1, 10].into(),
        remote_pa: [192, 168, 2, 20].into(),
        uplink: 0,
        vlan: None,
        mtu: 1600,
    };
    s.tunnels.insert(4, tunnel);
    s.local_pas.push(snapshot::LocalPa {
        addr: [192, 168, 1, 10].into(),
        mac: PA_MAC,
        prefix: prefix("192.168.1.0/24"),
        gateway: Some(GATEWAY.into()),
        uplink: 0,
        vlan: None,
        mtu: 1600,
    });
    s
}

fn udp(from: u8, to: u8) -> Vec<u8> {
    let ends = Ends {
        src_mac: mac(from),
        dst_mac: mac(to),
        src: [10, 1, 1, from].into(),
        dst: [10, 1, 1, to].into(),
    };
    let mut frame = [0; 128];
    let len = craft::udp(&mut frame, &ends, 1000, 2000, b"payload").expect("fits");
    frame[..len].to_vec()
}

fn arp_reply() -> Vec<u8> {
    let packet = arp::Packet {
        operation: arp::Operation::REPLY,
        sender_mac: GATEWAY_MAC,
        sender: GATEWAY.into(),
        target_mac: PA_MAC,
        target: [192, 168, 1, 10].into(),
    };
    let mut frame = [0; 64];
    let len = craft::arp(&mut frame, &packet).expect("fits");
    frame[..len].to_vec()
}

/// A ticket with this slot; 0: no ticket.
fn ticket(slot: u16) -> Option<Ticket> {
    (slot != 0).then_some(Ticket { slot, sequence: 1 })
}

fn meta(input: Port, reason: Reason, slot: u16) -> UpcallMeta {
    let offload = Offload::default();
    UpcallMeta { reason, input, ticket: ticket(slot), copy: None, peer: 0, now: 0, offload }
}

fn vport(n: u8) -> Port {
    Port::Vport(VportId(u16::from(n)))
}

fn reinjected(nic: &FakeNic, slot: u16) -> usize {
    nic.wait("the packet is reinjected", |s| {
        let wanted = ticket(slot);
        let is_it = |c: &FlowCommand| matches!(c, FlowCommand::Reinject(meta, _, _) if meta.ticket == wanted);
        s.commands.iter().position(is_it)
    })
}

/// A NIC with the policy applied and the gateway known.
fn started(records: Vec<FlowRecord>) -> (FakeNic, SlowPath) {
    let nic = FakeNic::new(records);
    let slow_path = SlowPath::start(Arc::new(nic.clone()), Settings::default()).expect("started");
    slow_path.handle().apply(Arc::new(policy(1))).expect("applied");
    nic.punt(meta(Port::Uplink(0), Reason::Control, 0), &arp_reply());
    nic.wait("the tunnel", |s| s.tunnels.get(&4).filter(|t| t.encap != 0).copied());
    (nic, slow_path)
}

#[test]
fn a_policy_is_written_before_its_generations_and_fenced() {
    let (nic, slow_path) = started(vec![]);
    let state = nic.state();
    let at = |name| state.calls.iter().position(|c| *c == name).unwrap_or_else(|| panic!("{name}"));
    for earlier in ["local", "peers", "groups", "vports", "vf", "execute"] {
        assert!(at(earlier) < at("generations"), "{earlier}: {:?}", state.calls);
    }
    assert!(at("generations") < at("fence") && at("fence") < at("start"));
    assert_eq!(state.vports[11].flags, Vport::PRESENT | Vport::UP);
    assert_eq!((state.vports[11].target, state.vports[13].target), (Vport::VF, Vport::VMQ));
    assert_eq!(state.vports[11].quota, 256);
    assert_eq!(state.generations.get(&Generation::Vport(VportId(11))), Some(&1));
    assert_eq!((state.locals[0].addr[..4].to_vec(), state.peers[0].index), (vec![192, 168, 1, 10], 2));
    drop(state);
    let status = slow_path.handle().status().expect("alive");
    assert_eq!(status.next_hops[0].1, NextHopState::Resolved(GATEWAY_MAC));
}

#[test]
fn a_first_packet_is_reinjected_behind_the_records_of_both_directions() {
    let (nic, slow_path) = started(vec![]);
    nic.punt(meta(vport(11), Reason::Miss, 5), &udp(11, 12));
    let at = reinjected(&nic, 5);
    let FlowCommand::Insert(records) = nic.state().commands[at - 1].clone() else { panic!("no records") };
    assert_eq!((records.len(), records[0].hot.tunnel), (2, 4));
    assert_eq!(slow_path.handle().status().expect("alive").connections, 1);
    let flows = slow_path.handle().flows(1, |r| r.key.source == 11).expect("read");
    assert_eq!(flows[0].key, records[0].key);
}

#[test]
fn restarted_firmware_gets_its_tables_back() {
    let (nic, _slow_path) = started(vec![]);
    nic.punt(meta(vport(11), Reason::Miss, 5), &udp(11, 12));
    reinjected(&nic, 5);
    let before = {
        let mut state = nic.state();
        state.tunnels.clear();
        state.vports.fill(Vport::default());
        (std::mem::take(&mut state.records), state.starts)
    };
    nic.event(Event::FirmwareDied { epoch: 1, panic: String::new(), log: String::new() });
    nic.punt(meta(vport(11), Reason::Miss, 6), &udp(11, 13));
    nic.event(Event::FirmwareReady { epoch: 2 });
    nic.wait("the NIC is started again", |s| (s.starts > before.1).then_some(()));
    let state = nic.state();
    assert!(before.0.iter().all(|r| state.records.contains(r)));
    assert!(state.tunnels.get(&4).is_some_and(|t| t.encap != 0));
    assert_ne!(state.vports[11].flags, 0);
}

#[test]
fn a_policy_that_came_while_the_nic_was_away_is_in_force_once_it_is_back() {
    let (nic, slow_path) = started(vec![]);
    nic.punt(meta(vport(11), Reason::Miss, 5), &udp(11, 12));
    reinjected(&nic, 5);
    nic.state().dead = true;
    nic.event(Event::Lost("pulled out".into()));
    let mut changed = policy(2);
    changed.vports.remove(&VportId(13));
    assert!(slow_path.handle().apply(Arc::new(changed)).is_err(), "it says that it is not in force yet");
    // Another NIC, which has nothing.
    let before = {
        let mut state = nic.state();
        state.tunnels.clear();
        state.generations.clear();
        state.vports.fill(Vport::default());
        state.dead = false;
        (std::mem::take(&mut state.records), state.starts)
    };
    nic.event(Event::FirmwareReady { epoch: 1 });
    nic.wait("the NIC is started", |s| (s.starts > before.1).then_some(()));
    let state = nic.state();
    assert_eq!(state.generations.get(&Generation::Vport(VportId(11))), Some(&2));
    assert_eq!((state.vports[11].flags & Vport::PRESENT, state.vports[13].flags), (Vport::PRESENT, 0));
    assert!(
        !before.0.is_empty() && before.0.iter().all(|r| state.records.contains(r)),
        "connections live on"
    );
    assert!(state.tunnels.get(&4).is_some_and(|t| t.encap != 0));
}

#[test]
fn a_new_daemon_adopts_the_flows_of_a_running_nic() {
    let (nic, slow_path) = started(vec![]);
    nic.punt(meta(vport(11), Reason::Miss, 5), &udp(11, 12));
    reinjected(&nic, 5);
    let records = nic.state().records.clone();
    let mapping = Generation::Mapping(records[0].hot.map_cell);
    drop(slow_path);
    let (nic, slow_path) = started(records.clone());
    assert_eq!(slow_path.handle().status().expect("alive").connections, 1);
    assert_eq!(nic.state().records, records);
    // A mapping that was removed while no daemon ran: its flows become stale.
    let nic = FakeNic::new(records);
    let other = SlowPath::start(Arc::new(nic.clone()), Settings::default()).expect("started");
    let mut without = policy(1);
    without.mappings = culvert_policy::Mappings::new();
    other.handle().apply(Arc::new(without)).expect("applied");
    assert_eq!(nic.state().generations.get(&mapping), Some(&2));
}

#[test]
fn flows_of_a_removed_vport_are_deleted() {
    let (nic, slow_path) = started(vec![]);
    nic.punt(meta(vport(11), Reason::Miss, 5), &udp(11, 13));
    reinjected(&nic, 5);
    let mut without = policy(2);
    without.vports.remove(&VportId(11));
    slow_path.handle().apply(Arc::new(without)).expect("applied");
    assert_eq!(nic.state().records, vec![]);
    assert_eq!(nic.state().vports[11].flags, 0);
    assert_eq!(slow_path.handle().status().expect("alive").connections, 0);
}

#[test]
fn a_trace_shows_the_layers_and_frames_and_changes_nothing() {
    let (nic, slow_path) = started(vec![]);
    let sent = nic.state().commands.len();
    let traced = slow_path.handle().trace(vport(11), udp(11, 12)).expect("answered");
    assert!(traced.layers.len() >= 2, "{traced:?}");
    let ForwardOutcome::Send(frames) = &traced.outcome else { panic!("{traced:?}") };
    assert_eq!(frames[0].0, Port::Uplink(0));
    let spoofed = slow_path.handle().trace(vport(11), udp(13, 12)).expect("answered");
    assert_eq!(spoofed.outcome, ForwardOutcome::Drop(Reason::SpoofedMac));
    assert_eq!(slow_path.handle().status().expect("alive").connections, 0);
    assert_eq!(nic.state().commands.len(), sent);
}

#[test]
fn a_connection_ends_only_if_the_nic_counted_no_packets() {
    let nic = FakeNic::new(vec![]);
    let mut engine = Engine::new(HostPolicy::new(&Limits::default()), 2, [true, true]);
    engine.policy().set(&Arc::new(policy(1)));
    let first = Upcall::parse(meta(vport(11), Reason::Miss, 5), udp(11, 13));
    engine.upcall(first, 0);
    let execute = |engine: &mut Engine<HostPolicy>| {
        let commands = engine.take_commands();
        nic.execute(commands).expect("taken");
    };
    execute(&mut engine);
    assert_eq!(nic.state().records.len(), 2);
    let timeout = Limits::default().timeouts.udp;
    nic.state().records[1].hot.packets = 7;
    engine.age(&nic, timeout).expect("answered");
    execute(&mut engine);
    assert_eq!((engine.policy().connections(), nic.state().records.len()), (1, 2));
    engine.age(&nic, 2 * timeout - 1).expect("answered");
    assert_eq!(engine.policy().connections(), 1);
    engine.age(&nic, 2 * timeout).expect("answered");
    execute(&mut engine);
    assert_eq!((engine.policy().connections(), nic.state().records.len()), (0, 0));
}

#[test]
fn all_of_many_expired_connections_are_removed() {
    let nic = FakeNic::new(vec![]);
    // Without copies of the records: this NIC does not lose its tables. All records are deleted nevertheless.
    let policy_of_host = HostPolicy::new(&Limits::default()).without_records();
    let mut engine = Engine::new(policy_of_host, 2, [true, true]);
    engine.policy().set(&Arc::new(policy(1)));
    for port in 0..1500u16 {
        let mut frame = udp(11, 13);
        frame[34..36].copy_from_slice(&port.to_be_bytes());
        let first = Upcall::parse(meta(vport(11), Reason::Miss, 5), frame);
        engine.upcall(first, 0);
    }
    nic.execute(engine.take_commands()).expect("taken");
    assert_eq!((engine.policy().connections(), nic.state().records.len()), (1500, 3000));
    assert_eq!(engine.policy().records(), []);
    let timeout = Limits::default().timeouts.udp;
    assert!(!engine.age(&nic, timeout - 1).expect("answered"));
    assert!(engine.age(&nic, timeout).expect("answered"), "there are more");
    assert!(!engine.age(&nic, timeout).expect("answered"));
    nic.execute(engine.take_commands()).expect("taken");
    assert_eq!((engine.policy().connections(), nic.state().records.len()), (0, 0));
}

#[test]
fn stopping_ends_the_thread_and_handles_say_so() {
    let (_nic, slow_path) = started(vec![]);
    let handle = slow_path.handle();
    drop(slow_path);
    let error = handle.status().expect_err("it has ended");
    assert!(error.to_string().contains("restart culvertd"), "{error}");
}
