//! Shares of what vports have in common: whatever one of them floods, the other's packets of that kind are untouched, and what
//! is dropped is counted for the flooder. A switch without threads, whose slow path takes nothing until the test does.

use std::collections::BTreeMap;

use culvert_flow::tables::{Group, Member, Peer, Vport};
use culvert_flow::{Actions, FlowHot, FlowRecord, HashSecret, Port, key};
use culvert_offload::{DeviceInfo as _, FdbEntry, FlowTables as _, PacketIo as _, TableWrite, UpcallQueue};
use culvert_packet::craft::{self, Ends};
use culvert_packet::{Encap, MacAddr, OuterSpec, Reason, VportId, parse, parse_outer, tcp};
use culvert_switch::{MemPort, Switch, SwitchSettings};

const FLOODER: u16 = 0;
const NEIGHBOUR: u16 = 1;
/// Packets of a flood, and of the neighbour after it.
const FLOOD: u16 = 20_000;
const FEW: u16 = 100;
const LOCAL: [u8; 4] = [192, 168, 1, 10];
const REMOTE: [u8; 4] = [192, 168, 2, 20];

struct Bed {
    switch: Switch,
    guests: Vec<MemPort>,
    wire: MemPort,
    upcalls: Box<dyn UpcallQueue>,
    now: u32,
}

fn mac(n: u16) -> MacAddr {
    MacAddr([2, 0, 0, 0, 0, n as u8])
}

fn vsid(n: u16) -> u32 {
    5001 + u32::from(n)
}

/// A segment of a vport's flow number `flow`, from its guest.
fn segment(vport: u16, flow: u16, flags: tcp::Flags) -> Vec<u8> {
    let ends = Ends {
        src_mac: mac(vport),
        dst_mac: mac(vport + 10),
        src: [10, 1, 1, vport as u8].into(),
        dst: [10, 1, 2, vport as u8].into(),
    };
    let header = tcp::Header { src_port: 1024 + flow, dst_port: 80, flags, ..tcp::Header::default() };
    let mut frame = [0; 128];
    let len = craft::tcp(&mut frame, &ends, &header, &[]).unwrap();
    frame[..len].to_vec()
}

/// The same from the wire, for a vport.
fn from_wire(vport: u16, flow: u16) -> Vec<u8> {
    let mut inner = segment(vport, flow, tcp::Flags::SYN);
    inner[..6].copy_from_slice(&mac(vport).0);
    inner[6..12].copy_from_slice(&mac(99).0);
    let spec = OuterSpec {
        encap: Encap::Vxlan,
        src_mac: mac(98),
        dst_mac: mac(97),
        vlan: None,
        src: REMOTE.into(),
        dst: LOCAL.into(),
    };
    let mut frame = vec![0; inner.len() + 100];
    let len =
        craft::encapsulated(&mut frame, &spec.template().unwrap(), vsid(vport), 0x1234, &inner).unwrap();
    frame.truncate(len);
    frame
}

impl Bed {
    fn new(workers: usize, buffers: usize) -> Self {
        let settings = SwitchSettings {
            buffers,
            large_buffers: 8,
            workers: vec![None; workers],
            ..SwitchSettings::new(1 << 16, HashSecret([7; 9]))
        };
        let switch = Switch::inline(&settings).unwrap();
        let guests: Vec<MemPort> = (0..4).map(|_| MemPort::new().unwrap()).collect();
        for (n, guest) in guests.iter().enumerate() {
            switch.attach(Port::Vport(VportId(n as u16)), guest.opener()).unwrap();
        }
        let wire = MemPort::new().unwrap();
        switch.attach(Port::Uplink(0), wire.opener()).unwrap();
        let up = Vport { flags: Vport::PRESENT | Vport::UP, quota: u32::MAX, ..Vport::default() };
        let vports: Vec<_> = (0..4).map(|n| (n, Vport { number: n, vsid: vsid(n), ..up })).collect();
        switch.write(TableWrite::Vports(&vports)).unwrap();
        let fdb: Vec<_> =
            (0..4).map(|n| FdbEntry { vport: VportId(n), vsid: vsid(n), mac: mac(n) }).collect();
        switch.write(TableWrite::Fdb(&fdb)).unwrap();
        let peer = |a: [u8; 4], index| {
            let mut addr = [0; 16];
            addr[..4].copy_from_slice(&a);
            Peer { addr, family: 4, index, reserved: 0 }
        };
        switch.write(TableWrite::LocalAddresses(&[peer(LOCAL, 0)])).unwrap();
        switch.write(TableWrite::Peers(&[peer(REMOTE, 1)])).unwrap();
        let upcalls = switch.upcalls().unwrap();
        Bed { switch, guests, wire, upcalls, now: 0 }
    }

