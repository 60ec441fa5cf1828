//! [`Engine`]: decides on upcalls and keeps the PA network, without threads, clocks and devices. Its output is
//! [`FlowCommand`]s.

use culvert_flow::tables::Member;
use culvert_flow::{Actions, Classified, FlowKey, FlowRecord, Port};
use culvert_netlink::NeighbourEvent;
use culvert_offload::{FlowCommand, ReinjectMeta, Upcall, UpcallMeta};
use culvert_packet::{Fragment, Offload, Reason};
use culvert_policy::{ConnectionId, Decision, Forward};

use crate::counters::Counters;
use crate::forward::{ForwardOutcome, SoftwareForwarder};
use crate::nic_tables::NicTables;
use crate::policy::{DecisionRequest, Policy};
use crate::published::{Place, VportDrops};
use crate::underlay::{NextHopId, NextHopState, PathState, ServedAddress, Underlay, UnderlayAction};

/// The slow path without threads and devices.
pub struct Engine<P> {
    pub(crate) policy: P,
    pub(crate) underlay: Underlay<Upcall>,
    pub(crate) forwarder: SoftwareForwarder,
    pub(crate) commands: Vec<FlowCommand>,
    pub(crate) counters: Counters,
    /// Dropped packets of vports.
    pub(crate) vport_drops: Place<VportDrops>,
    /// Packets that the NIC had counted for each connection when it was last aged.
    pub(crate) aged_packets: std::collections::HashMap<u64, u64>,
}

/// Whether the tunnels of a record can be used.
enum Route {
    Ready,
    Wait(NextHopId),
    None(Reason),
}

impl<P: Policy> Engine<P> {
    /// An engine for a NIC with `uplinks` MAC ports.
    pub fn new(policy: P, uplinks: u8, links: [bool; 2]) -> Self {
        Engine {
            policy,
            underlay: Underlay::new(uplinks, links),
            forwarder: SoftwareForwarder::default(),
            commands: Vec::new(),
            counters: Counters::default(),
            vport_drops: Place::default(),
            aged_packets: std::collections::HashMap::new(),
        }
    }

    /// Leaves the provider addresses to the kernel: it resolves next hops, and the slow path sends and answers nothing in
    /// their names.
    #[must_use]
    pub fn on_kernel_addresses(mut self) -> Self {
        self.underlay.use_kernel();
        self
    }

    /// Takes the commands for the NIC, in order.
    pub fn take_commands(&mut self) -> Vec<FlowCommand> {
        let empty = Vec::with_capacity(self.commands.len());
        std::mem::replace(&mut self.commands, empty)
    }

    /// The policy.
    pub fn policy(&mut self) -> &mut P {
        &mut self.policy
    }

    /// Counters.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Next hops with their states and the number of packets that wait for each.
    pub fn next_hops(&self) -> Vec<(NextHopId, NextHopState, usize)> {
        self.underlay.next_hops()
    }

    /// Links of the uplinks.
    pub(crate) fn links(&self) -> [bool; 2] {
        self.underlay.links()
    }

    /// Our provider addresses with the uplinks that serve them.
    pub fn addresses(&self) -> Vec<ServedAddress> {
        self.underlay.served()
    }

    /// Handles an upcall: decides, and queues commands for the NIC. Every ticket is in exactly one of them.
    pub fn upcall(&mut self, upcall: Upcall, now: u32) {
        self.counters.upcalls += 1;
        let meta = upcall.meta;
        if let (Port::Uplink(n), None, Reason::Control) = (meta.input, meta.copy, meta.reason) {
            return self.control(n, &upcall, now);
        }
        let classified = match (&upcall.packet, meta.copy) {
            (Ok(packet), Some(copy)) => {
                self.counters.tcp_copies += 1;
                return self.policy.tcp_control(copy.connection, &packet.headers, now);
            }
            (Err(_), Some(_)) => return,
            (Err(reason), None) => return self.drop(&meta.reinject(), *reason),
            (Ok(packet), None) => *packet,
        };
        let request = DecisionRequest {
            input: meta.input,
            punt_reason: meta.reason,
            packet: &classified,
            inner_frame: upcall.inner(),
            now,
        };
        match self.policy.decide(&request) {
            Decision::Drop(reason) => self.drop(&meta.reinject(), reason),
            Decision::Reply(frame) => self.reply(&meta, frame),
            Decision::Forward(flow) => match self.route(&flow.record) {
                Route::Wait(hop) => self.hold(hop, upcall),
                Route::None(reason) => self.drop(&meta.reinject(), reason),
                Route::Ready => {
                    let offload = flow.offload.is_ok()
                        && meta.ticket.is_some()
                        && classified.headers.fragment == Fragment::None;
                    if offload {
                        self.offload(&flow);
                        let packet = Some(classified);
                        self.commands.push(FlowCommand::Reinject(meta.reinject(), upcall.frame, packet));
                    } else {
                        self.forward(&flow.record, &classified, upcall, now);
                    }
                }
            },
        }
    }

