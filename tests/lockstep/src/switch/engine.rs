//! The switch as an engine: events become bursts and commands, and its effects are collected.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use culvert_abi::pf::OffloadBits;
use culvert_abi::soc::{BoardPort, Sizes};
use culvert_flow::pending::Ticket;
use culvert_flow::tables::Vport;
use culvert_flow::{Checksum, HashSecret, Port};
use culvert_offload::{self as offload, FlowCommand, ReinjectMeta, UpcallQueue};
use culvert_packet::VportId;
use culvert_switch::{BURST, Forwarder, SwitchPort, SwitchSettings, WorkerSet};

use super::effects::{Effects, Upcall, delta};
use super::sink::{SentFrames, Sink};
use crate::trace::{Event, Injected, Input, What};

/// Vports that have a port.
pub(super) const VPORTS: u16 = 16;

/// The switch under test.
pub(super) struct SwitchEngine {
    pub(super) workers: WorkerSet,
    /// The worker of each port.
    owners: BTreeMap<u16, usize>,
    upcalls: Box<dyn UpcallQueue>,
    sent: SentFrames,
    vf_vport: BTreeMap<u8, u16>,
    buffers: usize,
}

impl SwitchEngine {
    /// A switch with empty tables and this number of workers.
    ///
    /// # Errors
    /// Out of memory or file descriptors.
    pub(super) fn new(sizes: &Sizes, workers: usize) -> Result<Self, String> {
        let settings = SwitchSettings {
            sizes: *sizes,
            buffers: 512,
            large_buffers: 8,
            workers: vec![None; workers],
            ..SwitchSettings::new(sizes.flows, HashSecret([0; 9]))
        };
        let (mut workers, upcalls) = WorkerSet::new(&settings).map_err(|e| e.to_string())?;
        // Count reinjected packets as the core does.
        workers.forwarders.iter_mut().for_each(|f| f.copy_reinjected = true);
        let (sent, mut owners) = (SentFrames::default(), BTreeMap::new());
        let ports = (0..VPORTS).map(|n| Port::Vport(VportId(n))).chain([Port::Uplink(0), Port::Uplink(1)]);
        for port in ports {
            let sent = Arc::clone(&sent);
            let open = move || Ok(Box::new(Sink::open(port, Arc::clone(&sent))?) as Box<dyn SwitchPort>);
            owners.insert(port.bits(), workers.attach(port, Box::new(open)));
        }
        let buffers = workers.forwarders.iter_mut().map(|f| f.pool().free()).sum();
        Ok(SwitchEngine { workers, owners, upcalls, sent, vf_vport: BTreeMap::new(), buffers })
    }

    /// Lost buffers: neither free nor with a packet that waits for a verdict.
    pub(super) fn missing_buffers(&mut self) -> usize {
        let known = |f: &mut Forwarder| f.pool().free() + f.waiting();
        self.buffers - self.workers.forwarders.iter_mut().map(known).sum::<usize>()
    }

    /// Calls `change` for every worker.
    pub(super) fn each(&mut self, change: impl Fn(&mut Forwarder)) {
        self.workers.forwarders.iter_mut().for_each(change);
    }

    /// Drops by reason, of all workers.
    pub(super) fn drops(&self) -> Vec<u64> {
        let mut all = vec![0; 1 + usize::from(u8::MAX)];
        for f in &self.workers.forwarders {
            all.iter_mut().zip(f.tables().counters.drops).for_each(|(sum, n)| *sum += n);
        }
        all
    }

    /// Receives a burst of frames, at the worker of the last one's port.
    pub(super) fn burst(&mut self, inputs: &[&Input]) -> Result<(), String> {
        let (mut packets, mut owner, mut port) = (Vec::with_capacity(BURST), 0, Port::None);
        for input in inputs {
            port = match input.port {
                BoardPort::Vf(n) => self.vf_vport.get(&n).map_or(Port::None, |v| Port::Vport(VportId(*v))),
                BoardPort::Uplink(n) if n < Port::UPLINKS => Port::Uplink(n),
                _ => Port::None,
            };
            owner = self.owners.get(&port.bits()).copied().unwrap_or(0);
            let mut packet =
                self.workers.forwarders[owner].pool().take_for(input.bytes.len()).ok_or("no buffer")?;
            packet.input = port;
            packet.checksum = match input.checksum {
                OffloadBits::BAD => Checksum::Bad,
                // The switch verifies unchecked checksums; the core accepts them.
                _ => Checksum::Good,
            };
            if !packet.fill(&input.bytes) {
                return Err("a frame is longer than any buffer".to_owned());
            }
            packets.push(packet);
        }
        self.workers.forwarders[owner].arrive(port, &mut packets);
        self.workers.drain();
        Ok(())
    }

    fn reinject_meta(port: Port, ticket: u32) -> ReinjectMeta {
        ReinjectMeta { ticket: Ticket::from_bits(ticket), ..ReinjectMeta::from_host(port) }
    }

    /// Runs an event other than a frame.
    pub(super) fn execute(&mut self, event: &Event) {
        let steps = match &event.what {
            What::Frame(_) | What::HostRestart => return,
            What::InjectLookup(Injected { port, ticket, bytes }) => {
                vec![FlowCommand::Reinject(Self::reinject_meta(*port, *ticket), bytes.clone(), None)]
            }
            What::InjectOut(Injected { port, ticket, bytes }, target) => {
                vec![FlowCommand::PacketOut(Self::reinject_meta(*port, *ticket), *target, bytes.clone())]
            }
            What::Dropped { port, ticket, count, reason } => (0..*count)
                .map(|_| FlowCommand::Dropped(Self::reinject_meta(*port, *ticket), *reason))
                .collect(),
            What::Insert(records) => vec![FlowCommand::Insert(records.clone())],
            What::Delete(keys) => vec![FlowCommand::Delete(keys.clone())],
            What::Tunnel(index, tunnel) => vec![FlowCommand::SetTunnel(*index, tunnel.clone())],
            table => return self.write(table),
        };
        self.workers.execute(steps);
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

    /// Takes the effects since the last call, with the board's port numbers.
    pub(super) fn take_effects(&mut self, drops_before: &[u64]) -> Result<Effects, String> {
        let mut effects = Effects::default();
        let sent = std::mem::take(&mut *self.sent.lock().unwrap_or_else(PoisonError::into_inner));
        for (port, bytes) in sent {
            let board = match port {
                Port::Uplink(n) => BoardPort::Uplink(n),
                Port::Vport(VportId(n)) => {
                    let vport = self.workers.forwarders[0].tables().vports[usize::from(n)];
                    match vport.target {
                        Vport::VF => BoardPort::Vf(vport.number as u8),
                        _ => BoardPort::Queue((culvert_abi::regs::QUEUE_VMQ0 as u16 + vport.number) as u8),
                    }
                }
                Port::Host | Port::None => BoardPort::None,
            };
            effects.sent.entry(board.bits()).or_default().push(bytes);
        }
        while let Some(offload::Upcall { meta, frame, packet }) =
            self.upcalls.pop().map_err(|e| e.to_string())?
        {
            let outer = packet.map(|p| (p.outer.inner, p.outer.peer, p.outer.vsid)).unwrap_or_default();
            effects.upcalls.push(Upcall {
                reason: meta.reason as u8,
                ticket: meta.ticket.map_or(0, Ticket::bits),
                wire: if meta.copy.is_some() { (0, 0, 0) } else { outer },
                connection: meta.copy.map(|copy| copy.connection),
                bytes: frame,
            });
        }
        effects.drops = delta(drops_before, &self.drops());
        Ok(effects)
    }
}
