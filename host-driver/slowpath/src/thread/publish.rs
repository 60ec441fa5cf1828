//! What the thread says of itself: on demand, or published for whoever looks.

use crate::command::Status;
use crate::engine::Engine;
use crate::host_policy::HostPolicy;
use crate::policy::Policy as _;
use crate::published::{Place, Published};

/// The engine's state. The thread itself knows whether the NIC recovers, and what was lost when it restarted.
pub(super) fn status(engine: &mut Engine<HostPolicy>, is_recovering: bool, lost_in_restarts: u64) -> Status {
    Status {
        next_hops: engine.next_hops(),
        addresses: engine.addresses(),
        links: engine.links(),
        connections: engine.policy().connections(),
        counters: engine.counters(),
        lost_in_restarts,
        is_recovering,
    }
}

/// Publishes what changes with each packet.
pub(super) fn publish(place: &Place<Published>, engine: &mut Engine<HostPolicy>, lost_in_restarts: u64) {
    let connections = engine.policy().connections();
    let mut published = place.lock();
    published.connections = connections;
    published.counters = engine.counters();
    published.lost_in_restarts = lost_in_restarts;
}

/// Publishes what changes with the policy and the links.
pub(super) fn publish_addresses(place: &Place<Published>, engine: &Engine<HostPolicy>) {
    place.lock().addresses = engine.addresses();
}
