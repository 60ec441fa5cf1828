//! The reference engine: the core alone, one packet at a time.

use std::collections::HashMap;

use culvert_abi::command::Op;
use culvert_abi::pf::OffloadBits;
use culvert_abi::regs::QUEUE_COMMAND;
use culvert_abi::soc::{BUFFER_COUNT, BoardPort, HEADROOM, Sizes};
use culvert_flow::datapath::Counters;
use culvert_flow::pending::{Completion, Pending, Ticket};
use culvert_flow::table::FlowTable;
use culvert_flow::tables::{Peer, Peers, Vport};
use culvert_flow::{
    Checksum, Classified, Datapath, Frame, HashSecret, OuterInfo, Port, RecordId, Replica, Source, Verdict,
};
use culvert_logic::Memory;
use culvert_packet::{MacAddr, Reason, VportId};

use crate::memory::Store;
use crate::trace::{Dump, Engine, Event, Injected, Input, Output, What};

/// A packet in the engine.
#[derive(Clone)]
struct Packet {
    /// The port that received it, by the board's number (frames) or the datapath's (reinjected ones).
    origin: u16,
    input: Port,
    checksum: Checksum,
    bytes: Vec<u8>,
}

/// The core as an engine.
pub struct Core<'m> {
    datapath: Datapath<'m>,
    vf_vport: HashMap<u8, u16>,
    waiting: HashMap<u32, Packet>,
    next_buffer: u32,
    /// Without the fast path.
    pipeline_only: bool,
    /// What punted packets are, by port and bytes, to be handed in again with them.
    classified: Option<HashMap<(u16, Vec<u8>), Classified>>,
}

impl Core<'static> {
    /// With empty tables, which live as long as the program.
    pub fn new(sizes: &Sizes) -> Self {
        Self::with(Store::new(sizes).leak())
    }

    /// With empty tables, and without the fast path for the commonest packets.
    pub fn pipeline_only(sizes: &Sizes) -> Self {
        Core::new(sizes).without_fast_path()
    }

    /// With empty tables, and as a host that keeps the classification of punted packets: re-injected ones are not parsed
    /// again.
    pub fn with_classified_upcalls(sizes: &Sizes) -> Self {
        Core { classified: Some(HashMap::new()), ..Core::new(sizes) }
    }
}

impl<'m> Core<'m> {
    /// With tables in this memory, which are empty.
    pub fn in_memory(memory: &'m mut Store) -> Self {
        Self::with(memory.lend())
    }

    /// The same without the fast path for the commonest packets.
    #[must_use]
    pub fn without_fast_path(self) -> Self {
        Core { pipeline_only: true, ..self }
    }

    fn with(memory: Memory<'m>) -> Self {
        let table = FlowTable::new(memory.table, HashSecret([0; 9])).expect("sizes fit each other");
        let datapath = Datapath {
            table,
            pending: Pending::new(memory.pending, memory.links, 512),
            tunnels: memory.tunnels,
            groups: memory.groups,
            peers: Peers::new(memory.peers),
            vports: memory.vports,
            map_cells: memory.map_cells,
            router_mac: MacAddr::ZERO,
            counters: Counters::default(),
            vport_drops: &mut [],
        };
        Core {
            datapath,
            vf_vport: HashMap::new(),
            waiting: HashMap::new(),
            next_buffer: 0,
            pipeline_only: false,
            classified: None,
        }
    }

    fn buffer(&mut self) -> u32 {
        loop {
            self.next_buffer = (self.next_buffer + 1) % BUFFER_COUNT;
            if !self.waiting.contains_key(&self.next_buffer) {
                return self.next_buffer;
            }
        }
    }

    fn input(&self, port: BoardPort) -> Port {
        match port {
            BoardPort::Vf(n) => self.vf_vport.get(&n).map_or(Port::None, |&v| Port::from_bits(v)),
            BoardPort::Uplink(n) if n < Port::UPLINKS => Port::Uplink(n),
            _ => Port::None,
        }
    }

    fn output(&self, port: Port) -> Result<BoardPort, Reason> {
        match port {
            Port::Uplink(n) => Ok(BoardPort::Uplink(n)),
            Port::Vport(VportId(n)) => match self.datapath.vports.get(usize::from(n)) {
                Some(v) if v.is_up() && v.target == Vport::VF => Ok(BoardPort::Vf(v.number as u8)),
                Some(v) if v.is_up() => {
                    Ok(BoardPort::Queue((culvert_abi::regs::QUEUE_VMQ0 as u16 + v.number) as u8))
                }
                Some(v) if v.flags & Vport::PRESENT != 0 => Err(Reason::VportDown),
                _ => Err(Reason::NoVport),
            },
            Port::Host | Port::None => Err(Reason::NoVport),
        }
    }

    fn count(&mut self, input: Port, to: Port, received: usize, sent: usize) {
        if let Port::Vport(VportId(n)) = input
            && let Some(v) = self.datapath.vports.get_mut(usize::from(n))
        {
            v.rx_packets += 1;
            v.rx_bytes += received as u64;
        }
        if let Port::Vport(VportId(n)) = to
            && let Some(v) = self.datapath.vports.get_mut(usize::from(n))
        {
            v.tx_packets += 1;
            v.tx_bytes += sent as u64;
        }
    }

