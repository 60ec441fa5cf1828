//! The software path against the core: what comes in is cut into bursts, and every burst must do what the core does with
//! one packet after the other.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, PoisonError};

use culvert_abi::command::Op;
use culvert_abi::pf::Offload;
use culvert_abi::soc::{BoardPort, Sizes};
use culvert_flow::tables::Vport;
use culvert_flow::{Checksum, HashSecret, Port};
use culvert_nic::{Interrupt, Return};
use culvert_packet::{Reason, VportId};
use culvert_softpath::Step;
use culvert_softpath::switch::{BURST, Forwarder, Packet, Pool, Sent, SwitchPort, SwitchSettings};
use culvert_softpath::target::PacketSource;

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
    forwarder: Forwarder,
    source: Box<dyn PacketSource>,
    left: Left,
    vf_vport: BTreeMap<u8, u16>,
    all: usize,
}

impl Switch {
    /// With empty tables.
    ///
    /// # Errors
    /// There is no memory or no descriptor to be had.
    pub fn new(sizes: &Sizes) -> Result<Self, String> {
        let settings = SwitchSettings {
            sizes: *sizes,
            buffers: 1024,
            large_buffers: 8,
            ..SwitchSettings::new(sizes.flows, HashSecret([0; 9]))
        };
        let (mut forwarder, source) = Forwarder::new(&settings).map_err(|e| e.to_string())?;
        // Here the core's word counts.
        forwarder.show_returned = true;
        let left = Left::default();
        let ports = (0..VPORTS).map(|n| Port::Vport(VportId(n))).chain([Port::Uplink(0), Port::Uplink(1)]);
        for at in ports {
            let left = Arc::clone(&left);
            let open = move || {
                let never = Interrupt::new().map_err(std::io::Error::other)?;
                Ok(Box::new(Sink { at, left: Arc::clone(&left), never }) as Box<dyn SwitchPort>)
            };
            forwarder.attach(at, Box::new(open));
        }
        let all = forwarder.pool().free();
        Ok(Switch { forwarder, source, left, vf_vport: BTreeMap::new(), all })
    }

    /// Buffers that are neither free nor waiting for a verdict: none, ever.
    pub fn missing_buffers(&mut self) -> usize {
        let waiting: usize = self.forwarder.waiting();
        self.all - self.forwarder.pool().free() - waiting
    }

    fn burst(&mut self, inputs: &[&Input]) -> Result<(), String> {
        let mut packets = Vec::with_capacity(BURST);
        for input in inputs {
            let mut packet = self.forwarder.pool().take_for(input.bytes.len()).ok_or("no buffer")?;
            packet.input = match input.port {
                BoardPort::Vf(n) => self.vf_vport.get(&n).map_or(Port::None, |v| Port::Vport(VportId(*v))),
                BoardPort::Uplink(n) if n < Port::UPLINKS => Port::Uplink(n),
                _ => Port::None,
            };
            packet.checksum = match input.checksum {
                Offload::BAD => Checksum::Bad,
                // The switch looks at what nobody has looked at; the core takes it as it is.
                _ => Checksum::Good,
            };
            if !packet.fill(&input.bytes) {
                return Err("a frame that is longer than any buffer".to_owned());
            }
            packets.push(packet);
        }
        self.forwarder.burst(&mut packets);
        Ok(())
    }

    fn back(port: Port, ticket: u32) -> Return {
        Return { ticket: NonZeroU32::new(ticket), ..Return::own(port) }
    }

    fn carry_out(&mut self, event: &Event) {
        let f = &mut self.forwarder;
        match &event.what {
            What::Frame(_) | What::HostRestart => {}
            What::InjectLookup(Injected { port, ticket, bytes }) => {
                f.carry_out(vec![Step::Lookup(Self::back(*port, *ticket), bytes.clone())]);
            }
            What::InjectOut(Injected { port, ticket, bytes }, target) => {
                f.carry_out(vec![Step::Out(Self::back(*port, *ticket), *target, bytes.clone())]);
            }
            What::Dropped { port, ticket, count, reason } => {
                f.carry_out(
                    (0..*count).map(|_| Step::Dropped(Self::back(*port, *ticket), *reason)).collect(),
                );
            }
            What::Configure { secret, router } => {
                f.datapath().table.set_secret(*secret);
                f.datapath().router_mac = *router;
            }
            What::Insert(records) => f.carry_out(vec![Step::Insert(records.clone())]),
            What::Delete(keys) => f.carry_out(vec![Step::Delete(keys.clone())]),
            What::Tunnel(index, tunnel) => f.set_tunnel(*index, tunnel),
            What::Group(index, group) => f.datapath().groups[usize::from(*index)] = **group,
            What::Peers(peers) => {
                f.datapath().peers.clear();
                for peer in peers {
                    f.datapath().peers.set(*peer);
                }
            }
            What::Local(local) => {
                for n in 0..4 {
                    f.datapath().peers.set_local(n, local.get(n).copied().unwrap_or_default());
                }
            }
            What::Vport(index, vport) => {
                f.set_vport(usize::from(*index), vport);
                self.vf_vport.retain(|_, v| *v != *index);
                if vport.flags & Vport::PRESENT != 0 && vport.target == Vport::VF {
                    self.vf_vport.insert(vport.number as u8, *index);
                }
            }
            What::MapCell(cell, value) => f.datapath().map_cells[usize::from(*cell)] = *value,
            What::VportCell(vport, value) => {
                f.datapath().vports[usize::from(*vport)].generation = *value;
            }
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
                    let vport = self.forwarder.datapath().vports[usize::from(n)];
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
        done.drops = delta(drops_before, &self.forwarder.datapath().counters.drops);
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
            Op::Exception => done.punted.push(Punt { reason, ticket, wire, connection: None, bytes }),
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
    let (mut core, mut switch) = (Core::new(sizes), Switch::new(sizes)?);
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
        let before = (drops(&mut core)?, switch.forwarder.datapath().counters.drops);
        let mut outputs = Vec::new();
        for event in events {
            outputs.extend(core.run(event)?);
        }
        switch.forwarder.now = first.now;
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

fn same(core: &Dump, switch: &Switch) -> Result<(), String> {
    let dp = switch.forwarder.tables();
    let records: Vec<_> = dp.table.used_from(0).filter_map(|id| dp.table.record(id)).collect();
    if core.records != records {
        return Err(format!("tables differ\ncore: {:#?}\nswitch: {records:#?}", core.records));
    }
    if core.vports != dp.vports {
        return Err("counters of vports differ".to_owned());
    }
    let tunnels: Vec<_> = dp.tunnels.iter().map(|t| (t.packets, t.bytes)).collect();
    if core.tunnels == tunnels { Ok(()) } else { Err("counters of tunnels differ".to_owned()) }
}
