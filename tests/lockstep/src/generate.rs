//! Generates traces: a small configuration, valid and damaged packets, and a host that answers upcalls.

use culvert_abi::command::Op;
use culvert_abi::soc::BoardPort;
use culvert_flow::record::{Actions, FlowHot, FlowRecord};
use culvert_flow::tables::{Group, Member, Peer, Tunnel, Vport};
use culvert_flow::{FlowCold, HashSecret, Port, key};
use culvert_packet::encap::MAX_OUTER;
use culvert_packet::{Encap, MacAddr, Reason, VportId, parse, parse_outer};

use crate::core::Core;
use crate::frames::{Outer, arp, echo, encapsulate, ethernet, ipv4, ipv6, tag, tcp, udp};
use crate::trace::{Engine, Event, Injected, Input, Output, What};

const VSID: u32 = 5001;
const LOCAL_PA: [u8; 4] = [192, 168, 1, 10];
const PEER_PA: [u8; 4] = [192, 168, 2, 20];

fn v4(a: [u8; 4]) -> [u8; 16] {
    let mut out = [0; 16];
    out[..4].copy_from_slice(&a);
    out
}

fn mac(n: u8) -> [u8; 6] {
    [0, 0x1d, 0xd8, 7, 0, n]
}

/// A tunnel's outer headers, written from the RFCs.
fn tunnel(encap: Encap, uplink: u8, max_inner: u16) -> Tunnel {
    let empty = Outer { addresses: (LOCAL_PA, PEER_PA), vsid: 0, nvgre: encap == Encap::Nvgre, ecn: 0 };
    let mut bytes = encapsulate(&empty, &[]);
    // Fields that depend on the packet are zero in a template: length, id, checksum; ports and lengths; key.
    bytes[16..20].fill(0);
    bytes[24..26].fill(0);
    match encap {
        Encap::Vxlan => {
            bytes[34..36].fill(0);
            bytes[38..42].fill(0);
        }
        Encap::Nvgre => bytes[38..42].fill(0),
    }
    let sum: u32 = bytes[14..34].chunks(2).map(|c| u32::from(c[0]) << 8 | u32::from(c[1])).sum();
    let mut header = [0; MAX_OUTER];
    header[..bytes.len()].copy_from_slice(&bytes);
    Tunnel {
        encap: encap as u8,
        uplink,
        header_len: bytes.len() as u8,
        ip_offset: 14,
        max_inner,
        ip_sum: ((sum & 0xffff) + (sum >> 16)) as u16,
        header,
        ..Tunnel::default()
    }
}

fn group(members: &[Member]) -> Group {
    let mut group = Group { len: members.len() as u16, ..Group::default() };
    for (slot, member) in group.members.iter_mut().zip(members) {
        *slot = member.bits();
    }
    group
}

/// Quota of flow records of a vport, small enough to be reached.
const QUOTA: u32 = 12;

fn vport(target: u16, number: u16, up: bool) -> Vport {
    let flags = Vport::PRESENT | if up { Vport::UP } else { 0 };
    Vport { flags, target, number, vsid: VSID, generation: 1, quota: QUOTA, ..Vport::default() }
}

