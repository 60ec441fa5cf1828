//! Resolves next hops with the kernel's routes and neighbour table: which neighbour gets the frames for a host, and its MAC.
//!
//! A notification may be outdated when it is read, or lost. So it only marks what to look up again: every reported event
//! comes from an answer of the kernel's, not from a notification.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;

use culvert_packet::MacAddr;
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use rustix::io::Errno;

use crate::changes::Changes;
use crate::interface::Interface;
use crate::neighbour_entry::{self, NeighbourEntry};
use crate::netlink::Netlink;
use crate::route;

/// Groups of rtnetlink: links, neighbours, addresses, routes and rules of both families, next hop objects.
const GROUPS: u32 = group(libc::RTNLGRP_LINK)
    | group(libc::RTNLGRP_NEIGH)
    | group(libc::RTNLGRP_IPV4_IFADDR)
    | group(libc::RTNLGRP_IPV4_ROUTE)
    | group(libc::RTNLGRP_IPV4_RULE)
    | group(libc::RTNLGRP_IPV6_IFADDR)
    | group(libc::RTNLGRP_IPV6_ROUTE)
    | group(libc::RTNLGRP_IPV6_RULE)
    | group(libc::RTNLGRP_NEXTHOP);

/// Milliseconds between two solicitations of a next hop that does not answer.
pub const UNANSWERED_RETRY_MS: u32 = 5000;

const fn group(number: libc::c_uint) -> u32 {
    1 << (number - 1)
}

/// A change of a host's next hop or of the interface. Each one replaces the previous event about the same host, or about
/// the interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NeighbourEvent {
    /// Frames for a host go to this MAC.
    Resolved {
        /// The host.
        remote: IpAddr,
        /// The neighbour: the host itself, or a gateway.
        via: IpAddr,
        /// The neighbour's MAC.
        mac: MacAddr,
    },
    /// The next hop of a host does not answer ARP or neighbour discovery. It is solicited again after
    /// [`UNANSWERED_RETRY_MS`].
    Unanswered {
        /// The host.
        remote: IpAddr,
        /// The neighbour: the host itself, or a gateway.
        via: IpAddr,
    },
    /// The kernel has no route to a host from the local address, or its route uses another interface.
    NoRoute {
        /// The host.
        remote: IpAddr,
    },
    /// The interface's link, MAC, MTU or addresses have changed.
    InterfaceChanged(Interface),
    /// The interface was removed. A later one with the same name is another interface.
    InterfaceRemoved,
}

/// A host whose next hop is wanted.
#[derive(Default)]
struct Remote {
    /// The next hop, if there is a route.
    via: Option<IpAddr>,
    /// The event that was reported last.
    last_event: Option<NeighbourEvent>,
    /// Report the next event even if it equals the last one.
    repeat: bool,
}

/// Next hops from one local address, on one interface.
pub struct Neighbours {
    local: IpAddr,
    interface: Interface,
    removed: bool,
    /// For requests and their answers.
    requests: Netlink,
    /// For the kernel's notifications.
    notifications: Netlink,
    remotes: BTreeMap<IpAddr, Remote>,
    /// Neighbours that do not answer, with the time of their last solicitation.
    unanswered: BTreeMap<IpAddr, u32>,
    events: VecDeque<NeighbourEvent>,
    /// The last look-up failed half way: the next one looks up everything.
    incomplete: bool,
}

impl Neighbours {
    /// Opens the next hops of frames from `local`, an address of the kernel's, out of an interface.
    ///
    /// # Errors
    /// There is no such interface, it is not Ethernet, or the system refuses.
    pub fn open(interface: &str, local: IpAddr) -> io::Result<Self> {
        // Subscribes before the first look-up, so that no change is missed in between.
        let notifications = Netlink::open(None, GROUPS)?;
        let requests = Netlink::open(None, 0)?;
        let interface = Interface::read(interface)?;
        Ok(Neighbours {
            local,
            interface,
            removed: false,
            requests,
            notifications,
            remotes: BTreeMap::new(),
            unanswered: BTreeMap::new(),
            events: VecDeque::new(),
            incomplete: false,
        })
    }

