//! The PA network as the slow path sees it: our addresses and their uplinks, next hops, and the paths of tunnels.
//!
//! [`Underlay`] sends nothing itself: what the engine must do comes back as [`UnderlayAction`]s, in order.

mod control;
mod next_hop;
mod resolver;
mod tunnel_path;
mod uplink;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use culvert_flow::tables::Tunnel;
use culvert_netlink::NeighbourEvent;
use culvert_packet::MacAddr;

pub(crate) use control::ControlOutcome;
use next_hop::{Action, NextHops};
pub use next_hop::{NextHopId, NextHopState};
use resolver::Resolver;
pub use tunnel_path::TunnelPath;
use uplink::Uplinks;
pub use uplink::{LocalPa, ServedAddress};

/// What the engine has to do for the PA network.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum UnderlayAction<T> {
    /// Send this frame of ours out of an uplink.
    Send(u8, Vec<u8>),
    /// Write a tunnel: its next hop has a MAC.
    WriteTunnel(u16, Box<Tunnel>),
    /// Process packets that waited for a next hop.
    Release(Vec<T>),
    /// Drop packets whose next hop does not answer.
    Unreachable(Vec<T>),
}

/// Whether a tunnel's next hop is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PathState {
    /// The policy has no such tunnel.
    Unknown,
    /// The next hop is being resolved: packets wait for it.
    Resolving(NextHopId),
    /// The next hop does not answer.
    Unreachable,
    /// There is no next hop to resolve, or its tunnel cannot be written.
    Unresolved,
}

/// What replacing the addresses and paths leads to.
pub(crate) struct Replaced<T> {
    /// Indexes of the tunnels before.
    pub(crate) old_tunnels: BTreeSet<u16>,
    /// To do first.
    pub(crate) actions: Vec<UnderlayAction<T>>,
    /// Packets that waited for a next hop that is gone: to be decided on again, last.
    pub(crate) released: Vec<T>,
}

/// The PA network. `T` is a packet that can wait for a next hop.
pub(crate) struct Underlay<T> {
    uplinks: Uplinks,
    hops: NextHops<T>,
    resolver: Resolver,
    paths: BTreeMap<u16, TunnelPath>,
}

impl<T> Underlay<T> {
    /// The PA network of a NIC with `uplinks` MAC ports. The slow path resolves next hops itself.
    pub(crate) fn new(uplinks: u8, links: [bool; 2]) -> Self {
        Underlay {
            uplinks: Uplinks::new(uplinks, links),
            hops: NextHops::default(),
            resolver: Resolver::Own,
            paths: BTreeMap::new(),
        }
    }

    /// Leaves provider addresses and next hops to the kernel.
    pub(crate) fn use_kernel(&mut self) {
        self.uplinks.disable_failover();
        self.resolver = Resolver::Kernel(Vec::new());
    }

    /// Which links are up.
    pub(crate) fn links(&self) -> [bool; 2] {
        self.uplinks.links()
    }

    /// Our provider addresses with the uplinks that serve them.
    pub(crate) fn served(&self) -> Vec<ServedAddress> {
        self.uplinks.served()
    }

    /// Whether an address is one of our provider addresses.
    pub(crate) fn is_local(&self, addr: IpAddr) -> bool {
        self.uplinks.number(addr).is_some()
    }

    /// Next hops with their states and the number of packets that wait for each.
    pub(crate) fn next_hops(&self) -> Vec<(NextHopId, NextHopState, usize)> {
        self.hops.iter().collect()
    }

