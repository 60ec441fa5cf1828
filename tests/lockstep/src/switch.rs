//! The software path against the core: what comes in is cut into bursts, and every burst must do what the core does with
//! one packet after the other. And several workers against it, which must do together what it does alone.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, PoisonError};

use culvert_abi::command::Op;
use culvert_abi::pf::OffloadBits;
use culvert_abi::soc::{BoardPort, Sizes};
use culvert_flow::tables::Vport;
use culvert_flow::{Checksum, Direction, FlowRecord, HashSecret, Port};
use culvert_packet::{MacAddr, Reason, VportId};
use culvert_pf::{Interrupt, Return};
use culvert_softpath::switch::{BURST, Forwarder, Packet, Pool, Sent, SwitchPort, SwitchSettings, Team};
use culvert_softpath::target::PacketSource;
use culvert_softpath::{Station, Step};

use zerocopy::IntoBytes as _;

use crate::core::Core;
use crate::trace::{Dump, Engine, Event, Injected, Input, Output, What};

/// Vports that have a port.
const VPORTS: u16 = 16;

/// What left, by which port, in order.
type Left = Arc<Mutex<Vec<(Port, Vec<u8>)>>>;

/// A port that keeps what is sent.
struct Sink {
    at: Port,
    left: Left,
    never: Interrupt,
}

impl SwitchPort for Sink {
    fn receive(&mut self, _: &mut Pool, _: &mut Vec<Packet>, _: usize) -> std::io::Result<()> {
        Ok(())
    }

    fn send(&mut self, pool: &mut Pool, packets: &mut Vec<Packet>) -> std::io::Result<Sent> {
        let mut sent = Sent::default();
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        for packet in packets.drain(..) {
            sent.packets += 1;
            sent.bytes += packet.bytes().len() as u64;
            left.push((self.at, packet.bytes().to_vec()));
            pool.give(packet);
        }
        Ok(sent)
    }

    fn arm(&mut self) -> bool {
        true
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.never.as_fd()
    }
}

/// What an event, or a burst of them, has done: frames by port, what went to the host, drops by reason.
#[derive(Debug, Default, PartialEq, Eq)]
struct Done {
    sent: BTreeMap<u16, Vec<Vec<u8>>>,
    punted: Vec<Punt>,
    drops: BTreeMap<&'static str, u64>,
}

/// A packet, or the copy of one, for the host.
#[derive(Debug, PartialEq, Eq)]
struct Punt {
    reason: u8,
    ticket: u32,
    wire: (u16, u16, u32),
    connection: Option<u64>,
    bytes: Vec<u8>,
}

/// The software path.
pub struct Switch {
    team: Team,
    /// Where each port is.
    homes: BTreeMap<u16, usize>,
    source: Box<dyn PacketSource>,
    left: Left,
    vf_vport: BTreeMap<u8, u16>,
    all: usize,
}

impl Switch {
    /// So many workers with empty tables.
    ///
    /// # Errors
    /// There is no memory or no descriptor to be had.
    pub fn new(sizes: &Sizes, workers: usize) -> Result<Self, String> {
        let settings = SwitchSettings {
            sizes: *sizes,
            buffers: 512,
            large_buffers: 8,
            workers: vec![None; workers],
            ..SwitchSettings::new(sizes.flows, HashSecret([0; 9]))
        };
        let (mut team, source) = Team::new(&settings).map_err(|e| e.to_string())?;
        // Here the core's word counts.
        team.forwarders.iter_mut().for_each(|f| f.show_returned = true);
        let (left, mut homes) = (Left::default(), BTreeMap::new());
        let ports = (0..VPORTS).map(|n| Port::Vport(VportId(n))).chain([Port::Uplink(0), Port::Uplink(1)]);
        for at in ports {
            let left = Arc::clone(&left);
            let open = move || {
                let never = Interrupt::new().map_err(std::io::Error::other)?;
                Ok(Box::new(Sink { at, left: Arc::clone(&left), never }) as Box<dyn SwitchPort>)
            };
            homes.insert(at.bits(), team.attach(at, Box::new(open)));
        }
        let all = team.forwarders.iter_mut().map(|f| f.pool().free()).sum();
        Ok(Switch { team, homes, source, left, vf_vport: BTreeMap::new(), all })
    }

    /// Buffers that are neither free nor waiting for a verdict: none, ever.
    pub fn missing_buffers(&mut self) -> usize {
        let there = |f: &mut Forwarder| f.pool().free() + f.waiting();
        self.all - self.team.forwarders.iter_mut().map(there).sum::<usize>()
    }