    /// Runs one packet.
    fn packet(&mut self, packet: Packet, source: Source<'_>, now: u32, out: &mut Vec<Output>) {
        let headroom = HEADROOM as usize;
        let mut buffer = vec![0; headroom + packet.bytes.len()];
        buffer[headroom..].copy_from_slice(&packet.bytes);
        let len = packet.bytes.len();
        let mut frame = Frame::new(&mut buffer, headroom, len).expect("it is as long as the buffer");
        let id = self.buffer();
        let dp = &mut self.datapath;
        let mut punted = None;
        let verdict = if self.pipeline_only {
            dp.process_pipeline(&mut frame, packet.input, source, id, now, &mut punted)
        } else {
            dp.process(&mut frame, packet.input, source, id, now, &mut punted)
        };
        let bytes = frame.bytes().to_vec();
        match verdict {
            Verdict::Wait => {
                self.waiting.insert(id, packet);
            }
            Verdict::Drop { reason } => out.push(dropped(packet.origin, reason)),
            Verdict::Answer => {
                let from = (packet.input, packet.bytes.len());
                self.transmit(from, packet.origin, packet.input, bytes, (None, false), out);
            }
            Verdict::Punt { reason, ticket } => {
                if let (Some(all), Some(c)) = (&mut self.classified, punted) {
                    all.insert((packet.input.bits(), packet.bytes.clone()), c);
                }
                let outer = punted.map_or(OuterInfo::default(), |c| c.outer);
                out.push(upcall(&packet, reason, ticket, &outer));
            }
            Verdict::Forward { to, record, copy, capture } => {
                let connection = copy.then(|| self.datapath.table.cold(record).connection);
                let from = (packet.input, packet.bytes.len());
                self.transmit(from, packet.origin, to, bytes, (connection, capture), out);
            }
            Verdict::Replicate { record, group } => self.replicate(&packet, record, group, &bytes, out),
        }
    }

    fn transmit(
        &mut self,
        (input, received): (Port, usize),
        origin: u16,
        to: Port,
        bytes: Vec<u8>,
        copies: (Option<u64>, bool),
        out: &mut Vec<Output>,
    ) {
        match self.output(to) {
            Ok(port) => {
                self.count(input, to, received, bytes.len());
                out.push(transmitted(port, bytes, copies));
            }
            Err(reason) => {
                self.datapath.count_drop(reason, input);
                out.push(dropped(origin, reason));
            }
        }
    }

    fn replicate(&mut self, packet: &Packet, id: RecordId, group: u16, bytes: &[u8], out: &mut Vec<Output>) {
        let Some(mut copies) = self.datapath.replication(id, group, packet.input, bytes.len()) else {
            self.datapath.count_drop(Reason::NoReceiver, packet.input);
            return out.push(dropped(packet.origin, Reason::NoReceiver));
        };
        let (mut header, mut sent) = ([0; 128], false);
        while let Some(copy) = copies.next_copy(self.datapath.tunnels, &mut header) {
            let made = copy.and_then(|Replica { to, outer_len }| Ok((self.output(to)?, to, outer_len)));
            match made {
                Ok((port, to, outer_len)) => {
                    self.count(Port::None, to, 0, bytes.len());
                    out.push(transmitted(port, [&header[..outer_len], bytes].concat(), (None, false)));
                    sent = true;
                }
                Err(reason) => self.datapath.count_drop(reason, packet.input),
            }
        }
        self.count(packet.input, Port::None, packet.bytes.len(), 0);
        if !sent {
            self.datapath.count_drop(Reason::NoReceiver, packet.input);
        }
    }

    fn complete_upcall(&mut self, ticket: u32, count: u32, now: u32, out: &mut Vec<Output>) {
        let Some(ticket) = Ticket::from_bits(ticket) else { return };
        if let Completion::Live(id) = self.datapath.complete_upcall(ticket, count) {
            while let Some(buffer) = self.datapath.pending.next_waiting(ticket.slot) {
                let packet = self.waiting.remove(&buffer).expect("the packet waits in this buffer");
                let source = Source::Pended { record: id, checksum: packet.checksum };
                self.packet(packet, source, now, out);
            }
            self.datapath.go_live(ticket, id);
        }
    }

    fn vport(&mut self, index: u16, new: &Vport) {
        let slot = &mut self.datapath.vports[usize::from(index)];
        let old = *slot;
        *slot = Vport {
            records: old.records,
            rx_packets: old.rx_packets,
            rx_bytes: old.rx_bytes,
            tx_packets: old.tx_packets,
            tx_bytes: old.tx_bytes,
            drops: old.drops,
            ..*new
        };
        self.vf_vport.retain(|_, v| *v != index);
        if new.flags & Vport::PRESENT != 0 && new.target == Vport::VF {
            self.vf_vport.insert(new.number as u8, index);
        }
    }
}