    /// Indexes of the policy's tunnels.
    pub(crate) fn tunnel_indexes(&self) -> impl Iterator<Item = u16> + '_ {
        self.paths.keys().copied()
    }

    /// The state of a tunnel that is not written yet.
    pub(crate) fn path_state(&self, index: u16) -> PathState {
        let Some(path) = self.paths.get(&index) else { return PathState::Unknown };
        let hop = self.uplinks.number(path.local).and_then(|pa| path.hop(pa));
        match hop.map(|hop| (hop, self.hops.state(hop))) {
            Some((hop, Some(NextHopState::Resolving))) => PathState::Resolving(hop),
            Some((_, Some(NextHopState::Unreachable))) => PathState::Unreachable,
            _ => PathState::Unresolved,
        }
    }

    /// Holds a packet until its next hop is resolved.
    ///
    /// # Errors
    /// The packet: too many wait already.
    pub(crate) fn hold(&mut self, hop: NextHopId, packet: T) -> Result<(), T> {
        self.hops.hold(hop, packet)
    }

    /// Takes all waiting packets.
    pub(crate) fn take_held(&mut self) -> Vec<T> {
        self.hops.take_held()
    }

    /// The next hops that [`Neighbours`](culvert_netlink::Neighbours) must resolve, each once.
    pub(crate) fn take_kernel_requests(&mut self) -> Vec<NextHopId> {
        self.resolver.take_requests()
    }

    /// Handles a frame from an uplink that is not encapsulated. What the neighbour's MAC leads to, the caller gets from
    /// [`learn`](Self::learn).
    pub(crate) fn handle_control(&self, uplink: u8, frame: &[u8]) -> ControlOutcome {
        match self.resolver {
            Resolver::Own => control::handle_control(&self.uplinks, uplink, frame),
            Resolver::Kernel(_) => ControlOutcome::default(),
        }
    }

    /// Learns the MAC that a control frame told.
    pub(crate) fn learn(&mut self, outcome: &ControlOutcome, now: u32) -> Vec<UnderlayAction<T>> {
        let Some(neighbour) = outcome.neighbour else { return Vec::new() };
        let hop = NextHopId { pa: neighbour.pa, addr: neighbour.addr };
        let action = self.hops.learn(hop, neighbour.mac, now);
        self.translate(action)
    }

    /// Takes over what the kernel says about the next hops of our address number `pa`.
    pub(crate) fn kernel_event(
        &mut self,
        pa: u8,
        event: &NeighbourEvent,
        now: u32,
    ) -> Vec<UnderlayAction<T>> {
        let action = match *event {
            NeighbourEvent::Resolved { remote: IpAddr::V4(addr), mac, .. } => {
                self.hops.learn(NextHopId { pa, addr }, mac, now)
            }
            // A resolved hop keeps its MAC: a wrong MAC costs no more than none.
            NeighbourEvent::Unanswered { remote: IpAddr::V4(addr), .. }
            | NeighbourEvent::NoRoute { remote: IpAddr::V4(addr) } => {
                self.hops.fail(NextHopId { pa, addr }, now)
            }
            _ => None,
        };
        self.translate(action)
    }

    /// Sends the requests that are due, and gives up next hops that did not answer.
    pub(crate) fn tick(&mut self, now: u32) -> Vec<UnderlayAction<T>> {
        let actions = self.hops.tick(now);
        self.translate(actions)
    }

    /// Milliseconds until [`tick`](Self::tick) must be called, at most `max_ms`.
    pub(crate) fn next_tick_ms(&self, now: u32, max_ms: u32) -> u32 {
        self.hops.next_tick_ms(now, max_ms)
    }

    /// Sets the links. Addresses move to an uplink that has a link, and are announced there.
    pub(crate) fn set_links(&mut self, links: [bool; 2], now: u32) -> Vec<UnderlayAction<T>> {
        let mut actions = Vec::new();
        for pa in self.uplinks.set_links(links) {
            tracing::info!(pa, uplink = self.uplinks.serving(pa), "provider address on this uplink");
            actions.extend(self.announcement(pa));
            for (hop, state, _) in self.hops.iter().filter(|(hop, ..)| hop.pa == pa) {
                if let NextHopState::Resolved(mac) = state {
                    actions.extend(self.tunnels_of(hop, mac));
                }
            }
            let requests = self.hops.resolve_again(pa, now);
            actions.extend(self.translate(requests));
        }
        actions
    }

    /// Replaces our addresses and the tunnels' paths.
    pub(crate) fn replace(&mut self, pas: &[LocalPa], paths: &[TunnelPath], now: u32) -> Replaced<T> {
        let before = self.uplinks.pas().to_vec();
        let is_same =
            |n: u8| before.get(usize::from(n)).is_some_and(|pa| pas.get(usize::from(n)) == Some(pa));
        self.uplinks.set_pas(pas.to_vec());
        let old = std::mem::take(&mut self.paths);
        self.paths = paths.iter().map(|path| (path.index, self.resolver.path(*path))).collect();
        let wanted: BTreeSet<NextHopId> =
            self.paths.values().filter_map(|path| path.hop(self.uplinks.number(path.local)?)).collect();
        let released = self.hops.retain(|hop| wanted.contains(&hop) && is_same(hop.pa));
        let changed = (0..self.uplinks.pas().len() as u8).filter(|n| !is_same(*n));
        let mut actions: Vec<_> = changed.filter_map(|pa| self.announcement(pa)).collect();
        for hop in wanted {
            match self.hops.resolve(hop, now) {
                (NextHopState::Resolved(mac), _) => actions.extend(self.tunnels_of(hop, mac)),
                (_, action) => actions.extend(self.translate(action)),
            }
        }
        Replaced { old_tunnels: old.into_keys().collect(), actions, released }
    }

    fn translate(&mut self, actions: impl IntoIterator<Item = Action<T>>) -> Vec<UnderlayAction<T>> {
        let mut translated = Vec::new();
        for action in actions {
            match action {
                Action::SendRequest(hop, to) => translated.extend(self.request(hop, to)),
                Action::Resolved(hop, mac, held) => {
                    translated.extend(self.tunnels_of(hop, mac));
                    translated.push(UnderlayAction::Release(held));
                }
                Action::Unreachable(hop, held) => {
                    tracing::warn!(next_hop = %hop.addr, packets = held.len(), "next hop does not answer");
                    translated.push(UnderlayAction::Unreachable(held));
                }
            }
        }
        translated
    }

    /// An ARP request for a next hop, or a request to the kernel.
    fn request(&mut self, hop: NextHopId, to: Option<MacAddr>) -> Option<UnderlayAction<T>> {
        if let Resolver::Kernel(requests) = &mut self.resolver {
            requests.push(hop);
            return None;
        }
        let frame = control::arp_request(self.uplinks.pa(hop.pa)?, hop.addr, to)?;
        Some(UnderlayAction::Send(self.uplinks.serving(hop.pa)?, frame))
    }

    /// An announcement of one of our addresses on the uplink that serves it.
    fn announcement(&self, pa: u8) -> Option<UnderlayAction<T>> {
        if matches!(self.resolver, Resolver::Kernel(_)) {
            return None;
        }
        let frame = control::arp_announcement(self.uplinks.pa(pa)?)?;
        Some(UnderlayAction::Send(self.uplinks.serving(pa)?, frame))
    }

    /// All tunnels that use a next hop, with its MAC.
    fn tunnels_of(&self, hop: NextHopId, mac: MacAddr) -> Vec<UnderlayAction<T>> {
        let Some((pa, uplink)) = self.uplinks.pa(hop.pa).zip(self.uplinks.serving(hop.pa)) else {
            return Vec::new();
        };
        let paths = self.paths.values().filter(|p| p.local == pa.addr && p.hop(hop.pa) == Some(hop));
        let tunnel = |path: &TunnelPath| Some((path.index, Box::new(path.tunnel(pa.mac, mac, uplink)?)));
        paths.filter_map(tunnel).map(|(index, tunnel)| UnderlayAction::WriteTunnel(index, tunnel)).collect()
    }
}