    /// The interface, as last reported.
    pub fn interface(&self) -> &Interface {
        &self.interface
    }

    /// Readable when [`poll`](Self::poll) has notifications to process.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.notifications.fd()
    }

    /// Resolves a host's next hop, and keeps the kernel's entry fresh from now on. `now`: milliseconds. What the kernel
    /// already knows becomes an event at once, also if it was reported before.
    ///
    /// # Errors
    /// The kernel did not answer.
    pub fn resolve(&mut self, remote: IpAddr, now: u32) -> io::Result<()> {
        self.remotes.entry(remote).or_default().repeat = true;
        self.look_up_route(remote)?;
        self.look_up_neighbour(remote, now)
    }

    /// Forgets the hosts for which `keep` returns false.
    pub fn retain(&mut self, mut keep: impl FnMut(IpAddr) -> bool) {
        self.remotes.retain(|remote, _| keep(*remote));
        self.forget_unused();
    }

    fn forget_unused(&mut self) {
        let used: BTreeSet<IpAddr> = self.remotes.values().filter_map(|remote| remote.via).collect();
        self.unanswered.retain(|via, _| used.contains(via));
    }

    /// The events since the last call.
    ///
    /// # Errors
    /// The kernel did not answer. The next call looks up everything again.
    pub fn poll(&mut self, now: u32) -> io::Result<Vec<NeighbourEvent>> {
        let mut changes = self.read_notifications();
        if std::mem::replace(&mut self.incomplete, true) {
            changes = Changes::everything();
        }
        self.look_up(&changes, now)?;
        self.incomplete = false;
        if self.unanswered.values().any(|since| is_due(*since, now)) {
            self.forget_unused();
            let due = self.unanswered.iter().filter(|(_, since)| is_due(**since, now)).map(|(via, _)| *via);
            for via in due.collect::<Vec<_>>() {
                self.unanswered.insert(via, now);
                self.solicit(via);
            }
        }
        Ok(self.events.drain(..).collect())
    }

    /// Milliseconds until the next call of [`poll`](Self::poll) is due without a notification, at most `max`.
    pub fn timeout(&self, now: u32, max: u32) -> u32 {
        if !self.events.is_empty() {
            return 0;
        }
        let left = |since: &u32| UNANSWERED_RETRY_MS.saturating_sub(now.wrapping_sub(*since));
        self.unanswered.values().map(left).min().unwrap_or(max).min(max)
    }

    /// Reads all notifications that are queued.
    fn read_notifications(&mut self) -> Changes {
        let mut changes = Changes::default();
        loop {
            match self.notifications.receive() {
                Ok(Some(messages)) => {
                    for message in messages {
                        match NetlinkMessage::<RouteNetlinkMessage>::deserialize(message).map(|m| m.payload) {
                            Ok(NetlinkPayload::InnerMessage(message)) => {
                                changes.add(message, self.interface.index);
                            }
                            Ok(_) => {}
                            Err(_) => changes = Changes::everything(),
                        }
                    }
                }
                Ok(None) => return changes,
                // The socket's queue overflowed.
                Err(_) => changes = Changes::everything(),
            }
        }
    }

    /// Looks up what may have changed.
    fn look_up(&mut self, changes: &Changes, now: u32) -> io::Result<()> {
        if self.removed {
            return Ok(());
        }
        let mut all = changes.all_routes;
        if changes.interface {
            match Interface::by_index(&mut self.requests, self.interface.index) {
                Ok(interface) if interface != self.interface => {
                    if interface.up && !self.interface.up {
                        // Solicitations were not sent while the link was down.
                        self.unanswered.clear();
                    }
                    all = true;
                    self.interface = interface.clone();
                    self.events.push_back(NeighbourEvent::InterfaceChanged(interface));
                }
                Ok(_) => {}
                Err(error) if Errno::from_io_error(&error) == Some(Errno::NODEV) => {
                    self.removed = true;
                    self.events.push_back(NeighbourEvent::InterfaceRemoved);
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        let route_changed = |addr: IpAddr| all || changes.concern_route_to(addr);
        let changed = self
            .remotes
            .iter()
            .map(|(addr, remote)| (*addr, route_changed(*addr), remote.via))
            .filter(|(_, route, via)| *route || via.is_some_and(|via| changes.neighbours.contains(&via)))
            .collect::<Vec<_>>();
        for (remote, route, _) in changed {
            if route {
                self.look_up_route(remote)?;
            }
            self.look_up_neighbour(remote, now)?;
        }
        Ok(())
    }

    /// Looks up the route to a host.
    fn look_up_route(&mut self, addr: IpAddr) -> io::Result<()> {
        let route = route::lookup(&mut self.requests, self.local, addr)?;
        let via = route.filter(|route| route.interface == self.interface.index).map(|route| route.via);
        if let Some(remote) = self.remotes.get_mut(&addr) {
            remote.via = via;
        }
        Ok(())
    }

    /// Looks up the neighbour entry of a host's next hop, and has the kernel solicit it where necessary.
    fn look_up_neighbour(&mut self, addr: IpAddr, now: u32) -> io::Result<()> {
        let Some(via) = self.remotes.get(&addr).and_then(|remote| remote.via) else {
            self.report(addr, NeighbourEvent::NoRoute { remote: addr });
            return Ok(());
        };
        let entry = neighbour_entry::get(&mut self.requests, self.interface.index, via)?;
        match entry {
            NeighbourEntry::Valid(mac) | NeighbourEntry::Stale(mac) => {
                self.unanswered.remove(&via);
                if entry == NeighbourEntry::Stale(mac) {
                    // The MAC stays in use even if it cannot be confirmed.
                    self.solicit(via);
                }
                self.report(addr, NeighbourEvent::Resolved { remote: addr, via, mac });
            }
            NeighbourEntry::Incomplete => {}
            // The kernel removes failed entries. That is no reason to solicit before the retry is due.
            NeighbourEntry::None if self.unanswered.contains_key(&via) => {}
            NeighbourEntry::None if self.solicit(via) => {}
            NeighbourEntry::None | NeighbourEntry::Failed => {
                let repeated = self.unanswered.contains_key(&via);
                self.unanswered.entry(via).or_insert(now);
                if !repeated && self.is_resolved(addr, via) && self.solicit(via) {
                    // The kernel had probed the old MAC only. It now broadcasts once, before the neighbour is reported.
                    return Ok(());
                }
                self.report(addr, NeighbourEvent::Unanswered { remote: addr, via });
            }
        }
        Ok(())
    }

    /// Whether the last event about a host was that it is resolved by this neighbour.
    fn is_resolved(&self, addr: IpAddr, by: IpAddr) -> bool {
        let last = self.remotes.get(&addr).and_then(|remote| remote.last_event.as_ref());
        matches!(last, Some(NeighbourEvent::Resolved { via, .. }) if *via == by)
    }

    /// Has the kernel solicit a neighbour. `false`: it refuses, because its table is full or the interface is going away.
    fn solicit(&mut self, via: IpAddr) -> bool {
        let solicited = neighbour_entry::solicit(&mut self.requests, self.interface.index, via);
        if let Err(error) = &solicited {
            tracing::debug!(neighbour = %via, %error, "the kernel does not solicit a next hop");
        }
        solicited.is_ok()
    }

    /// Queues an event if it is new.
    fn report(&mut self, addr: IpAddr, event: NeighbourEvent) {
        if let Some(remote) = self.remotes.get_mut(&addr)
            && (remote.repeat || remote.last_event.as_ref() != Some(&event))
        {
            remote.repeat = false;
            remote.last_event = Some(event.clone());
            self.events.push_back(event);
        }
    }
}

fn is_due(since: u32, now: u32) -> bool {
    now.wrapping_sub(since) >= UNANSWERED_RETRY_MS
}