/// Configuration at the start of every trace: vports 0 to 2 on VFs, 3 on a VMQ, 4 down; a peer with two addresses; tunnels and groups.
fn configuration() -> Vec<What> {
    let peer = |addr, index| Peer { addr: v4(addr), family: 4, index, reserved: 0 };
    let port = |n| Member::Port(Port::Vport(VportId(n)));
    let secret = HashSecret(std::array::from_fn(|i| (i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    vec![
        What::Configure { secret, router: MacAddr([0, 0x1d, 0xd8, 0xff, 0, 1]) },
        What::Local(vec![peer(LOCAL_PA, 0), peer([192, 168, 1, 11], 0)]),
        What::Peers(vec![peer(PEER_PA, 1), peer([192, 168, 2, 21], 1)]),
        What::Vport(0, Box::new(vport(Vport::VF, 0, true))),
        What::Vport(1, Box::new(vport(Vport::VF, 1, true))),
        What::Vport(2, Box::new(vport(Vport::VF, 2, true))),
        What::Vport(3, Box::new(vport(Vport::VMQ, 0, true))),
        What::Vport(4, Box::new(vport(Vport::VF, 4, false))),
        What::Tunnel(0, Box::new(tunnel(Encap::Vxlan, 0, 1514))),
        What::Tunnel(1, Box::new(tunnel(Encap::Nvgre, 1, 1514))),
        What::Tunnel(3, Box::new(tunnel(Encap::Vxlan, 0, 100))),
        What::Group(0, Box::new(group(&[Member::Tunnel(0), port(1), Member::Tunnel(1), port(0), port(3)]))),
        What::Group(1, Box::new(group(&[port(0), Member::Tunnel(2), port(4)]))),
        What::Group(2, Box::new(group(&[]))),
    ]
}

/// Frame number `n` between two hosts.
fn frame(n: u8, from: u8, to: u8) -> Vec<u8> {
    let (src, dst) = ([10, 1, 1, from], [10, 1, 1, to]);
    let (src_mac, dst_mac) = (mac(from), mac(to));
    let flags = [2, 0x12, 0x10, 0x11, 4][usize::from(n) % 5];
    let ip = |protocol, ttl, tos, fragment, l4: &[u8]| {
        ethernet(dst_mac, src_mac, 0x0800, &ipv4(src, dst, protocol, ttl, tos, fragment, l4))
    };
    let payload = vec![n; usize::from(n) * 3];
    match n % 14 {
        0 | 1 => ip(17, 64, 0, 0, &udp(&src, &dst, (1000, 53), &payload)),
        2 | 3 => ip(6, 64, 0, 0x4000, &tcp(&src, &dst, (40_000, 443), flags, &payload)),
        4 => ip(1, 64, 0, 0, &echo(8, 7, &payload)),
        5 => ip(17, 1, 0, 0, &udp(&src, &dst, (1000, 54), &payload)),
        6 => ip(17, 64, 2, 0, &udp(&src, &dst, (1001, 53), &payload)),
        7 => ip(17, 64, 0, 0x2000, &udp(&src, &dst, (1000, 53), &payload)),
        8 => ip(17, 64, 0, 0x0010, &payload),
        9 => tag(&ip(17, 64, 0, 0, &udp(&src, &dst, (1000, 53), &payload)), 0x6000 | 7),
        10 => arp(src_mac, src, dst),
        11 => {
            let (s, d) = (std::array::from_fn(|i| i as u8 ^ from), std::array::from_fn(|i| i as u8 ^ to));
            ethernet(dst_mac, src_mac, 0x86dd, &ipv6(s, d, 17, 64, &udp(&s, &d, (1, 2), &payload)))
        }
        12 => ip(17, 64, 0, 0, &udp(&src, &dst, (2000, 2000), &vec![n; 1300])),
        _ => ethernet([0xff; 6], src_mac, 0x0800, &ipv4(src, [10, 1, 1, 255], 17, 64, 0, 0, &payload)),
    }
}

/// The host's decision for a flow: `choice` selects the actions.
fn decide(choice: u8, record: &mut FlowRecord, generations: &Generations) {
    let outbound = record.key.direction == 1;
    let a = |actions: Actions, tunnel, out: Port| FlowHot {
        actions: actions.bits(),
        tunnel,
        out: out.bits(),
        vsid: VSID,
        entropy: 0xc000 | u16::from(choice),
        dst_mac: mac(0x77),
        vlan: 9,
        nat_addr: [10, 9, 9, choice],
        nat_port: 0x1234,
        ..FlowHot::default()
    };
    let local = Port::Vport(VportId(u16::from(choice) % 5));
    let out = Port::None;
    let copy = Actions::COPY_TCP_CONTROL;
    record.hot = if outbound {
        match choice % 12 {
            0 | 1 => a(Actions::PUSH_OUTER | copy, u16::from(choice % 2), out),
            2 => a(Actions::PUSH_OUTER | Actions::ROUTE | Actions::SET_DST_MAC, 0, out),
            3 => a(copy, 0, local),
            4 => a(Actions::ROUTE | Actions::SET_DST_MAC | Actions::CAPTURE, 0, local),
            5 => a(Actions::REPLICATE, u16::from(choice / 12 % 4), out),
            6 => FlowHot::drop(Reason::AclDeny),
            7 => a(Actions::PUSH_OUTER | Actions::PUSH_VLAN, 0, out),
            8 => a(Actions::PUSH_OUTER | Actions::POP_VLAN, 1, out),
            9 => a(Actions::PUSH_OUTER | Actions::SET_SRC_ADDR | Actions::SET_SRC_PORT, 0, out),
            10 => a(Actions::PUSH_OUTER, 2 + u16::from(choice / 12 % 2), out),
            _ => a(Actions::SET_DST_ADDR | Actions::SET_DST_PORT | Actions::PUSH_OUTER, 1, out),
        }
    } else {
        match choice % 4 {
            0 | 1 => a(Actions::POP_OUTER | copy, 0, local),
            2 => a(Actions::POP_OUTER | Actions::REPLICATE, 1, out),
            _ => a(Actions::POP_OUTER | Actions::SET_DST_ADDR | Actions::PUSH_VLAN, 0, local),
        }
    };
    let vport_generation = |p: Port| match p {
        Port::Vport(VportId(n)) => generations.vports[usize::from(n)],
        _ => 0,
    };
    record.hot.gen_src = vport_generation(Port::from_bits(record.key.source));
    record.hot.gen_dst = vport_generation(record.hot.out());
    record.hot.map_cell = u16::from(choice % 3);
    record.hot.gen_map = generations.cells[usize::from(choice % 3)];
    record.cold = FlowCold { connection: u64::from(choice) << 32 | 1, ..FlowCold::default() };
    record.cold.nat_addr6 = [choice; 16];
}

struct Generations {
    vports: [u32; 5],
    cells: [u32; 3],
}

/// Generates a trace from random bytes, three for each step.
pub fn trace(core: &mut Core<'_>, steps: &[[u8; 3]]) -> Vec<Event> {
    trace_with_quota(core, steps, QUOTA)
}

/// As [`trace`], with another quota for each vport.
pub fn trace_with_quota(core: &mut Core<'_>, steps: &[[u8; 3]], quota: u32) -> Vec<Event> {
    let mut builder = TraceBuilder {
        core,
        events: Vec::new(),
        now: u32::MAX - 5000,
        upcalls: Vec::new(),
        installed: Vec::new(),
        generations: Generations { vports: [1; 5], cells: [0; 3] },
    };
    for what in configuration() {
        builder.event(match what {
            What::Vport(n, vport) => What::Vport(n, Box::new(Vport { quota, ..*vport })),
            other => other,
        });
    }
    for step in steps {
        builder.step(*step);
    }
    builder.events
}

struct TraceBuilder<'c, 'm> {
    core: &'c mut Core<'m>,
    events: Vec<Event>,
    now: u32,
    upcalls: Vec<(Port, Output)>,
    installed: Vec<FlowRecord>,
    generations: Generations,
}

impl TraceBuilder<'_, '_> {
    fn event(&mut self, what: What) {
        let input = match &what {
            What::Frame(Input { port: BoardPort::Vf(n), .. }) => Port::Vport(VportId(u16::from(*n))),
            What::Frame(Input { port: BoardPort::Uplink(n), .. }) => Port::Uplink(*n),
            What::InjectLookup(Injected { port, .. }) => *port,
            _ => Port::None,
        };
        let event = Event { now: self.now, what };
        let outputs = self.core.run(&event).expect("the core always answers");
        self.events.push(event);
        self.upcalls.extend(outputs.into_iter().filter(|o| o.op == Op::Upcall).map(|o| (input, o)));
    }

    fn step(&mut self, [op, a, b]: [u8; 3]) {
        match op % 16 {
            0..=4 => {
                let bytes = damage(frame(a, b % 3, 20 + b % 4), op, b);
                let port = BoardPort::Vf(if a == 255 { 9 } else { b % 3 });
                self.event(What::Frame(Input { port, checksum: 0, bytes }));
            }
            5..=7 if a >= 248 => {
                let target = [LOCAL_PA, [192, 168, 1, 11], [192, 168, 1, 99]][usize::from(b % 3)];
                let request = arp(mac(9), if b & 4 == 0 { PEER_PA } else { LOCAL_PA }, target);
                let request = if b & 8 == 0 { request } else { tag(&request, 7) };
                let bytes = damage(request, op, b);
                let port = BoardPort::Uplink(b >> 4 & 1);
                self.event(What::Frame(Input { port, checksum: 0, bytes }));
            }
            5..=7 => {
                let inner = damage(frame(a, 20 + b % 4, b % 3), op, b);
                let nvgre = b & 0x80 != 0;
                let source = match op >> 4 {
                    5 => [192, 168, 9, 9],
                    _ if b & 0x40 != 0 => [192, 168, 2, 21],
                    _ => PEER_PA,
                };
                let addresses = (source, if op >> 4 == 6 { [192, 168, 1, 99] } else { LOCAL_PA });
                let vsid = if b & 0x20 != 0 { VSID + 1 } else { VSID };
                let outer = Outer { addresses, vsid, nvgre, ecn: b >> 3 & 3 };
                let bytes = hostile(encapsulate(&outer, &inner), op, a);
                let checksum = a % 3;
                self.event(What::Frame(Input { port: BoardPort::Uplink(b & 1), checksum, bytes }));
            }
            8..=11 => self.answer(a, b),
            12 => self.now = self.now.wrapping_add(u32::from(a) * 40),
            13 => match a % 6 {
                0 => {
                    self.generations.vports[usize::from(b % 5)] += 1;
                    let n = u16::from(b % 5);
                    self.event(What::VportCell(n, self.generations.vports[usize::from(n)]));
                }
                1 => {
                    self.generations.cells[usize::from(b % 3)] += 1;
                    let n = u16::from(b % 3);
                    self.event(What::MapCell(n, self.generations.cells[usize::from(n)]));
                }
                2 if !self.installed.is_empty() => {
                    let n = usize::from(b) % self.installed.len();
                    let key = self.installed.swap_remove(n).key;
                    self.event(What::Delete(vec![key]));
                }
                3 if b < 16 => {
                    self.upcalls.clear();
                    self.event(What::HostRestart);
                }
                _ => {}
            },
            14 if !self.installed.is_empty() => {
                // The host updates a record without an upcall.
                let mut record = self.installed[usize::from(a) % self.installed.len()];
                decide(b, &mut record, &self.generations);
                self.event(What::Insert(vec![record]));
            }
            _ => {
                let ticket = u32::from(a) << 16 | u32::from(b % 4);
                self.event(What::Dropped {
                    port: Port::Vport(VportId(0)),
                    ticket,
                    count: 1,
                    reason: Reason::AclDeny,
                });
            }
        }
    }

    /// The host answers one upcall.
    fn answer(&mut self, a: u8, b: u8) {
        if self.upcalls.is_empty() {
            return;
        }
        // Mostly the oldest; sometimes another, as a host with several threads may.
        let n = if a & 0xc0 == 0 { usize::from(b) % self.upcalls.len() } else { 0 };
        let (port, upcall) = self.upcalls.remove(n);
        let ticket = upcall.ticket;
        let bytes = upcall.bytes;
        match a % 8 {
            0 => {
                let reason = Reason::SpoofedMac;
                self.event(What::Dropped { port, ticket, count: 1, reason });
            }
            1 => {
                let target = [Port::Vport(VportId(1)), Port::Uplink(0), Port::None][usize::from(b % 3)];
                self.event(What::InjectOut(Injected { port, ticket, bytes }, target));
            }
            2 => self.event(What::InjectLookup(Injected { port, ticket, bytes })),
            _ => {
                if ticket != 0
                    && let Some(key) = key_of(port, &bytes, upcall.wire)
                {
                    let mut record = FlowRecord { key, ..FlowRecord::default() };
                    decide(b, &mut record, &self.generations);
                    self.installed.push(record);
                    self.event(What::Insert(vec![record]));
                }
                self.event(What::InjectLookup(Injected { port, ticket, bytes }));
            }
        }
    }
}

fn key_of(port: Port, bytes: &[u8], (inner, peer, vsid): (u16, u16, u32)) -> Option<culvert_flow::FlowKey> {
    match port {
        Port::Vport(id) => Some(key::outbound(id, bytes, &parse(bytes).ok()?)),
        Port::Uplink(_) => {
            let outer = parse_outer(bytes).ok()??;
            let start = usize::from(inner);
            let frame = bytes.get(start..start + usize::from(outer.inner_len))?;
            Some(key::inbound(outer.encap, vsid, peer, frame, &parse(frame).ok()?))
        }
        Port::Host | Port::None => None,
    }
}

/// Sometimes cuts a frame short or changes one of its bytes.
fn damage(mut bytes: Vec<u8>, op: u8, b: u8) -> Vec<u8> {
    match op >> 4 {
        0 => bytes.truncate(usize::from(b)),
        1 => {
            let at = usize::from(b) % bytes.len().min(60);
            bytes[at] ^= 1 << (op & 7);
        }
        _ => {}
    }
    bytes
}

/// Sometimes corrupts the outer headers.
fn hostile(mut bytes: Vec<u8>, op: u8, a: u8) -> Vec<u8> {
    match op >> 4 {
        2 => {
            let at = usize::from(a) % 50;
            bytes[at] ^= 1 << (op & 7);
        }
        3 => bytes.truncate(usize::from(a)),
        // No I flag (VXLAN), a reserved bit (NVGRE: part of the key); another version of GRE.
        7 => bytes[42] ^= 0x08,
        8 => bytes[35] ^= 0x01,
        // Padding after the packet, as in short frames.
        4 => bytes.extend([0; 9]),
        _ => {}
    }
    bytes
}

/// `n` pseudo-random steps for [`trace`], the same for the same state of the generator.
pub fn random_steps(random: &mut u64, n: usize) -> Vec<[u8; 3]> {
    let step = || {
        *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        [(*random >> 33) as u8, (*random >> 41) as u8, (*random >> 49) as u8]
    };
    std::iter::repeat_with(step).take(n).collect()
}
