//! Next hops of the PA network: a state machine that resolves their MACs and holds packets until they are known.
//!
//! It sends nothing and has no clock: time is an argument, and what the caller must do comes back as [`Action`]s, in order.
//!
//! 1. *Resolving*: an ARP request goes to all once a second; packets for the hop are held, in order.
//! 2. *Resolved*: a request goes out every minute, first to the known MAC. A hop that stops answering keeps its MAC: a
//!    wrong MAC costs no more than none.
//! 3. *Unreachable*: it never answered. Held packets are dropped; requests go out at a lower rate.

use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv4Addr;

use culvert_netlink::UNANSWERED_RETRY_MS;
use culvert_packet::MacAddr;

use crate::timer::elapsed_ms;

/// Milliseconds between two requests for an unknown MAC.
const RETRY_MS: u32 = 1000;
/// Requests without an answer after which a hop is unreachable.
const MAX_TRIES: u32 = 5;
/// Milliseconds after which a known MAC is checked.
const REFRESH_MS: u32 = 60_000;
/// Packets that one hop holds at most.
const MAX_HELD: usize = 512;

/// A next hop: its address, and the provider address that it is reached from.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NextHopId {
    /// Number of our provider address.
    pub pa: u8,
    /// The next hop's address.
    pub addr: Ipv4Addr,
}

/// Whether a next hop's MAC is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NextHopState {
    /// Requests are out, and none is answered yet.
    Resolving,
    /// The hop has this MAC.
    Resolved(MacAddr),
    /// The hop does not answer.
    Unreachable,
}

/// What the caller has to do for a next hop.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Action<T> {
    /// Send an ARP request to this MAC; `None`: to all.
    SendRequest(NextHopId, Option<MacAddr>),
    /// The hop has this MAC, new or changed: write its tunnels, then process the held packets.
    Resolved(NextHopId, MacAddr, Vec<T>),
    /// The hop does not answer: drop the held packets.
    Unreachable(NextHopId, Vec<T>),
}

struct Hop<T> {
    state: NextHopState,
    /// Requests since the last answer.
    tries: u32,
    /// When the last request was sent or, if none is open, when the last answer came.
    since: u32,
    held: VecDeque<T>,
}

/// All next hops, with the packets that each holds.
pub(crate) struct NextHops<T> {
    hops: BTreeMap<NextHopId, Hop<T>>,
}

impl<T> Default for NextHops<T> {
    fn default() -> Self {
        NextHops { hops: BTreeMap::new() }
    }
}

impl<T> NextHops<T> {
    /// The state of a hop, if it is known.
    pub(crate) fn state(&self, id: NextHopId) -> Option<NextHopState> {
        self.hops.get(&id).map(|hop| hop.state)
    }