    /// Polls until nothing comes any more.
    fn settle(&mut self) {
        let mut quiet = 0;
        for _ in 0..100_000 {
            self.now += 1;
            quiet = if self.switch.poll(self.now) { 0 } else { quiet + 1 };
            if quiet > 4 {
                return;
            }
        }
        panic!("it never settles");
    }

    /// Takes all upcalls. How many there were, by the vport that they are from or for.
    fn take_upcalls(&mut self) -> BTreeMap<u16, u64> {
        let mut all = BTreeMap::new();
        while let Some(upcall) = self.upcalls.pop().unwrap() {
            let vport = match upcall.meta.input {
                Port::Vport(id) => id.0,
                _ => {
                    let outer = parse_outer(&upcall.frame).unwrap();
                    outer.map_or(u16::MAX, |outer| (outer.vsid - vsid(0)) as u16)
                }
            };
            *all.entry(vport).or_default() += 1;
        }
        all
    }

    fn drops_of(&self, vport: u16) -> u64 {
        self.switch.vports().unwrap()[usize::from(vport)].drops
    }

    fn drops(&self) -> BTreeMap<Reason, u64> {
        self.switch.drops().unwrap().into_iter().collect()
    }

    /// Records of a vport's flows, as `hot` says.
    fn insert(&self, vport: u16, flows: u16, hot: FlowHot) {
        let record = |flow| {
            let frame = segment(vport, flow, tcp::Flags::SYN);
            let key = key::outbound(VportId(vport), &frame, &parse(&frame).unwrap());
            FlowRecord { key, hot, ..FlowRecord::default() }
        };
        self.switch.insert(&(0..flows).map(record).collect::<Vec<_>>()).unwrap();
    }
}

#[test]
fn upcalls_of_a_guest_wait_in_its_ring_and_leave_the_queue_to_others() {
    let mut bed = Bed::new(1, 1024);
    for flow in 0..FLOOD {
        bed.guests[0].push(segment(FLOODER, flow, tcp::Flags::SYN));
    }
    bed.settle();
    for flow in 0..FEW {
        bed.guests[1].push(segment(NEIGHBOUR, flow, tcp::Flags::SYN));
    }
    bed.settle();
    let upcalls = bed.take_upcalls();
    assert_eq!(upcalls[&NEIGHBOUR], u64::from(FEW));
    assert!((256..256 + 64).contains(&upcalls[&FLOODER]), "{upcalls:?}");
    assert_eq!(bed.drops(), BTreeMap::new(), "guests wait");
}

#[test]
fn upcalls_from_the_wire_have_a_share_for_each_vport_that_they_are_for() {
    let mut bed = Bed::new(1, 1024);
    for flow in 0..FLOOD {
        bed.wire.push(from_wire(FLOODER, flow));
    }
    bed.settle();
    for flow in 0..FEW {
        bed.wire.push(from_wire(NEIGHBOUR, flow));
    }
    bed.settle();
    let upcalls = bed.take_upcalls();
    assert_eq!(upcalls[&NEIGHBOUR], u64::from(FEW), "{upcalls:?}");
    let dropped = u64::from(FLOOD) - upcalls[&FLOODER];
    assert!(dropped > 0);
    assert_eq!(bed.drops(), [(Reason::UpcallFull, dropped)].into());
    assert_eq!((bed.drops_of(FLOODER), bed.drops_of(NEIGHBOUR)), (dropped, 0));
}

