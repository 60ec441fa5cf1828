//! The slow path's state and what it does with a packet; without threads, clocks or devices: steps come out.

use std::collections::BTreeMap;

use culvert_abi::command::Op;
use culvert_abi::pf::{self, Entry};
use culvert_flow::tables::Member;
use culvert_flow::{Actions, Classified, FlowRecord, OuterInfo, Port, key};
use culvert_packet::{Fragment, Reason, VportId, parse, parse_outer};
use culvert_pf::{Exception, Return};
use culvert_policy::Forward;

use crate::decide::{Decision, Policy, Question};
use crate::next_hop::{HopId, NextHops, State};
use crate::plan::Way;
use crate::resolver::Resolver;
use crate::software::{Outcome, Software, complete};
use crate::target::Step;
use crate::underlay::{self, Heard};
use crate::uplink::{LocalPa, Uplinks};

/// A packet that the NIC gave to the host.
#[derive(Clone, Debug, PartialEq)]
pub struct Punted {
    /// What the NIC says of it.
    pub exception: Exception,
    /// The frame as it came in.
    pub frame: Vec<u8>,
}

impl Punted {
    /// From an entry of the exception queue. `None`: it is none.
    pub fn new(entry: &Entry, frame: Vec<u8>) -> Option<Self> {
        debug_assert!(entry.op == Op::Upcall as u8 || entry.ticket == 0);
        Some(Punted { exception: Exception::from_entry(entry)?, frame })
    }
}

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
    /// Packets from the NIC.
    pub exceptions: u64,
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
    pub(crate) hops: NextHops<Punted>,
    pub(crate) uplinks: Uplinks,
    pub(crate) resolver: Resolver,
    pub(crate) ways: BTreeMap<u16, Way>,
    pub(crate) software: Software,
    pub(crate) steps: Vec<Step>,
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
            steps: Vec::new(),
            tally: Tally::default(),
            seen: std::collections::HashMap::new(),
        }
    }

    /// What the NIC has to do, in order. It is handed over once.
    pub fn take_steps(&mut self) -> Vec<Step> {
        let more = Vec::with_capacity(self.steps.len());
        std::mem::replace(&mut self.steps, more)
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

    /// A packet that the NIC gave to the host.
    pub fn exception(&mut self, punted: Punted, now: u32) {
        self.tally.exceptions += 1;
        let e = punted.exception;
        if let (Port::Uplink(n), false) = (e.input, e.copy)
            && e.reason == Reason::Control
        {
            return self.control(n, &punted, now);
        }
        let (classified, inner) = match classify(&punted) {
            Ok(found) => found,
            Err(_) if e.copy => return,
            Err(reason) => return self.drop(&e.back(), reason),
        };
        if e.copy {
            self.tally.copies += 1;
            return self.policy.control(e.connection, &classified.key, &classified.headers, now);
        }
        let question = Question { input: e.input, reason: e.reason, packet: &classified, inner, now };
        match self.policy.decide(&question) {
            Decision::Drop(reason) => self.drop(&e.back(), reason),
            Decision::Reply(frame) => self.reply(&e, frame),
            Decision::Forward(flow) => match self.ready(&flow.record) {
                Ready::Wait(hop) => self.hold(hop, punted),
                Ready::No(reason) => self.drop(&e.back(), reason),
                Ready::Yes => {
                    let offload = flow.offload.is_ok()
                        && e.ticket.is_some()
                        && classified.headers.fragment == Fragment::None;
                    if offload {
                        self.offload(&flow);
                        self.steps.push(Step::Lookup(e.back(), punted.frame));
                    } else {
                        self.forward(&flow.record, &classified, punted, now);
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
        self.steps.push(Step::Insert(records));
    }

    fn reply(&mut self, e: &Exception, frame: Vec<u8>) {
        if !matches!(e.input, Port::Vport(_)) {
            return self.drop(&e.back(), Reason::NeverLive);
        }
        self.tally.replies += 1;
        let back = Return { offload: pf::OffloadBits::default(), ..e.back() };
        self.steps.push(Step::Out(back, e.input, frame));
    }

    fn forward(&mut self, record: &FlowRecord, c: &Classified, punted: Punted, now: u32) {
        let e = punted.exception;
        let mut frame = punted.frame;
        if let Err(reason) = complete(&e.offload, &mut frame) {
            return self.drop(&e.back(), reason);
        }
        self.tally.software += 1;
        let mut copies = match self.software.forward(record, c, (e.input, &e.offload), &frame, now) {
            Outcome::Drop(reason) => return self.drop(&e.back(), reason),
            Outcome::Send(copies) => copies,
        };
        let Some((to, last)) = copies.pop() else { return self.drop(&e.back(), Reason::NoReceiver) };
        // The checksum is complete now; whether the frame is yet to be cut goes with it.
        let offload =
            pf::OffloadBits { gso: e.offload.gso, mss: e.offload.mss, ..pf::OffloadBits::default() };
        for (to, copy) in copies {
            self.steps.push(Step::Out(Return { offload, ..Return::own(Port::None) }, to, copy));
        }
        let back = Return { offload, ..e.back() };
        self.steps.push(Step::Out(back, to, last));
    }

    /// A frame of the PA network.
    fn control(&mut self, uplink: u8, punted: &Punted, now: u32) {
        self.tally.control += 1;
        let heard = match self.resolver {
            Resolver::Own => underlay::hear(&self.uplinks, uplink, &punted.frame),
            Resolver::Kernel(_) => Heard::default(),
        };
        let mut back = Return { offload: pf::OffloadBits::default(), ..punted.exception.back() };
        if let Some(answer) = heard.answer {
            self.tally.replies += 1;
            self.steps.push(Step::Out(back, Port::Uplink(uplink), answer));
            back.ticket = None;
        }
        if back.ticket.is_some() {
            self.drop(&back, Reason::Control);
        }
        if let Some((pa, addr, mac)) = heard.neighbour
            && let Some(action) = self.hops.heard(HopId { pa, addr }, mac, now)
        {
            self.carry_out(vec![action], now);
        }
    }

    pub(crate) fn drop(&mut self, back: &Return, reason: Reason) {
        self.steps.push(Step::Dropped(*back, reason));
    }

    /// Treats packets that have waited as if they came now.
    pub(crate) fn again(&mut self, held: Vec<Punted>, now: u32) {
        for punted in held {
            self.tally.exceptions -= 1;
            self.exception(punted, now);
        }
    }

    fn hold(&mut self, hop: HopId, punted: Punted) {
        self.tally.held += 1;
        if let Err(punted) = self.hops.hold(hop, punted) {
            self.drop(&punted.exception.back(), Reason::NextHopUnresolved);
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

/// What a packet is: its key as the NIC makes it, and the inner frame.
pub(crate) fn classify(punted: &Punted) -> Result<(Classified, &[u8]), Reason> {
    let (e, frame) = (&punted.exception, &punted.frame[..]);
    match e.input {
        Port::Vport(id) => vport(id, frame),
        Port::Uplink(_) => {
            let outer = parse_outer(frame)?.ok_or(Reason::Control)?;
            let (at, len) = (usize::from(outer.inner), usize::from(outer.inner_len));
            let inner = frame.get(at..at + len).ok_or(Reason::OuterTruncated)?;
            let headers = parse(inner)?;
            let info = OuterInfo {
                inner: outer.inner,
                inner_len: outer.inner_len,
                peer: e.peer,
                vsid: outer.vsid,
                ecn: outer.tos & 3,
            };
            let key = key::inbound(outer.encap, outer.vsid, e.peer, inner, &headers);
            Ok((Classified { key, headers, outer: info }, inner))
        }
        Port::Host | Port::None => Err(Reason::BadDescriptor),
    }
}

fn vport(id: VportId, frame: &[u8]) -> Result<(Classified, &[u8]), Reason> {
    let headers = parse(frame)?;
    let key = key::outbound(id, frame, &headers);
    Ok((Classified { key, headers, outer: OuterInfo::default() }, frame))
}

#[cfg(test)]
mod tests;
