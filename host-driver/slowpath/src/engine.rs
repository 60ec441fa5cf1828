//! The slow path's state and what it does with a packet; without threads, clocks or devices: steps come out.

use std::collections::BTreeMap;

use culvert_flow::tables::Member;
use culvert_flow::{Actions, Classified, FlowRecord, Port};
use culvert_offload::{FlowCommand, ReinjectMeta, Upcall, UpcallMeta};
use culvert_packet::{Fragment, Offload, Reason};
use culvert_policy::Forward;

use crate::decide::{Decision, Policy, Question};
use crate::forward::{Outcome, Software};
use crate::next_hop::{HopId, NextHops, State};
use crate::plan::Way;
use crate::resolver::Resolver;
use crate::underlay::{self, Heard};
use crate::uplink::{LocalPa, Uplinks};

/// One of our provider addresses, and which uplink serves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The address.
    pub pa: LocalPa,
    /// The uplink that serves it now.
    pub serving: u8,
}

/// What the slow path has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Upcalls from the NIC.
    pub upcalls: u64,
    /// Copies of TCP segments.
    pub copies: u64,
    /// Frames of the PA network that are not encapsulated.
    pub control: u64,
    /// Packets that waited for a next hop.
    pub held: u64,
    /// Packets forwarded in software.
    pub software: u64,
    /// Packets answered.
    pub replies: u64,
    /// Records handed to the NIC.
    pub records: u64,
}

/// The slow path, but for threads and devices.
pub struct Engine<P> {
    pub(crate) policy: P,
    pub(crate) hops: NextHops<Upcall>,
    pub(crate) uplinks: Uplinks,
    pub(crate) resolver: Resolver,
    pub(crate) ways: BTreeMap<u16, Way>,
    pub(crate) software: Software,
    pub(crate) commands: Vec<FlowCommand>,
    pub(crate) tally: Tally,
    /// Packet counts of connections, as they were when ageing last looked.
    pub(crate) seen: std::collections::HashMap<u64, u64>,
}

/// Whether the tunnels of a record can be used.
enum Ready {
    Yes,
    Wait(HopId),
    No(Reason),
}

impl<P: Policy> Engine<P> {
    /// With a policy, on a NIC with so many MAC ports and these links.
    pub fn new(policy: P, uplinks: u8, links: [bool; 2]) -> Self {
        Engine {
            policy,
            hops: NextHops::default(),
            uplinks: Uplinks::new(uplinks, links),
            resolver: Resolver::Own,
            ways: BTreeMap::new(),
            software: Software::default(),
            commands: Vec::new(),
            tally: Tally::default(),
            seen: std::collections::HashMap::new(),
        }
    }

    /// What the NIC has to do, in order. It is handed over once.
    pub fn take_commands(&mut self) -> Vec<FlowCommand> {
        let more = Vec::with_capacity(self.commands.len());
        std::mem::replace(&mut self.commands, more)
    }

    /// The policy.
    pub fn policy(&mut self) -> &mut P {
        &mut self.policy
    }

    /// Counters.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Next hops with their states and how many packets wait for each.
    pub fn next_hops(&self) -> Vec<(HopId, State, usize)> {
        self.hops.iter().collect()
    }

    /// Our provider addresses.
    pub fn addresses(&self) -> Vec<Address> {
        self.uplinks
            .pas()
            .iter()
            .map(|pa| Address { pa: *pa, serving: self.uplinks.route(pa.uplink) })
            .collect()
    }

    /// Handles an upcall: decides, and queues commands for the NIC. Every ticket is in exactly one of them.
    pub fn upcall(&mut self, upcall: Upcall, now: u32) {
        self.tally.upcalls += 1;
        let meta = upcall.meta;
        if let (Port::Uplink(n), None, Reason::Control) = (meta.input, meta.copy, meta.reason) {
            return self.control(n, &upcall, now);
        }
        let classified = match (&upcall.packet, meta.copy) {
            (Ok(packet), Some(copy)) => {
                self.tally.copies += 1;
                return self.policy.control(copy.connection, &packet.headers, now);
            }
            (Err(_), Some(_)) => return,
            (Err(reason), None) => return self.drop(&meta.reinject(), *reason),
            (Ok(packet), None) => *packet,
        };
        let inner = upcall.inner();
        let question = Question { input: meta.input, reason: meta.reason, packet: &classified, inner, now };
        match self.policy.decide(&question) {
            Decision::Drop(reason) => self.drop(&meta.reinject(), reason),
            Decision::Reply(frame) => self.reply(&meta, frame),
            Decision::Forward(flow) => match self.ready(&flow.record) {
                Ready::Wait(hop) => self.hold(hop, upcall),
                Ready::No(reason) => self.drop(&meta.reinject(), reason),
                Ready::Yes => {
                    let offload = flow.offload.is_ok()
                        && meta.ticket.is_some()
                        && classified.headers.fragment == Fragment::None;
                    if offload {
                        self.offload(&flow);
                        let packet = Some(Box::new(classified));
                        self.commands.push(FlowCommand::Reinject(meta.reinject(), upcall.frame, packet));
                    } else {
                        self.forward(&flow.record, &classified, upcall, now);
                    }
                }
            },
        }
    }

