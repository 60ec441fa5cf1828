//! The engine's side of the PA network: next hops become tunnels, links move addresses, plans replace all of them.

use std::collections::BTreeSet;

use culvert_flow::Port;
use culvert_offload::{FlowCommand, ReinjectMeta, Upcall};
use culvert_packet::{MacAddr, Reason};

use crate::decide::Policy;
use crate::engine::Engine;
use crate::next_hop::{Action, HopId, State};
use crate::plan::Plan;
use crate::resolver::Resolver;
use crate::underlay;

impl<P: Policy> Engine<P> {
    /// Does what the next hops ask for.
    pub(crate) fn execute(&mut self, actions: Vec<Action<Upcall>>, now: u32) {
        for action in actions {
            match action {
                Action::Ask(hop, at) => self.ask(hop, at),
                Action::Resolved(hop, mac, held) => {
                    self.write_tunnels(hop, mac);
                    self.again(held, now);
                }
                Action::Silent(hop, held) => {
                    tracing::warn!(next_hop = %hop.addr, packets = held.len(), "next hop does not answer");
                    for upcall in held {
                        self.drop(&upcall.meta.reinject(), Reason::NextHopTimeout);
                    }
                }
            }
        }
    }

    fn ask(&mut self, hop: HopId, at: Option<MacAddr>) {
        if let Resolver::Kernel(questions) = &mut self.resolver {
            return questions.push(hop);
        }
        let pa = self.uplinks.pas().get(usize::from(hop.pa));
        let frame = pa.and_then(|pa| underlay::ask(pa, hop.addr, at));
        if let (Some(frame), Some(uplink)) = (frame, self.uplinks.serving(hop.pa)) {
            self.own(uplink, frame);
        }
    }

    /// Sends a frame of our own.
    fn own(&mut self, uplink: u8, frame: Vec<u8>) {
        self.commands.push(FlowCommand::PacketOut(
            ReinjectMeta::from_host(Port::None),
            Port::Uplink(uplink),
            frame,
        ));
    }

    /// Writes all tunnels that go by a next hop.
    fn write_tunnels(&mut self, hop: HopId, mac: MacAddr) {
        let (Some(pa), Some(uplink)) =
            (self.uplinks.pas().get(usize::from(hop.pa)).copied(), self.uplinks.serving(hop.pa))
        else {
            return;
        };
        for (&index, way) in
            self.ways.iter().filter(|(_, w)| w.local == pa.addr && w.hop(hop.pa) == Some(hop))
        {
            if let Some(tunnel) = way.tunnel(pa.mac, mac, uplink) {
                self.software.set_tunnel(index, tunnel);
                self.commands.push(FlowCommand::SetTunnel(index, Box::new(tunnel)));
            }
        }
    }

    /// Announces one of our addresses on the wire that it is on now.
    fn announce(&mut self, pa: u8) {
        if matches!(self.resolver, Resolver::Kernel(_)) {
            return;
        }
        let frame = self.uplinks.pas().get(usize::from(pa)).and_then(underlay::announce);
        if let (Some(frame), Some(uplink)) = (frame, self.uplinks.serving(pa)) {
            self.own(uplink, frame);
        }
    }

    /// The links are as given: addresses move to where there is one, and are announced there.
    pub fn links(&mut self, up: [bool; 2], now: u32) {
        for pa in self.uplinks.links(up) {
            tracing::info!(pa, uplink = self.uplinks.serving(pa), "provider address on this uplink");
            self.announce(pa);
            let known: Vec<_> = self.hops.iter().filter(|(hop, ..)| hop.pa == pa).collect();
            for (hop, state, _) in known {
                if let State::Resolved(mac) = state {
                    self.write_tunnels(hop, mac);
                }
            }
            let actions = self.hops.moved(pa, now);
            self.execute(actions, now);
        }
    }

    /// A new policy's addresses, tunnels and groups. What waited for a next hop that is gone is decided again.
    pub fn plan(&mut self, plan: &Plan, now: u32) {
        let before = self.uplinks.pas().to_vec();
        let same =
            |n: u8| before.get(usize::from(n)).is_some_and(|pa| plan.locals.get(usize::from(n)) == Some(pa));
        self.uplinks.set(plan.locals.clone());
        self.software.router_mac = plan.router_mac;
        for (index, group) in &plan.groups {
            self.software.set_group(*index, *group);
        }
        let old = std::mem::take(&mut self.ways);
        self.ways = plan.ways.iter().map(|w| (w.index, self.resolver.way(*w))).collect();
        // What a tunnel is made from is checked as a whole: it is written again if its next hop is known.
        for &index in old.keys() {
            self.software.set_tunnel(index, culvert_flow::tables::Tunnel::default());
        }
        let wanted: BTreeSet<HopId> =
            self.ways.values().filter_map(|w| w.hop(self.uplinks.number(w.local)?)).collect();
        let held = self.hops.retain(|hop| wanted.contains(&hop) && same(hop.pa));
        for pa in (0..self.uplinks.pas().len() as u8).filter(|n| !same(*n)) {
            self.announce(pa);
        }
        for hop in wanted {
            match self.hops.want(hop, now) {
                (State::Resolved(mac), _) => self.write_tunnels(hop, mac),
                (_, Some(action)) => self.execute(vec![action], now),
                _ => {}
            }
        }
        for index in old.into_keys().filter(|i| self.software.tunnel(*i).is_none()) {
            self.commands.push(FlowCommand::SetTunnel(index, Box::default()));
        }
        self.again(held, now);
    }

    /// The NIC has lost its tunnels: those that are known.
    pub fn tunnels(&self) -> Vec<(u16, culvert_flow::tables::Tunnel)> {
        self.ways.keys().filter_map(|&i| self.software.tunnel(i).map(|t| (i, *t))).collect()
    }

    /// Forgets what waits: the NIC that gave it has been restarted, and its tickets are void.
    pub fn lose_held(&mut self) -> usize {
        self.hops.take_held().len()
    }

    /// Time has passed: next hops are asked again.
    pub fn tick(&mut self, now: u32) {
        let actions = self.hops.tick(now);
        self.execute(actions, now);
    }
}