    /// Changes the tables of all workers.
    fn each(&mut self, change: impl Fn(&mut Forwarder)) {
        self.team.forwarders.iter_mut().for_each(change);
    }

    fn drops(&self) -> Vec<u64> {
        let mut all = vec![0; 1 + usize::from(u8::MAX)];
        for f in &self.team.forwarders {
            all.iter_mut().zip(f.tables().counters.drops).for_each(|(sum, n)| *sum += n);
        }
        all
    }

    /// Frames come in, all of them by ports of one worker.
    fn burst(&mut self, inputs: &[&Input]) -> Result<(), String> {
        let (mut packets, mut home, mut port) = (Vec::with_capacity(BURST), 0, Port::None);
        for input in inputs {
            port = match input.port {
                BoardPort::Vf(n) => self.vf_vport.get(&n).map_or(Port::None, |v| Port::Vport(VportId(*v))),
                BoardPort::Uplink(n) if n < Port::UPLINKS => Port::Uplink(n),
                _ => Port::None,
            };
            home = self.homes.get(&port.bits()).copied().unwrap_or(0);
            let mut packet =
                self.team.forwarders[home].pool().take_for(input.bytes.len()).ok_or("no buffer")?;
            packet.input = port;
            packet.checksum = match input.checksum {
                OffloadBits::BAD => Checksum::Bad,
                // The switch looks at what nobody has looked at; the core takes it as it is.
                _ => Checksum::Good,
            };
            if !packet.fill(&input.bytes) {
                return Err("a frame that is longer than any buffer".to_owned());
            }
            packets.push(packet);
        }
        self.team.forwarders[home].arrive(port, &mut packets);
        self.team.settle();
        Ok(())
    }

    fn back(port: Port, ticket: u32) -> Return {
        Return { ticket: NonZeroU32::new(ticket), ..Return::own(port) }
    }

    fn carry_out(&mut self, event: &Event) {
        let steps = match &event.what {
            What::Frame(_) | What::HostRestart => return,
            What::InjectLookup(Injected { port, ticket, bytes }) => {
                vec![Step::Lookup(Self::back(*port, *ticket), bytes.clone())]
            }
            What::InjectOut(Injected { port, ticket, bytes }, target) => {
                vec![Step::Out(Self::back(*port, *ticket), *target, bytes.clone())]
            }
            What::Dropped { port, ticket, count, reason } => {
                (0..*count).map(|_| Step::Dropped(Self::back(*port, *ticket), *reason)).collect()
            }
            What::Insert(records) => vec![Step::Insert(records.clone())],
            What::Delete(keys) => vec![Step::Delete(keys.clone())],
            What::Tunnel(index, tunnel) => vec![Step::Tunnel(*index, tunnel.clone())],
            table => return self.write(table),
        };
        self.team.carry_out(steps);
    }

    fn write(&mut self, table: &What) {
        match table {
            What::Configure { secret, router } => self.each(|f| {
                f.datapath().table.set_secret(*secret);
                f.datapath().router_mac = *router;
            }),
            What::Group(index, group) => self.each(|f| f.datapath().groups[usize::from(*index)] = **group),
            What::Peers(peers) => self.each(|f| {
                f.datapath().peers.clear();
                for peer in peers {
                    f.datapath().peers.set(*peer);
                }
            }),
            What::Local(local) => self.each(|f| {
                for n in 0..4 {
                    f.datapath().peers.set_local(n, local.get(n).copied().unwrap_or_default());
                }
            }),
            What::Vport(index, vport) => {
                self.each(|f| {
                    f.set_vport(usize::from(*index), vport);
                });
                self.vf_vport.retain(|_, v| *v != *index);
                if vport.flags & Vport::PRESENT != 0 && vport.target == Vport::VF {
                    self.vf_vport.insert(vport.number as u8, *index);
                }
            }
            What::MapCell(cell, value) => {
                self.each(|f| f.datapath().map_cells[usize::from(*cell)] = *value);
            }
            What::VportCell(vport, value) => {
                self.each(|f| f.datapath().vports[usize::from(*vport)].generation = *value);
            }
            _ => {}
        }
    }

