//! What the thread says of itself: on demand, or published for whoever looks.

use super::SlowPathThread;
use crate::command::Status;
use crate::policy::Policy as _;
use crate::published::{Place, Published, VportDrops};
use crate::rule_hits::RuleHits;

impl SlowPathThread {
    pub(super) fn status(&mut self) -> Status {
        Status {
            next_hops: self.engine.next_hops(),
            addresses: self.engine.addresses(),
            links: self.engine.links(),
            connections: self.engine.policy().connections(),
            counters: self.engine.counters(),
            lost_in_restarts: self.lost_in_restarts,
            is_recovering: self.nic_state.is_recovering(),
        }
    }

    /// What the thread publishes.
    pub(crate) fn published(&self) -> Place<Published> {
        self.published.clone()
    }

    /// Dropped packets of vports.
    pub(crate) fn vport_drops(&self) -> Place<VportDrops> {
        self.engine.vport_drops.clone()
    }

    /// How often each rule decided.
    pub(crate) fn hits(&mut self) -> RuleHits {
        self.engine.policy().hits()
    }

    /// Publishes what changes with each packet.
    pub(super) fn publish(&mut self) {
        let connections = self.engine.policy().connections();
        let mut published = self.published.lock();
        published.connections = connections;
        published.counters = self.engine.counters();
        published.lost_in_restarts = self.lost_in_restarts;
    }

    /// Publishes what changes with the policy and the links.
    pub(super) fn publish_addresses(&mut self) {
        self.published.lock().addresses = self.engine.addresses();
    }
}