fn transmitted(port: BoardPort, bytes: Vec<u8>, copies: (Option<u64>, bool)) -> Output {
    Output { op: Op::Transmit, reason: 0, port: port.bits(), ticket: 0, wire: (0, 0, 0), copies, bytes }
}

fn dropped(origin: u16, reason: Reason) -> Output {
    Output {
        op: Op::Drop,
        reason: reason as u8,
        port: origin,
        ticket: 0,
        wire: (0, 0, 0),
        copies: (None, false),
        bytes: Vec::new(),
    }
}

fn upcall(packet: &Packet, reason: Reason, ticket: Option<Ticket>, outer: &OuterInfo) -> Output {
    Output {
        op: Op::Upcall,
        reason: reason as u8,
        port: packet.origin,
        ticket: ticket.map_or(0, Ticket::bits),
        wire: (outer.inner, outer.peer, outer.vsid),
        copies: (None, false),
        bytes: packet.bytes.clone(),
    }
}

impl Engine for Core<'_> {
    fn run(&mut self, event: &Event) -> Result<Vec<Output>, String> {
        let (now, mut out) = (event.now, Vec::new());
        // The host's frames are received from its queue, whatever port they name.
        let queue = BoardPort::Queue(QUEUE_COMMAND as u8).bits();
        let host = |port: &Port, bytes: &[u8]| Packet {
            origin: queue,
            input: *port,
            checksum: Checksum::Unknown,
            bytes: bytes.to_vec(),
        };
        match &event.what {
            What::Frame(Input { port, checksum, bytes }) => {
                let checksum = match *checksum {
                    OffloadBits::VERIFIED => Checksum::Good,
                    OffloadBits::BAD => Checksum::Bad,
                    _ => Checksum::Unknown,
                };
                let input = self.input(*port);
                let packet = Packet { origin: port.bits(), input, checksum, bytes: bytes.clone() };
                self.packet(packet, Source::Port(checksum), now, &mut out);
            }
            What::InjectLookup(Injected { port, ticket, bytes }) => {
                let ticket_of = Ticket::from_bits(*ticket);
                let key = (port.bits(), bytes.clone());
                let known = self.classified.as_ref().and_then(|all| all.get(&key)).copied();
                let source = Source::Reinjected { ticket: ticket_of, classified: known.as_ref() };
                self.packet(host(port, bytes), source, now, &mut out);
                self.complete_upcall(*ticket, 1, now, &mut out);
            }
            What::InjectOut(Injected { port, ticket, bytes }, target) => {
                let none = (None, false);
                self.transmit((*port, bytes.len()), queue, *target, bytes.clone(), none, &mut out);
                self.complete_upcall(*ticket, 1, now, &mut out);
            }
            What::Dropped { port, ticket, count, reason } => {
                for _ in 0..*count {
                    self.datapath.count_drop(*reason, *port);
                }
                self.complete_upcall(*ticket, *count, now, &mut out);
            }
            What::Configure { secret, router } => {
                self.datapath.table.set_secret(*secret);
                self.datapath.router_mac = *router;
            }
            What::Insert(records) => {
                for record in records {
                    // A refusal shows in the table's dump.
                    let _refused = self.datapath.install(record, now);
                }
            }
            What::Delete(keys) => {
                for key in keys {
                    self.datapath.delete(key);
                }
            }
            What::Tunnel(index, new) => {
                let slot = &mut self.datapath.tunnels[usize::from(*index)];
                *slot = culvert_flow::tables::Tunnel { packets: slot.packets, bytes: slot.bytes, ..**new };
            }
            What::Group(index, new) => self.datapath.groups[usize::from(*index)] = **new,
            What::Peers(peers) => {
                self.datapath.peers.clear();
                for peer in peers {
                    self.datapath.peers.set(*peer);
                }
            }
            What::Local(peers) => {
                for n in 0..4 {
                    self.datapath.peers.set_local(n, peers.get(n).copied().unwrap_or(Peer::default()));
                }
            }
            What::Vport(index, new) => self.vport(*index, new),
            What::MapCell(cell, value) => self.datapath.map_cells[usize::from(*cell)] = *value,
            What::VportCell(vport, value) => self.datapath.vports[usize::from(*vport)].generation = *value,
            What::HostRestart => {
                let mut lost = Vec::new();
                self.datapath.host_restarted(|buffer| lost.push(buffer));
                for buffer in lost {
                    let packet = self.waiting.remove(&buffer).expect("the packet waits in this buffer");
                    out.push(dropped(packet.origin, Reason::HostRestart));
                }
            }
        }
        Ok(out)
    }

    fn dump(&mut self, _now: u32) -> Result<Dump, String> {
        let table = &self.datapath.table;
        Ok(Dump {
            drops: self.datapath.counters.drops.to_vec(),
            vports: self.datapath.vports.to_vec(),
            tunnels: self.datapath.tunnels.iter().map(|t| (t.packets, t.bytes)).collect(),
            records: table.used_from(0).filter_map(|id| table.record(id)).collect(),
        })
    }
}
