//! Next hops as the kernel has them: which neighbour gets the frames for another host, and its MAC.
//!
//! What the kernel tells by itself may be old when it is read, and some of it may be lost. So it only says where to look:
//! what is reported is always what the kernel answers when it is asked then.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;

use culvert_packet::MacAddr;
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage as Message;
use netlink_packet_route::route::RouteMessage;
use rustix::io::Errno;

use crate::interface::Interface;
use crate::neighbour::{self, Entry};
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
pub const SILENT_RETRY_MS: u32 = 5000;

const fn group(number: libc::c_uint) -> u32 {
    1 << (number - 1)
}

/// What has been found out. Of each host and of the interface only the last one counts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// Frames for a host go to this MAC.
    Reached {
        /// The host that was asked for.
        remote: IpAddr,
        /// The neighbour: the host itself, or a gateway.
        via: IpAddr,
        /// The neighbour's MAC.
        mac: MacAddr,
    },
    /// The neighbour on the way to a host does not answer. It is asked again.
    Silent {
        /// The host that was asked for.
        remote: IpAddr,
        /// The neighbour.
        via: IpAddr,
    },
    /// The kernel has no route to a host from our address, or one that leads elsewhere than out of our interface.
    NoRoute {
        /// The host that was asked for.
        remote: IpAddr,
    },
    /// The interface is now so: its link, its MAC, its MTU or its addresses have changed.
    Interface(Interface),
    /// The interface is gone for good. One that gets its name is another one.
    Gone,
}

/// A host that was asked for.
#[derive(Default)]
struct Remote {
    /// The neighbour on the way.
    via: Option<IpAddr>,
    /// What was said of it last.
    said: Option<Event>,
    /// It is to be said once more.
    again: bool,
}

/// Next hops from one of our addresses, on one interface.
pub struct Neighbours {
    local: IpAddr,
    interface: Interface,
    gone: bool,
    questions: Netlink,
    told: Netlink,
    remotes: BTreeMap<IpAddr, Remote>,
    /// Neighbours that do not answer, with the time when they were asked last.
    silent: BTreeMap<IpAddr, u32>,
    events: VecDeque<Event>,
    /// A look was broken off: everything has to be looked at.
    behind: bool,
}

/// Where to look.
#[derive(Default)]
struct Hints {
    interface: bool,
    all_routes: bool,
    routes: Vec<RouteMessage>,
    neighbours: BTreeSet<IpAddr>,
}

impl Hints {
    fn everything() -> Self {
        Hints { interface: true, all_routes: true, ..Hints::default() }
    }
}

impl Neighbours {
    /// For frames from `local`, an address of the kernel's, out of an interface.
    ///
    /// # Errors
    /// There is no such interface, it is no Ethernet, or the system refuses.
    pub fn open(interface: &str, local: IpAddr) -> io::Result<Self> {
        // Before the first look, so that no change falls in between.
        let told = Netlink::open(None, GROUPS)?;
        let questions = Netlink::open(None, 0)?;
        let interface = Interface::read(interface)?;
        Ok(Neighbours {
            local,
            interface,
            gone: false,
            questions,
            told,
            remotes: BTreeMap::new(),
            silent: BTreeMap::new(),
            events: VecDeque::new(),
            behind: false,
        })
    }

    /// The interface, as last reported.
    pub fn interface(&self) -> &Interface {
        &self.interface
    }