    /// Queues a flow's records for the NIC: the packet's, and the reverse one if its tunnel is ready. Otherwise the first
    /// reverse packet comes to the host and waits for its next hop there, in order with those behind it.
    fn offload(&mut self, flow: &Forward) {
        let mut records = Vec::with_capacity(2);
        records.push(flow.record);
        records.extend(flow.reverse.iter().filter(|r| matches!(self.route(r), Route::Ready)));
        self.counters.records_offloaded += records.len() as u64;
        self.commands.push(FlowCommand::Insert(records));
    }

    fn reply(&mut self, meta: &UpcallMeta, frame: Vec<u8>) {
        if !matches!(meta.input, Port::Vport(_)) {
            return self.drop(&meta.reinject(), Reason::NeverLive);
        }
        self.counters.replies += 1;
        let reinject = ReinjectMeta { offload: Offload::default(), ..meta.reinject() };
        self.commands.push(FlowCommand::PacketOut(reinject, meta.input, frame));
    }

    /// Forwards a packet in software.
    fn forward(&mut self, record: &FlowRecord, c: &Classified, upcall: Upcall, now: u32) {
        let meta = upcall.meta;
        let mut frame = upcall.frame;
        if !meta.offload.fill_checksum(&mut frame) {
            return self.drop(&meta.reinject(), Reason::BadDescriptor);
        }
        self.counters.forwarded_in_software += 1;
        let mut copies = match self.forwarder.forward(record, c, (meta.input, &meta.offload), &frame, now) {
            ForwardOutcome::Drop(reason) => return self.drop(&meta.reinject(), reason),
            ForwardOutcome::Send(copies) => copies,
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

    /// Handles a control frame of the PA network.
    fn control(&mut self, uplink: u8, upcall: &Upcall, now: u32) {
        self.counters.underlay_frames += 1;
        let mut outcome = self.underlay.handle_control(uplink, &upcall.frame);
        let mut reinject = ReinjectMeta { offload: Offload::default(), ..upcall.meta.reinject() };
        if let Some(reply) = outcome.reply.take() {
            self.counters.replies += 1;
            self.commands.push(FlowCommand::PacketOut(reinject, Port::Uplink(uplink), reply));
            reinject.ticket = None;
        }
        if reinject.ticket.is_some() {
            self.drop(&reinject, Reason::Control);
        }
        let actions = self.underlay.learn(&outcome, now);
        self.execute(actions, now);
    }

    /// Takes the next hops that [`Neighbours`](culvert_netlink::Neighbours) must resolve. Known ones come again when they
    /// need a check.
    pub fn take_kernel_requests(&mut self) -> Vec<NextHopId> {
        self.underlay.take_kernel_requests()
    }

    /// Takes over what the kernel says about the next hops of our address number `pa`. Links come by
    /// [`set_links`](Self::set_links).
    pub fn kernel_event(&mut self, pa: u8, event: &NeighbourEvent, now: u32) {
        let actions = self.underlay.kernel_event(pa, event, now);
        self.execute(actions, now);
    }

    /// Sets the links of the uplinks. Addresses move to an uplink that has a link, and are announced there.
    pub fn set_links(&mut self, links: [bool; 2], now: u32) {
        let actions = self.underlay.set_links(links, now);
        self.execute(actions, now);
    }

    /// Resolves next hops: sends the requests that are due.
    pub fn tick(&mut self, now: u32) {
        let actions = self.underlay.tick(now);
        self.execute(actions, now);
    }

    /// Milliseconds until [`tick`](Self::tick) must be called, at most `max_ms`.
    pub(crate) fn next_tick_ms(&self, now: u32, max_ms: u32) -> u32 {
        self.underlay.next_tick_ms(now, max_ms)
    }

    /// Replaces provider addresses, tunnels and groups. Packets that waited for a next hop that is gone are decided again.
    pub(crate) fn replace_tables(&mut self, tables: &NicTables, now: u32) {
        self.forwarder.set_router_mac(tables.router_mac);
        for (index, group) in &tables.groups {
            self.forwarder.set_group(*index, *group);
        }
        let replaced = self.underlay.replace(&tables.local_pas, &tables.tunnels, now);
        // An old tunnel may have another path now: it is written again if its next hop is known.
        for &index in &replaced.old_tunnels {
            self.forwarder.set_tunnel(index, culvert_flow::tables::Tunnel::default());
        }
        self.execute(replaced.actions, now);
        for index in replaced.old_tunnels.into_iter().filter(|i| self.forwarder.tunnel(*i).is_none()) {
            self.commands.push(FlowCommand::SetTunnel(index, Box::default()));
        }
        self.release(replaced.released, now);
    }

    /// The tunnels that are written, for a NIC that has lost them.
    pub(crate) fn tunnels(&self) -> Vec<(u16, culvert_flow::tables::Tunnel)> {
        let written = |index| Some((index, *self.forwarder.tunnel(index)?));
        self.underlay.tunnel_indexes().filter_map(written).collect()
    }

    /// Discards the packets that wait for next hops, and returns how many: a NIC that has restarted does not know their
    /// tickets.
    pub(crate) fn discard_held(&mut self) -> usize {
        self.underlay.take_held().len()
    }

    /// Drops the packets that wait for next hops.
    pub(crate) fn drop_held(&mut self, reason: Reason) {
        for upcall in self.underlay.take_held() {
            self.drop(&upcall.meta.reinject(), reason);
        }
    }

    fn execute(&mut self, actions: Vec<UnderlayAction<Upcall>>, now: u32) {
        for action in actions {
            match action {
                UnderlayAction::Send(uplink, frame) => self.commands.push(FlowCommand::PacketOut(
                    ReinjectMeta::from_host(Port::None),
                    Port::Uplink(uplink),
                    frame,
                )),
                UnderlayAction::WriteTunnel(index, tunnel) => {
                    self.forwarder.set_tunnel(index, *tunnel);
                    self.commands.push(FlowCommand::SetTunnel(index, tunnel));
                }
                UnderlayAction::Release(held) => self.release(held, now),
                UnderlayAction::Unreachable(held) => {
                    for upcall in held {
                        self.drop(&upcall.meta.reinject(), Reason::NextHopTimeout);
                    }
                }
            }
        }
    }

    fn drop(&mut self, meta: &ReinjectMeta, reason: Reason) {
        if let Port::Vport(id) = meta.input {
            *self.vport_drops.lock().entry((id, reason)).or_default() += 1;
        }
        self.commands.push(FlowCommand::Dropped(*meta, reason));
    }

    /// Deletes records of the NIC. The packets that they counted were no idle time of their connections.
    pub(crate) fn flush(&mut self, records: Vec<(FlowKey, u64)>, now: u32) {
        for (_, connection) in &records {
            let id = connection & !ConnectionId::REVERSE;
            self.aged_packets.remove(&id);
            if self.policy.contains(id) {
                self.policy.touch(id, now);
            }
        }
        let keys: Vec<FlowKey> = records.into_iter().map(|(key, _)| key).collect();
        if !keys.is_empty() {
            self.commands.push(FlowCommand::Delete(keys));
        }
    }

    /// Handles packets that have waited as if they came now.
    fn release(&mut self, held: Vec<Upcall>, now: u32) {
        for upcall in held {
            self.counters.upcalls -= 1;
            self.upcall(upcall, now);
        }
    }

    fn hold(&mut self, hop: NextHopId, upcall: Upcall) {
        self.counters.waited_for_next_hop += 1;
        if let Err(upcall) = self.underlay.hold(hop, upcall) {
            self.drop(&upcall.meta.reinject(), Reason::NextHopUnresolved);
        }
    }

    fn route(&self, record: &FlowRecord) -> Route {
        let actions = record.hot.actions();
        if actions.contains(Actions::REPLICATE) {
            // An unreachable member must not keep the others from their copies.
            let group = self.forwarder.group(record.hot.tunnel);
            let members = group.map(|g| &g.members[..usize::from(g.len).min(g.members.len())]);
            let tunnels = members.unwrap_or_default().iter().filter_map(|&m| match Member::from_bits(m) {
                Member::Tunnel(index) => Some(index),
                Member::Port(_) => None,
            });
            let mut waits = tunnels.map(|t| self.tunnel_route(t)).filter(|r| matches!(r, Route::Wait(_)));
            waits.next().unwrap_or(Route::Ready)
        } else if actions.contains(Actions::PUSH_OUTER) {
            self.tunnel_route(record.hot.tunnel)
        } else {
            Route::Ready
        }
    }

    fn tunnel_route(&self, index: u16) -> Route {
        if self.forwarder.tunnel(index).is_some() {
            return Route::Ready;
        }
        match self.underlay.path_state(index) {
            PathState::Resolving(hop) => Route::Wait(hop),
            PathState::Unknown => Route::None(Reason::GroupMissing),
            PathState::Unreachable => Route::None(Reason::NextHopTimeout),
            PathState::Unresolved => Route::None(Reason::NextHopUnresolved),
        }
    }
}

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod kernel_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod ticket_tests;