    /// What was done since this was last asked, in the board's numbering of ports.
    fn done(&mut self, drops_before: &[u64]) -> Result<Done, String> {
        let mut done = Done::default();
        let left = std::mem::take(&mut *self.left.lock().unwrap_or_else(PoisonError::into_inner));
        for (port, bytes) in left {
            let board = match port {
                Port::Uplink(n) => BoardPort::Uplink(n),
                Port::Vport(VportId(n)) => {
                    let vport = self.team.forwarders[0].tables().vports[usize::from(n)];
                    match vport.target {
                        Vport::VF => BoardPort::Vf(vport.number as u8),
                        _ => BoardPort::Queue((culvert_abi::regs::QUEUE_VMQ0 as u16 + vport.number) as u8),
                    }
                }
                Port::Host | Port::None => BoardPort::None,
            };
            done.sent.entry(board.bits()).or_default().push(bytes);
        }
        while let Some((entry, bytes)) = self.source.pop().map_err(|e| e.to_string())? {
            let copy = entry.target & 1 != 0;
            done.punted.push(Punt {
                reason: entry.reason,
                ticket: entry.ticket,
                wire: if copy { (0, 0, 0) } else { (entry.inner, entry.peer, entry.vsid) },
                connection: copy.then_some(entry.arg1),
                bytes,
            });
        }
        done.drops = delta(drops_before, &self.drops());
        Ok(done)
    }
}

fn delta(before: &[u64], after: &[u64]) -> BTreeMap<&'static str, u64> {
    let of = |reason: &Reason| after[*reason as usize] - before[*reason as usize];
    Reason::ALL.iter().map(|r| (r.as_str(), of(r))).filter(|(_, n)| *n > 0).collect()
}

/// The core's answers in the same terms.
fn told(outputs: Vec<Output>) -> Done {
    let mut done = Done::default();
    for output in outputs {
        let Output { op, reason, port, ticket, wire, copies, bytes } = output;
        if let Some(connection) = copies.0 {
            let (reason, connection) = (Reason::TcpControl as u8, Some(connection));
            done.punted.push(Punt { reason, ticket: 0, wire: (0, 0, 0), connection, bytes: bytes.clone() });
        }
        match op {
            Op::Transmit => done.sent.entry(port).or_default().push(bytes),
            Op::Upcall => done.punted.push(Punt { reason, ticket, wire, connection: None, bytes }),
            _ => {}
        }
    }
    done
}

fn drops(core: &mut Core) -> Result<Vec<u64>, String> {
    core.dump(0).map(|dump| dump.drops)
}

/// Runs a trace through the core, event by event, and through the software path, where neighbouring frames of one time
/// become bursts of the lengths that `lens` says, again and again.
///
/// # Errors
/// Where they differ.
pub fn compare(trace: &[Event], lens: &[u8], sizes: &Sizes) -> Result<(), String> {
    let (mut core, mut switch) = (Core::new(sizes), Switch::new(sizes, 1)?);
    let mut lens = lens.iter().cycle();
    // A software path does not outlive its slow path.
    let trace: Vec<&Event> = trace.iter().filter(|e| !matches!(e.what, What::HostRestart)).collect();
    let mut at = 0;
    while let Some(first) = trace.get(at) {
        let most = usize::from(lens.next().copied().unwrap_or(1)) % BURST + 1;
        let frames: Vec<&Input> = trace[at..]
            .iter()
            .map_while(|e| match &e.what {
                What::Frame(input) if e.now == first.now => Some(input),
                _ => None,
            })
            .take(most)
            .collect();
        let events = &trace[at..at + frames.len().max(1)];
        at += events.len();
        let before = (drops(&mut core)?, switch.drops());
        let mut outputs = Vec::new();
        for event in events {
            outputs.extend(core.run(event)?);
        }
        switch.each(|f| f.now = first.now);
        if frames.is_empty() {
            switch.carry_out(first);
        } else {
            switch.burst(&frames)?;
        }
        let mut expected = told(outputs);
        expected.drops = delta(&before.0, &drops(&mut core)?);
        let done = switch.done(&before.1)?;
        if expected != done {
            return Err(format!("events {events:#?}\ncore: {expected:#?}\nswitch: {done:#?}"));
        }
        if switch.missing_buffers() > 0 {
            return Err(format!("events {events:#?}\nlost {} buffers", switch.missing_buffers()));
        }
    }
    same(&core.dump(0)?, &switch)
}