    /// Readable when [`poll`](Self::poll) has something to do, apart from passing time.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.told.fd()
    }

    /// A host's next hop is needed from now on, which keeps the kernel's knowledge of it fresh. `now`: milliseconds. What
    /// is known by now is among the events at once; if it was asked for before, it is said again.
    ///
    /// # Errors
    /// The kernel did not answer.
    pub fn ask(&mut self, remote: IpAddr, now: u32) -> io::Result<()> {
        self.remotes.entry(remote).or_default().again = true;
        self.find_way(remote)?;
        self.find_neighbour(remote, now)
    }

    /// Forgets the hosts that are not needed any more.
    pub fn retain(&mut self, mut keep: impl FnMut(IpAddr) -> bool) {
        self.remotes.retain(|remote, _| keep(*remote));
        self.forget_unused();
    }

    fn forget_unused(&mut self) {
        let used: BTreeSet<IpAddr> = self.remotes.values().filter_map(|remote| remote.via).collect();
        self.silent.retain(|via, _| used.contains(via));
    }

    /// What has happened since.
    ///
    /// # Errors
    /// The kernel did not answer. What was not looked at is looked at the next time.
    pub fn poll(&mut self, now: u32) -> io::Result<Vec<Event>> {
        let mut hints = self.listen();
        if std::mem::replace(&mut self.behind, true) {
            hints = Hints::everything();
        }
        self.follow(&hints, now)?;
        self.behind = false;
        if self.silent.values().any(|since| is_due(*since, now)) {
            self.forget_unused();
            let due = self.silent.iter().filter(|(_, since)| is_due(**since, now)).map(|(via, _)| *via);
            for via in due.collect::<Vec<_>>() {
                self.silent.insert(via, now);
                self.touch(via);
            }
        }
        Ok(self.events.drain(..).collect())
    }

    /// Milliseconds until [`poll`](Self::poll) has something to do even if nothing happens, at most `most`.
    pub fn next(&self, now: u32, most: u32) -> u32 {
        if !self.events.is_empty() {
            return 0;
        }
        let left = |since: &u32| SILENT_RETRY_MS.saturating_sub(now.wrapping_sub(*since));
        self.silent.values().map(left).min().unwrap_or(most).min(most)
    }

    /// Takes all that the kernel has told.
    fn listen(&mut self) -> Hints {
        let mut hints = Hints::default();
        loop {
            match self.told.receive() {
                Ok(Some(messages)) => {
                    for message in messages {
                        let message = NetlinkMessage::<Message>::deserialize(message).map(|m| m.payload);
                        match message {
                            Ok(NetlinkPayload::InnerMessage(message)) => {
                                hints.take(message, self.interface.index);
                            }
                            Ok(_) => {}
                            Err(_) => hints = Hints::everything(),
                        }
                    }
                }
                Ok(None) => return hints,
                // Something was lost.
                Err(_) => hints = Hints::everything(),
            }
        }
    }

    /// Looks at what may have changed.
    fn follow(&mut self, hints: &Hints, now: u32) -> io::Result<()> {
        if self.gone {
            return Ok(());
        }
        let mut all = hints.all_routes;
        if hints.interface {
            match Interface::of(&mut self.questions, self.interface.index) {
                Ok(interface) if interface != self.interface => {
                    if interface.up && !self.interface.up {
                        // Who did not answer meanwhile has not been asked.
                        self.silent.clear();
                    }
                    all = true;
                    self.interface = interface.clone();
                    self.events.push_back(Event::Interface(interface));
                }
                Ok(_) => {}
                Err(error) if Errno::from_io_error(&error) == Some(Errno::NODEV) => {
                    self.gone = true;
                    self.events.push_back(Event::Gone);
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        let changed = |remote: &Remote, addr: IpAddr| {
            all || hints.routes.iter().any(|route| route::concerns(route, addr))
                || remote.via.is_some_and(|via| hints.neighbours.contains(&via))
        };
        let look: Vec<IpAddr> = self
            .remotes
            .iter()
            .filter(|(addr, remote)| changed(remote, **addr))
            .map(|(addr, _)| *addr)
            .collect();
        for remote in look {
            if all || hints.routes.iter().any(|route| route::concerns(route, remote)) {
                self.find_way(remote)?;
            }
            self.find_neighbour(remote, now)?;
        }
        Ok(())
    }

    /// Asks for the route to a host.
    fn find_way(&mut self, addr: IpAddr) -> io::Result<()> {
        let route = route::lookup(&mut self.questions, self.local, addr)?;
        let via = route.filter(|route| route.interface == self.interface.index).map(|route| route.via);
        if let Some(remote) = self.remotes.get_mut(&addr) {
            remote.via = via;
        }
        Ok(())
    }

    /// Looks at the neighbour on the way to a host, and has the kernel do what is missing.
    fn find_neighbour(&mut self, addr: IpAddr, now: u32) -> io::Result<()> {
        let Some(via) = self.remotes.get(&addr).and_then(|remote| remote.via) else {
            self.say(addr, Event::NoRoute { remote: addr });
            return Ok(());
        };
        let entry = neighbour::look(&mut self.questions, self.interface.index, via)?;
        match entry {
            Entry::Known(mac) | Entry::Stale(mac) => {
                self.silent.remove(&via);
                if entry == Entry::Stale(mac) {
                    // It stays in use if it cannot be confirmed.
                    self.touch(via);
                }
                self.say(addr, Event::Reached { remote: addr, via, mac });
            }
            Entry::Asking => {}
            // The kernel throws away entries that have failed. That is no reason to ask again before it is time.
            Entry::Unknown if self.silent.contains_key(&via) => {}
            Entry::Unknown if self.touch(via) => {}
            Entry::Unknown | Entry::Failed => {
                let again = self.silent.contains_key(&via);
                self.silent.entry(via).or_insert(now);
                if !again && self.is_reached(addr, via) && self.touch(via) {
                    // It was only asked at the MAC that it had: now all are asked, once, before it counts as silent.
                    return Ok(());
                }
                self.say(addr, Event::Silent { remote: addr, via });
            }
        }
        Ok(())
    }

    /// Whether this was said last of a host.
    fn is_reached(&self, addr: IpAddr, by: IpAddr) -> bool {
        let said = self.remotes.get(&addr).and_then(|remote| remote.said.as_ref());
        matches!(said, Some(Event::Reached { via, .. }) if *via == by)
    }

    /// Whether the kernel asks. It does not if its table is full or the interface is just going.
    fn touch(&mut self, via: IpAddr) -> bool {
        let touched = neighbour::touch(&mut self.questions, self.interface.index, via);
        if let Err(error) = &touched {
            tracing::debug!(neighbour = %via, %error, "the kernel does not ask for a next hop");
        }
        touched.is_ok()
    }

    /// Reports what is new.
    fn say(&mut self, addr: IpAddr, event: Event) {
        if let Some(remote) = self.remotes.get_mut(&addr)
            && (remote.again || remote.said.as_ref() != Some(&event))
        {
            remote.again = false;
            remote.said = Some(event.clone());
            self.events.push_back(event);
        }
    }
}

impl Hints {
    fn take(&mut self, message: Message, index: u32) {
        match message {
            Message::NewNeighbour(message) | Message::DelNeighbour(message) => {
                let subject = neighbour::subject(&message).filter(|(interface, _)| *interface == index);
                self.neighbours.extend(subject.map(|(_, addr)| addr));
            }
            Message::NewRoute(route) | Message::DelRoute(route) => self.routes.push(route),
            Message::NewLink(message) | Message::DelLink(message) => {
                self.interface |= message.header.index == index;
            }
            Message::NewAddress(message) | Message::DelAddress(message) => {
                self.interface |= message.header.index == index;
            }
            // Rules, and next hop objects, of which this crate knows nothing.
            _ => self.all_routes = true,
        }
    }
}

fn is_due(since: u32, now: u32) -> bool {
    now.wrapping_sub(since) >= SILENT_RETRY_MS
}
