//! What the slow path's thread publishes of itself, so that whoever looks does not make it stop.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use culvert_packet::{Reason, VportId};

use crate::counters::Counters;
use crate::rule_hits::RuleHits;
use crate::underlay::ServedAddress;

/// The slow path as it was when it last gave the NIC commands, or last woke.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// Number of connections.
    pub connections: usize,
    /// Limit of that number.
    pub max_connections: usize,
    /// Counters.
    pub counters: Counters,
    /// Packets at the host that were lost in restarts of the firmware.
    pub lost_in_restarts: u64,
    /// Our provider addresses with the uplinks that serve them.
    pub addresses: Vec<ServedAddress>,
}

/// A place that is written by the thread and read by others.
#[derive(Clone, Debug, Default)]
pub(crate) struct Place<T>(Arc<Mutex<T>>);

impl<T> Place<T> {
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Packets that the slow path itself dropped, by the vport that sent them and the reason.
pub(crate) type VportDrops = HashMap<(VportId, Reason), u64>;

/// What the thread publishes of itself.
#[derive(Clone)]
pub(crate) struct Views {
    pub(crate) published: Place<Published>,
    pub(crate) drops: Place<VportDrops>,
    pub(crate) hits: RuleHits,
}
