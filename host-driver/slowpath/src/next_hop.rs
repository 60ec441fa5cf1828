//! Next hops of the PA network: a state machine that asks for their MACs and holds what waits for the answer.
//!
//! It sends nothing and knows no clock: time is an argument, and what is to be done comes back as [`Action`]s, in order.
//!
//! 1. *Resolving*: asked by broadcast once a second; what needs the hop is held, in the order it came.
//! 2. *Resolved*: asked again every minute, at the known MAC first. A hop that stays silent keeps its MAC: a wrong one
//!    costs no more than none.
//! 3. *Silent*: it never answered. What was held is dropped; it is asked again at a lower rate.

use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv4Addr;

use culvert_netlink::UNANSWERED_RETRY_MS;
use culvert_packet::MacAddr;

/// Milliseconds between two questions.
pub const RETRY: u32 = 1000;
/// Questions before a hop counts as silent.
pub const TRIES: u32 = 5;
/// Milliseconds for which an answer is good.
pub const REFRESH: u32 = 60_000;
/// Packets that one hop holds.
pub const HELD: usize = 512;

/// Names a next hop: who asks, and whom.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct HopId {
    /// Number of our provider address.
    pub pa: u8,
    /// The next hop's address.
    pub addr: Ipv4Addr,
}

/// How far a hop is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// It has been asked and has not yet answered.
    Resolving,
    /// It has this MAC.
    Resolved(MacAddr),
    /// It does not answer.
    Silent,
}

/// What the caller has to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action<T> {
    /// Send an ARP request; at this MAC, or to all.
    Ask(HopId, Option<MacAddr>),
    /// The hop has this MAC, or now this one: write its tunnels, then go on with what was held.
    Resolved(HopId, MacAddr, Vec<T>),
    /// The hop does not answer: drop what was held.
    Silent(HopId, Vec<T>),
}

struct Hop<T> {
    state: State,
    /// Questions since the last answer.
    tries: u32,
    /// When it was asked or, if it owes no answer, when it last answered.
    since: u32,
    held: VecDeque<T>,
}

/// All next hops, with what waits for each.
pub struct NextHops<T> {
    hops: BTreeMap<HopId, Hop<T>>,
}

impl<T> Default for NextHops<T> {
    fn default() -> Self {
        NextHops { hops: BTreeMap::new() }
    }
}

impl<T> NextHops<T> {
    /// What is known of a hop.
    pub fn state(&self, id: HopId) -> Option<State> {
        self.hops.get(&id).map(|hop| hop.state)
    }

    /// All hops with the number of packets that each holds.
    pub fn iter(&self) -> impl Iterator<Item = (HopId, State, usize)> + '_ {
        self.hops.iter().map(|(id, hop)| (*id, hop.state, hop.held.len()))
    }

    /// A hop is needed. Asks for it when it is new.
    pub fn want(&mut self, id: HopId, now: u32) -> (State, Option<Action<T>>) {
        if let Some(hop) = self.hops.get(&id) {
            return (hop.state, None);
        }
        let hop = Hop { state: State::Resolving, tries: 1, since: now, held: VecDeque::new() };
        self.hops.insert(id, hop);
        (State::Resolving, Some(Action::Ask(id, None)))
    }

    /// Holds something until the hop is resolved. Gives it back if the hop is not being resolved or holds too much.
    ///
    /// # Errors
    /// The item.
    pub fn hold(&mut self, id: HopId, item: T) -> Result<(), T> {
        match self.hops.get_mut(&id) {
            Some(hop) if hop.state == State::Resolving && hop.held.len() < HELD => {
                hop.held.push_back(item);
                Ok(())
            }
            _ => Err(item),
        }
    }

    /// An answer, or another sign of a station's MAC. Stations that nobody asked for are ignored.
    pub fn heard(&mut self, id: HopId, mac: MacAddr, now: u32) -> Option<Action<T>> {
        let hop = self.hops.get_mut(&id).filter(|_| mac.is_unicast())?;
        let before = hop.state;
        hop.state = State::Resolved(mac);
        hop.tries = 0;
        hop.since = now;
        let held: Vec<T> = std::mem::take(&mut hop.held).into();
        (before != hop.state || !held.is_empty()).then_some(Action::Resolved(id, mac, held))
    }

    /// Somebody else has asked, and got no answer: what is held need not wait any longer.
    pub fn unanswered(&mut self, id: HopId, now: u32) -> Option<Action<T>> {
        let hop = self.hops.get_mut(&id).filter(|hop| hop.state == State::Resolving)?;
        hop.state = State::Silent;
        hop.since = now;
        Some(Action::Silent(id, std::mem::take(&mut hop.held).into()))
    }

    /// Time has passed.
    pub fn tick(&mut self, now: u32) -> Vec<Action<T>> {
        let mut actions = Vec::new();
        for (&id, hop) in &mut self.hops {
            let waited = now.wrapping_sub(hop.since);
            let due = match hop.state {
                State::Resolved(_) if hop.tries == 0 => REFRESH,
                State::Resolving => RETRY,
                State::Resolved(_) if hop.tries < TRIES => RETRY,
                State::Resolved(_) | State::Silent => UNANSWERED_RETRY_MS,
            };
            if waited < due {
                continue;
            }
            if hop.state == State::Resolving && hop.tries >= TRIES {
                hop.state = State::Silent;
                hop.since = now;
                actions.push(Action::Silent(id, std::mem::take(&mut hop.held).into()));
                continue;
            }
            // The known MAC is asked as long as it may only have missed a question.
            let at = match hop.state {
                State::Resolved(mac) if hop.tries < 2 => Some(mac),
                _ => None,
            };
            hop.tries = hop.tries.saturating_add(1);
            hop.since = now;
            actions.push(Action::Ask(id, at));
        }
        actions
    }

    /// Milliseconds until [`tick`](Self::tick) has something to do, at most `most`.
    pub fn next(&self, now: u32, most: u32) -> u32 {
        let due = |hop: &Hop<T>| match hop.state {
            State::Resolving => RETRY.saturating_sub(now.wrapping_sub(hop.since)),
            _ => most,
        };
        self.hops.values().map(due).min().unwrap_or(most).min(most)
    }

    /// An address of ours has moved to another wire: all its hops are asked again, by broadcast. Their MACs stay in use
    /// until another answer comes.
    pub fn moved(&mut self, pa: u8, now: u32) -> Vec<Action<T>> {
        let mut actions = Vec::new();
        for (&id, hop) in self.hops.iter_mut().filter(|(id, _)| id.pa == pa) {
            if hop.state == State::Silent {
                hop.state = State::Resolving;
                hop.tries = 0;
            }
            hop.tries = hop.tries.saturating_add(1).min(TRIES - 1);
            hop.since = now;
            actions.push(Action::Ask(id, None));
        }
        actions
    }

    /// Forgets the hops that the policy no longer has. Returns what they held.
    pub fn retain(&mut self, mut keep: impl FnMut(HopId) -> bool) -> Vec<T> {
        let gone: Vec<HopId> = self.hops.keys().copied().filter(|id| !keep(*id)).collect();
        gone.iter().filter_map(|id| self.hops.remove(id)).flat_map(|hop| hop.held).collect()
    }

    /// Takes everything that is held, in no order across hops.
    pub fn take_held(&mut self) -> Vec<T> {
        self.hops.values_mut().flat_map(|hop| std::mem::take(&mut hop.held)).collect()
    }
}

#[cfg(test)]
mod tests;