/// Runs a trace through the core and, event by event, through so many workers that share the work: vports in turns, and
/// frames from the wire by the records that the trace will make. There is room for all flows: what becomes of a full
/// table is a table's own business.
///
/// # Errors
/// Where they differ.
pub fn compare_team(trace: &[Event], sizes: &Sizes, workers: usize) -> Result<(), String> {
    let (mut core, mut switch) = (Core::new(sizes), Switch::new(sizes, workers)?);
    switch.team.set_stations(&stations(trace));
    // Tickets of the core, as the workers have them.
    let mut tickets = BTreeMap::new();
    // After a restart that is left out, a host would answer with tickets of other flows.
    for event in trace.iter().take_while(|e| !matches!(e.what, What::HostRestart)) {
        let before = (drops(&mut core)?, switch.drops());
        let mut expected = told(core.run(event)?);
        expected.drops = delta(&before.0, &drops(&mut core)?);
        switch.each(|f| f.now = event.now);
        match &event.what {
            What::Frame(input) => switch.burst(&[input])?,
            _ => switch.carry_out(&with_ticket(event, &tickets)),
        }
        let mut done = switch.done(&before.1)?;
        for (core, team) in expected.punted.iter_mut().zip(&mut done.punted) {
            let (core, team) = (std::mem::take(&mut core.ticket), std::mem::take(&mut team.ticket));
            if (core == 0) != (team == 0) {
                return Err(format!("event {event:#?}\nticket of the core: {core}, of the team: {team}"));
            }
            tickets.insert(core, team);
        }
        if expected != done {
            return Err(format!("event {event:#?}\ncore: {expected:#?}\nteam: {done:#?}"));
        }
        if switch.missing_buffers() > 0 {
            return Err(format!("event {event:#?}\nlost {} buffers", switch.missing_buffers()));
        }
    }
    same(&core.dump(0)?, &switch)
}

/// Vports for the ends that a trace's flows from the wire have: any will do.
fn stations(trace: &[Event]) -> Vec<Station> {
    let records = trace.iter().filter_map(|e| match &e.what {
        What::Insert(records) => Some(records),
        _ => None,
    });
    let inbound = records.flatten().filter(|r| r.key.direction() == Some(Direction::Inbound));
    let ends: BTreeSet<(u32, [u8; 6])> = inbound.map(|r| (r.key.vsid, r.key.dst_mac)).collect();
    let vports = (0..VPORTS).cycle().map(VportId);
    ends.into_iter()
        .zip(vports)
        .map(|((vsid, mac), vport)| Station { vport, vsid, mac: MacAddr(mac) })
        .collect()
}

/// An event with its ticket as the workers have it. One that the core never gave out names nothing there, either.
fn with_ticket(event: &Event, tickets: &BTreeMap<u32, u32>) -> Event {
    let mut event = event.clone();
    if let What::InjectLookup(Injected { ticket, .. })
    | What::InjectOut(Injected { ticket, .. }, _)
    | What::Dropped { ticket, .. } = &mut event.what
        && *ticket != 0
    {
        *ticket = tickets.get(ticket).copied().unwrap_or(u32::MAX);
    }
    event
}

fn same(core: &Dump, switch: &Switch) -> Result<(), String> {
    let mut records: Vec<FlowRecord> = Vec::new();
    let mut vports = vec![Vport::default(); core.vports.len()];
    let mut tunnels = vec![(0, 0); core.tunnels.len()];
    for (n, f) in switch.team.forwarders.iter().enumerate() {
        let dp = f.tables();
        records.extend(dp.table.used_from(0).filter_map(|id| dp.table.record(id)));
        for (sum, vport) in vports.iter_mut().zip(dp.vports.iter()) {
            if n == 0 { *sum = *vport } else { sum.add(vport) }
        }
        for (sum, tunnel) in tunnels.iter_mut().zip(dp.tunnels.iter()) {
            *sum = (sum.0 + tunnel.packets, sum.1 + tunnel.bytes);
        }
    }
    let mut expected = core.records.clone();
    if switch.team.forwarders.len() > 1 {
        for record in expected.iter_mut().chain(&mut records) {
            // Slots of pending flows, and how often a place was used, are each table's own business.
            record.hot.pending = record.hot.pending.min(1);
            record.cold.incarnation = 0;
        }
        let key = |record: &FlowRecord| record.key.as_bytes().to_vec();
        expected.sort_by_key(key);
        records.sort_by_key(key);
    }
    if expected != records {
        let lone = |of: &[FlowRecord], other: &[FlowRecord]| {
            of.iter().filter(|record| !other.contains(record)).copied().collect::<Vec<_>>()
        };
        let (core, switch) = (lone(&expected, &records), lone(&records, &expected));
        return Err(format!("tables differ\nonly in the core: {core:#?}\nonly in the switch: {switch:#?}"));
    }
    if core.vports != vports {
        return Err("counters of vports differ".to_owned());
    }
    if core.tunnels == tunnels { Ok(()) } else { Err("counters of tunnels differ".to_owned()) }
}
