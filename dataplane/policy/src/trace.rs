//! A trace of a packet's way through the layers. Costs nothing where it is not asked for.

use alloc::borrow::ToOwned as _;
use alloc::string::String;
use alloc::vec::Vec;

use culvert_packet::VportId;

/// A layer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Layer {
    /// The packet's port: state, VLAN, source MAC and CA.
    Port,
    /// The provider address that it came from.
    Peer,
    /// Access control lists.
    Acl,
    /// Connection tracking.
    Connection,
    /// Forwarding within the subnet.
    Bridge,
    /// The distributed router.
    Router,
    /// Where the destination is, and how it is carried there.
    Mapping,
}

impl Layer {
    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Layer::Port => "port",
            Layer::Peer => "peer",
            Layer::Acl => "acl",
            Layer::Connection => "connection",
            Layer::Bridge => "bridge",
            Layer::Router => "router",
            Layer::Mapping => "mapping",
        }
    }
}

/// The direction of a list, seen from the virtual machine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum ListDirection {
    /// For packets to it.
    Inbound,
    /// For packets from it.
    Outbound,
}

/// Records each layer that looked at a packet.
pub trait TraceSink {
    /// A layer of a vport (or of the wire) has applied a rule.
    fn step(&mut self, layer: Layer, vport: Option<VportId>, rule: &str, action: &str);

    /// A rule of a list has allowed or denied what was not allowed before: a connection, or a packet that belongs to none.
    #[inline(always)]
    fn decided(&mut self, list: &str, direction: ListDirection, rule: &str) {
        let _ = (list, direction, rule);
    }
}

/// Discards the trace.
impl TraceSink for () {
    #[inline(always)]
    fn step(&mut self, _: Layer, _: Option<VportId>, _: &str, _: &str) {}
}

/// What one layer did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceStep {
    /// The layer.
    pub layer: Layer,
    /// The vport whose layer it is.
    pub vport: Option<VportId>,
    /// The rule that matched.
    pub rule: String,
    /// What it did.
    pub action: String,
}

/// Keeps every step.
impl TraceSink for Vec<TraceStep> {
    fn step(&mut self, layer: Layer, vport: Option<VportId>, rule: &str, action: &str) {
        self.push(TraceStep { layer, vport, rule: rule.to_owned(), action: action.to_owned() });
    }
}
