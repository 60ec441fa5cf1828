//! Resolves next hops with the kernel's routes and neighbour table: which neighbour gets the frames for a host, and its MAC.
//!
//! A notification may be outdated when it is read, or lost. So it only marks what to look up again: every reported event
//! comes from an answer of the kernel's, not from a notification.
//!
//! Routes may flap thousands of times a second. Neither memory nor the share of a processor that this takes grows with them:
//! notifications are read and look-ups made in rounds, each of limited size and with a pause behind it. What is marked twice is
//! looked up once. Notifications for which the socket has no room mark everything.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::IpAddr;
use std::ops::Bound::{Excluded, Unbounded};
use std::os::fd::BorrowedFd;

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use rustix::io::Errno;

use crate::changes::Changes;
use crate::interface::Interface;
use crate::neighbour_entry::{self, NeighbourEntry};
use crate::neighbour_event::NeighbourEvent;
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
/// Milliseconds from the begin of a round to that of the next one, at least.
const ROUND_MS: u32 = 5;
/// The same after a round that failed.
const FAILED_ROUND_MS: u32 = 100;
/// Notifications read in a round; a datagram's others are read with it.
const MAX_NOTIFICATIONS: usize = 256;
/// Hosts looked up in a round.
const MAX_LOOK_UPS: usize = 32;