    /// Records for the NIC: this packet's, and the answers' if their way is known. Otherwise the answers' first packet
    /// comes to the host and waits there for its next hop, in order with those behind it.
    fn offload(&mut self, flow: &Forward) {
        let mut records = Vec::with_capacity(2);
        records.push(flow.record);
        records.extend(flow.reverse.iter().filter(|r| matches!(self.ready(r), Ready::Yes)));
        self.tally.records += records.len() as u64;
        self.commands.push(FlowCommand::Insert(records));
    }

    fn reply(&mut self, meta: &UpcallMeta, frame: Vec<u8>) {
        if !matches!(meta.input, Port::Vport(_)) {
            return self.drop(&meta.reinject(), Reason::NeverLive);
        }
        self.tally.replies += 1;
        let reinject = ReinjectMeta { offload: Offload::default(), ..meta.reinject() };
        self.commands.push(FlowCommand::PacketOut(reinject, meta.input, frame));
    }

    fn forward(&mut self, record: &FlowRecord, c: &Classified, upcall: Upcall, now: u32) {
        let meta = upcall.meta;
        let mut frame = upcall.frame;
        if !meta.offload.fill_checksum(&mut frame) {
            return self.drop(&meta.reinject(), Reason::BadDescriptor);
        }
        self.tally.software += 1;
        let mut copies = match self.software.forward(record, c, (meta.input, &meta.offload), &frame, now) {
            Outcome::Drop(reason) => return self.drop(&meta.reinject(), reason),
            Outcome::Send(copies) => copies,
        };
        let Some((to, last)) = copies.pop() else { return self.drop(&meta.reinject(), Reason::NoReceiver) };
        // The checksum is complete now; segmentation is still to be done.
        let offload = Offload { gso: meta.offload.gso, mss: meta.offload.mss, ..Offload::default() };
        for (to, copy) in copies {
            let from_host = ReinjectMeta { offload, ..ReinjectMeta::from_host(Port::None) };
            self.commands.push(FlowCommand::PacketOut(from_host, to, copy));
        }
        let reinject = ReinjectMeta { offload, ..meta.reinject() };
        self.commands.push(FlowCommand::PacketOut(reinject, to, last));
    }

    /// A frame of the PA network.
    fn control(&mut self, uplink: u8, upcall: &Upcall, now: u32) {
        self.tally.control += 1;
        let heard = match self.resolver {
            Resolver::Own => underlay::hear(&self.uplinks, uplink, &upcall.frame),
            Resolver::Kernel(_) => Heard::default(),
        };
        let mut reinject = ReinjectMeta { offload: Offload::default(), ..upcall.meta.reinject() };
        if let Some(answer) = heard.answer {
            self.tally.replies += 1;
            self.commands.push(FlowCommand::PacketOut(reinject, Port::Uplink(uplink), answer));
            reinject.ticket = None;
        }
        if reinject.ticket.is_some() {
            self.drop(&reinject, Reason::Control);
        }
        if let Some((pa, addr, mac)) = heard.neighbour
            && let Some(action) = self.hops.heard(HopId { pa, addr }, mac, now)
        {
            self.execute(vec![action], now);
        }
    }

    pub(crate) fn drop(&mut self, meta: &ReinjectMeta, reason: Reason) {
        self.commands.push(FlowCommand::Dropped(*meta, reason));
    }

    /// Treats packets that have waited as if they came now.
    pub(crate) fn again(&mut self, held: Vec<Upcall>, now: u32) {
        for upcall in held {
            self.tally.upcalls -= 1;
            self.upcall(upcall, now);
        }
    }

    fn hold(&mut self, hop: HopId, upcall: Upcall) {
        self.tally.held += 1;
        if let Err(upcall) = self.hops.hold(hop, upcall) {
            self.drop(&upcall.meta.reinject(), Reason::NextHopUnresolved);
        }
    }

    fn ready(&self, record: &FlowRecord) -> Ready {
        let actions = record.hot.actions();
        if actions.contains(Actions::REPLICATE) {
            // A member that does not answer must not keep the others from their copies.
            let group = self.software.group(record.hot.tunnel);
            let members = group.map(|g| &g.members[..usize::from(g.len).min(g.members.len())]);
            let tunnels = members.unwrap_or_default().iter().filter_map(|&m| match Member::from_bits(m) {
                Member::Tunnel(index) => Some(index),
                Member::Port(_) => None,
            });
            let mut waits = tunnels.map(|t| self.way(t)).filter(|r| matches!(r, Ready::Wait(_)));
            waits.next().unwrap_or(Ready::Yes)
        } else if actions.contains(Actions::PUSH_OUTER) {
            self.way(record.hot.tunnel)
        } else {
            Ready::Yes
        }
    }

    fn way(&self, index: u16) -> Ready {
        if self.software.tunnel(index).is_some() {
            return Ready::Yes;
        }
        let Some(way) = self.ways.get(&index) else { return Ready::No(Reason::GroupMissing) };
        let hop = self.uplinks.number(way.local).and_then(|pa| way.hop(pa));
        match hop.map(|hop| (hop, self.hops.state(hop))) {
            Some((hop, Some(State::Resolving))) => Ready::Wait(hop),
            Some((_, Some(State::Silent))) => Ready::No(Reason::NextHopTimeout),
            _ => Ready::No(Reason::NextHopUnresolved),
        }
    }
}

#[cfg(test)]
mod tests;