#[test]
fn a_flood_from_the_wire_leaves_room_for_guests_and_for_control_packets() {
    let mut bed = Bed::new(1, 1024);
    for flow in 0..FLOOD {
        bed.wire.push(from_wire(FLOODER, flow));
    }
    bed.settle();
    let mut control = vec![0; 60];
    control[..6].fill(0xff);
    control[12..14].copy_from_slice(&[0x08, 0x06]);
    bed.wire.push(control);
    bed.guests[0].push(segment(FLOODER, 0, tcp::Flags::SYN));
    bed.settle();
    let mut inputs = BTreeMap::new();
    while let Some(upcall) = bed.upcalls.pop().unwrap() {
        let kind = (matches!(upcall.meta.input, Port::Vport(_)), upcall.meta.reason == Reason::Control);
        *inputs.entry(kind).or_insert(0) += 1;
    }
    assert_eq!((inputs[&(true, false)], inputs[&(false, true)]), (1, 1));
}

#[test]
fn copies_of_control_segments_have_a_share_for_each_vport() {
    let mut bed = Bed::new(1, 1024);
    for (from, to) in [(FLOODER, 2), (NEIGHBOUR, 3)] {
        let out = Port::Vport(VportId(to)).bits();
        let actions = Actions::COPY_TCP_CONTROL.bits();
        bed.insert(from, FEW, FlowHot { actions, out, ..FlowHot::default() });
    }
    for n in 0..FLOOD {
        bed.guests[0].push(segment(FLOODER, n % FEW, tcp::Flags::FIN));
    }
    bed.settle();
    for flow in 0..FEW {
        bed.guests[1].push(segment(NEIGHBOUR, flow, tcp::Flags::FIN));
    }
    bed.settle();
    let copies = bed.take_upcalls();
    assert_eq!(copies[&NEIGHBOUR], u64::from(FEW), "{copies:?}");
    // The segments themselves are forwarded.
    let got = |guest: &MemPort| std::iter::from_fn(|| guest.pop()).count();
    assert_eq!((got(&bed.guests[2]), got(&bed.guests[3])), (FLOOD.into(), FEW.into()));
    let missing = u64::from(FLOOD) - copies[&FLOODER];
    assert!(missing > 0);
    assert_eq!(bed.drops(), [(Reason::UpcallFull, missing)].into());
    assert_eq!((bed.drops_of(FLOODER), bed.drops_of(NEIGHBOUR)), (missing, 0));
}

#[test]
fn replicated_copies_do_not_use_up_the_buffers() {
    // Each burst of the flooder makes sixty times as many copies, which are more than there are buffers.
    let mut bed = Bed::new(1, 512);
    let mut group = Group { len: 60, ..Group::default() };
    group.members[..60].fill(Member::Port(Port::Vport(VportId(2))).bits());
    bed.switch.write(TableWrite::Groups(&[(1, group)])).unwrap();
    let actions = Actions::REPLICATE.bits();
    bed.insert(FLOODER, 1, FlowHot { actions, tunnel: 1, ..FlowHot::default() });
    bed.insert(NEIGHBOUR, 1, FlowHot { out: Port::Vport(VportId(3)).bits(), ..FlowHot::default() });
    for _ in 0..320 {
        bed.guests[0].push(segment(FLOODER, 0, tcp::Flags::SYN));
        bed.guests[1].push(segment(NEIGHBOUR, 0, tcp::Flags::SYN));
    }
    bed.settle();
    let got = |guest: &MemPort| std::iter::from_fn(|| guest.pop()).count();
    assert_eq!(bed.drops(), BTreeMap::new());
    assert_eq!((got(&bed.guests[2]), got(&bed.guests[3])), (320 * 60, 320));
    let (free, all) = bed.switch.free_buffers().unwrap();
    assert_eq!(free, all);
}
