//! Watches a host's next hops, in a network of two hosts.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use culvert_netlink::{Interface, NeighbourEvent, Neighbours};
use culvert_packet::MacAddr;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::Timespec;

use crate::namespace::{Namespace, TIMEOUT};

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Two hosts on one link: `eth0` of `here` has 192.0.2.1 and 2001:db8::1, `far` of `there` the addresses that end in 2.
pub(crate) fn network() -> (Namespace, Namespace) {
    let (here, there) = (Namespace::new(), Namespace::new());
    here.connect("eth0", &there, "far");
    here.run("ip addr add 192.0.2.1/24 dev eth0");
    here.run("ip addr add 2001:db8::1/64 dev eth0");
    there.run("ip addr add 192.0.2.2/24 dev far");
    there.run("ip addr add 2001:db8::2/64 dev far");
    // Three unanswered solicitations take a second each otherwise.
    here.run("sysctl -qw net.ipv4.neigh.eth0.retrans_time_ms=100 net.ipv6.neigh.eth0.retrans_time_ms=100");
    (here, there)
}

/// MAC of an interface.
pub(crate) fn mac(namespace: &Namespace, interface: &'static str) -> MacAddr {
    namespace.within(move || Interface::read(interface).unwrap().mac)
}

/// The next hops of `here`.
pub(crate) struct Watch {
    pub(crate) neighbours: Neighbours,
    start: Instant,
    /// Milliseconds that were skipped.
    skipped: u32,
    /// Events that no test has taken yet.
    events: VecDeque<NeighbourEvent>,
}

impl Watch {
    pub(crate) fn open(here: &Namespace, local: &str) -> Self {
        let local = ip(local);
        let neighbours = here.within(move || Neighbours::open("eth0", local).unwrap());
        Watch { neighbours, start: Instant::now(), skipped: 0, events: VecDeque::new() }
    }

    /// Its time.
    pub(crate) fn now(&self) -> u32 {
        self.start.elapsed().as_millis() as u32 + self.skipped
    }

    /// Polls until nothing is left to do.
    pub(crate) fn settle(&mut self) {
        let end = Instant::now() + TIMEOUT;
        loop {
            let now = self.now();
            self.events.extend(self.neighbours.poll(now).unwrap());
            if self.neighbours.timeout(self.now(), u32::MAX) == u32::MAX {
                return;
            }
            assert!(Instant::now() < end, "never settles");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Lets time pass.
    pub(crate) fn skip(&mut self, milliseconds: u32) {
        self.skipped += milliseconds;
    }

    pub(crate) fn resolve(&mut self, remote: &str) {
        let now = self.now();
        self.neighbours.resolve(ip(remote), now).unwrap();
    }

    /// The events until now that no test has taken yet.
    pub(crate) fn poll(&mut self) -> Vec<NeighbourEvent> {
        let now = self.now();
        self.events.extend(self.neighbours.poll(now).unwrap());
        self.events.drain(..).collect()
    }

    /// Sleeps on the file descriptor, as a caller does, until an event fulfils `this`.
    pub(crate) fn until(&mut self, what: &str, this: impl Fn(&NeighbourEvent) -> bool) -> NeighbourEvent {
        let end = Instant::now() + TIMEOUT;
        let mut others = Vec::new();
        loop {
            let now = self.now();
            self.events.extend(self.neighbours.poll(now).unwrap());
            while let Some(event) = self.events.pop_front() {
                if this(&event) {
                    return event;
                }
                others.push(event);
            }
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "never: {what}; but {others:?}");
            let sleep = self.neighbours.timeout(self.now(), left.as_millis() as u32);
            let time =
                Timespec { tv_sec: i64::from(sleep / 1000), tv_nsec: i64::from(sleep % 1000) * 1_000_000 };
            let fd = self.neighbours.fd(self.now());
            let mut fds: Vec<_> =
                fd.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).into_iter().collect();
            poll(&mut fds, Some(&time)).unwrap();
        }
    }

    /// Waits until a host is resolved to a neighbour and its MAC.
    pub(crate) fn expect_resolved(&mut self, remote: &str, via: &str, mac: MacAddr) {
        let expected = NeighbourEvent::Resolved { remote: ip(remote), via: ip(via), mac };
        self.until(&format!("{expected:?}"), |event| *event == expected);
    }

    /// Waits until a host's next hop is reported as unanswered.
    pub(crate) fn expect_unanswered(&mut self, remote: &str, via: &str) {
        let expected = NeighbourEvent::Unanswered { remote: ip(remote), via: ip(via) };
        self.until(&format!("{expected:?}"), |event| *event == expected);
    }

    /// Waits until a host is reported to have no route.
    pub(crate) fn expect_no_route(&mut self, remote: &str) {
        let expected = NeighbourEvent::NoRoute { remote: ip(remote) };
        self.until(&format!("{expected:?}"), |event| *event == expected);
    }

    /// Waits until the interface fulfils `this`.
    pub(crate) fn expect_interface(&mut self, what: &str, this: impl Fn(&Interface) -> bool) {
        self.until(
            what,
            |event| matches!(event, NeighbourEvent::InterfaceChanged(interface) if this(interface)),
        );
    }
}