    /// All hops with the number of packets that each holds.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (NextHopId, NextHopState, usize)> + '_ {
        self.hops.iter().map(|(id, hop)| (*id, hop.state, hop.held.len()))
    }

    /// Adds a hop and starts to resolve it. A known hop stays as it is.
    pub(crate) fn resolve(&mut self, id: NextHopId, now: u32) -> (NextHopState, Option<Action<T>>) {
        if let Some(hop) = self.hops.get(&id) {
            return (hop.state, None);
        }
        let hop = Hop { state: NextHopState::Resolving, tries: 1, since: now, held: VecDeque::new() };
        self.hops.insert(id, hop);
        (NextHopState::Resolving, Some(Action::SendRequest(id, None)))
    }

    /// Holds a packet until the hop is resolved.
    ///
    /// # Errors
    /// The packet: the hop is not being resolved, or holds too many.
    pub(crate) fn hold(&mut self, id: NextHopId, packet: T) -> Result<(), T> {
        match self.hops.get_mut(&id) {
            Some(hop) if hop.state == NextHopState::Resolving && hop.held.len() < MAX_HELD => {
                hop.held.push_back(packet);
                Ok(())
            }
            _ => Err(packet),
        }
    }

    /// Learns a hop's MAC from an answer or an announcement. Hops that nothing needs are not learned.
    pub(crate) fn learn(&mut self, id: NextHopId, mac: MacAddr, now: u32) -> Option<Action<T>> {
        let hop = self.hops.get_mut(&id).filter(|_| mac.is_unicast())?;
        let before = hop.state;
        hop.state = NextHopState::Resolved(mac);
        hop.tries = 0;
        hop.since = now;
        let held: Vec<T> = std::mem::take(&mut hop.held).into();
        (before != hop.state || !held.is_empty()).then_some(Action::Resolved(id, mac, held))
    }

    /// Ends the resolution of a hop that the kernel cannot reach. A hop with a known MAC keeps it.
    pub(crate) fn fail(&mut self, id: NextHopId, now: u32) -> Option<Action<T>> {
        let hop = self.hops.get_mut(&id).filter(|hop| hop.state == NextHopState::Resolving)?;
        hop.state = NextHopState::Unreachable;
        hop.since = now;
        Some(Action::Unreachable(id, std::mem::take(&mut hop.held).into()))
    }

    /// Sends the requests that are due, and gives up hops that did not answer.
    pub(crate) fn tick(&mut self, now: u32) -> Vec<Action<T>> {
        let mut actions = Vec::new();
        for (&id, hop) in &mut self.hops {
            let due = match hop.state {
                NextHopState::Resolved(_) if hop.tries == 0 => REFRESH_MS,
                NextHopState::Resolving => RETRY_MS,
                NextHopState::Resolved(_) if hop.tries < MAX_TRIES => RETRY_MS,
                NextHopState::Resolved(_) | NextHopState::Unreachable => UNANSWERED_RETRY_MS,
            };
            if elapsed_ms(hop.since, now) < due {
                continue;
            }
            if hop.state == NextHopState::Resolving && hop.tries >= MAX_TRIES {
                hop.state = NextHopState::Unreachable;
                hop.since = now;
                actions.push(Action::Unreachable(id, std::mem::take(&mut hop.held).into()));
                continue;
            }
            // Unicast first: the hop may have missed only one request.
            let to = match hop.state {
                NextHopState::Resolved(mac) if hop.tries < 2 => Some(mac),
                _ => None,
            };
            hop.tries = hop.tries.saturating_add(1);
            hop.since = now;
            actions.push(Action::SendRequest(id, to));
        }
        actions
    }

    /// Milliseconds until [`tick`](Self::tick) must be called, at most `max_ms`.
    pub(crate) fn next_tick_ms(&self, now: u32, max_ms: u32) -> u32 {
        let due = |hop: &Hop<T>| match hop.state {
            NextHopState::Resolving => RETRY_MS.saturating_sub(elapsed_ms(hop.since, now)),
            _ => max_ms,
        };
        self.hops.values().map(due).min().unwrap_or(max_ms).min(max_ms)
    }

    /// Resolves all hops of a provider address again, by broadcast: it has moved to another wire. Known MACs stay in use
    /// until another answer comes.
    pub(crate) fn resolve_again(&mut self, pa: u8, now: u32) -> Vec<Action<T>> {
        let mut actions = Vec::new();
        for (&id, hop) in self.hops.iter_mut().filter(|(id, _)| id.pa == pa) {
            if hop.state == NextHopState::Unreachable {
                hop.state = NextHopState::Resolving;
                hop.tries = 0;
            }
            hop.tries = hop.tries.saturating_add(1).min(MAX_TRIES - 1);
            hop.since = now;
            actions.push(Action::SendRequest(id, None));
        }
        actions
    }

    /// Removes the hops that the policy no longer has. Returns the packets that they held.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(NextHopId) -> bool) -> Vec<T> {
        let gone: Vec<NextHopId> = self.hops.keys().copied().filter(|id| !keep(*id)).collect();
        gone.iter().filter_map(|id| self.hops.remove(id)).flat_map(|hop| hop.held).collect()
    }

    /// Takes all held packets. Packets of different hops come in no particular order.
    pub(crate) fn take_held(&mut self) -> Vec<T> {
        self.hops.values_mut().flat_map(|hop| std::mem::take(&mut hop.held)).collect()
    }
}

#[cfg(test)]
mod tests;