const fn group(number: libc::c_uint) -> u32 {
    1 << (number - 1)
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

/// What to look up for a host.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum LookUp {
    /// The neighbour entry of its next hop.
    Neighbour,
    /// Its route, then the neighbour entry.
    Route,
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
    /// Hosts that are marked.
    marked: BTreeMap<IpAddr, LookUp>,
    /// The host that was looked up last: the next one follows it, so that none waits for ever.
    last: Option<IpAddr>,
    /// The interface is marked.
    interface_marked: bool,
    /// When the next round may begin. `None`: at once.
    next_round: Option<u32>,
    look_ups: u64,
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
            marked: BTreeMap::new(),
            last: None,
            interface_marked: false,
            next_round: None,
            look_ups: 0,
        })
    }

    /// The interface, as last reported.
    pub fn interface(&self) -> &Interface {
        &self.interface
    }

    /// Readable when [`poll`](Self::poll) has notifications to process. `None`: it would not process them yet, see
    /// [`timeout`](Self::timeout).
    pub fn fd(&self, now: u32) -> Option<BorrowedFd<'_>> {
        (self.pause(now) == 0).then(|| self.notifications.fd())
    }

    /// How often the kernel was asked for the next hop of a host.
    pub fn look_ups(&self) -> u64 {
        self.look_ups
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
        self.marked.retain(|remote, _| self.remotes.contains_key(remote));
        self.forget_unused();
    }

    fn forget_unused(&mut self) {
        let used: BTreeSet<IpAddr> = self.remotes.values().filter_map(|remote| remote.via).collect();
        self.unanswered.retain(|via, _| used.contains(via));
    }

    /// The events since the last call.
    ///
    /// # Errors
    /// The kernel did not answer. Later calls look up again what is missing.
    pub fn poll(&mut self, now: u32) -> io::Result<Vec<NeighbourEvent>> {
        if self.pause(now) == 0 {
            let result = self.round(now);
            let pause = match &result {
                Ok(true) => Some(ROUND_MS),
                Ok(false) => None,
                Err(_) => Some(FAILED_ROUND_MS),
            };
            self.next_round = pause.map(|ms| now.wrapping_add(ms));
            result?;
        }
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
        let pause = match self.pause(now) {
            0 if self.marked.is_empty() && !self.interface_marked => max,
            pause => pause,
        };
        let left = |since: &u32| UNANSWERED_RETRY_MS.saturating_sub(now.wrapping_sub(*since));
        self.unanswered.values().map(left).min().unwrap_or(max).min(pause).min(max)
    }

    /// Milliseconds until the next round may begin.
    fn pause(&self, now: u32) -> u32 {
        let left = self.next_round.map_or(0, |at| at.wrapping_sub(now));
        // It began in the past if the difference has wrapped.
        if left > FAILED_ROUND_MS { 0 } else { left }
    }

    /// Reads notifications, and looks up what is marked. `false`: there was nothing to do.
    fn round(&mut self, now: u32) -> io::Result<bool> {
        let (changes, any) = self.read_notifications();
        if self.removed {
            return Ok(false);
        }
        self.mark(&changes);
        let any = any || self.interface_marked || !self.marked.is_empty();
        if self.interface_marked {
            self.look_up_interface()?;
            self.interface_marked = false;
        }
        for _ in 0..MAX_LOOK_UPS {
            let Some((addr, what)) = self.next_marked() else { break };
            if what == LookUp::Route {
                self.look_up_route(addr)?;
            }
            self.look_up_neighbour(addr, now)?;
            self.marked.remove(&addr);
        }
        Ok(any)
    }

    /// Reads a round's notifications. Returns whether there was one.
    fn read_notifications(&mut self) -> (Changes, bool) {
        let (mut changes, mut count) = (Changes::default(), 0);
        while count < MAX_NOTIFICATIONS {
            match self.notifications.receive() {
                Ok(Some(messages)) => {
                    for message in messages {
                        count += 1;
                        match NetlinkMessage::<RouteNetlinkMessage>::deserialize(message).map(|m| m.payload) {
                            Ok(NetlinkPayload::InnerMessage(message)) => {
                                changes.add(&message, self.interface.index);
                            }
                            Ok(_) => {}
                            Err(_) => changes.add_unknown(message),
                        }
                    }
                }
                Ok(None) => break,
                // The socket's queue overflowed.
                Err(_) => {
                    count += 1;
                    changes.add_everything();
                }
            }
        }
        (changes, count > 0)
    }

    /// Marks what may have changed.
    fn mark(&mut self, changes: &Changes) {
        self.interface_marked |= changes.interface;
        for range in changes.routes() {
            self.marked.extend(self.remotes.range(range).map(|(addr, _)| (*addr, LookUp::Route)));
        }
        if !changes.neighbours.is_empty() {
            let is_changed =
                |remote: &Remote| remote.via.is_some_and(|via| changes.neighbours.contains(&via));
            for (addr, _) in self.remotes.iter().filter(|(_, remote)| is_changed(remote)) {
                self.marked.entry(*addr).or_insert(LookUp::Neighbour);
            }
        }
    }

    /// The marked host that is next.
    fn next_marked(&mut self) -> Option<(IpAddr, LookUp)> {
        let behind = self.last.and_then(|last| self.marked.range((Excluded(last), Unbounded)).next());
        let next = behind.or_else(|| self.marked.first_key_value()).map(|(addr, what)| (*addr, *what));
        self.last = next.map(|(addr, _)| addr);
        next
    }

    /// Looks up the interface, and marks the hosts whose routes may have changed with it.
    fn look_up_interface(&mut self) -> io::Result<()> {
        match Interface::by_index(&mut self.requests, self.interface.index) {
            Ok(interface) if interface != self.interface => {
                if interface.up && !self.interface.up {
                    // Solicitations were not sent while the link was down.
                    self.unanswered.clear();
                }
                self.mark(&Changes::of_interface(&self.interface, &interface));
                self.interface = interface.clone();
                self.events.push_back(NeighbourEvent::InterfaceChanged(interface));
            }
            Ok(_) => {}
            Err(error) if Errno::from_io_error(&error) == Some(Errno::NODEV) => {
                self.removed = true;
                self.marked.clear();
                self.events.push_back(NeighbourEvent::InterfaceRemoved);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Looks up the route to a host.
    fn look_up_route(&mut self, addr: IpAddr) -> io::Result<()> {
        self.look_ups += 1;
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
