//! Guests in this process on vhost-user ports: of our switch, and of Open vSwitch with DPDK.
//!
//! * [`guest`]: a guest, its memory and its rings, driven as a poll-mode driver does.
//! * [`client`]: one thread that plays the guests of a case and counts.
//! * [`ours`]: our switch with its thread, its slow path and a policy of the control plane.
//! * [`theirs`]: Open vSwitch with ports of the same kind.
//! * [`turns`]: both, one after the other.

pub mod client;
pub mod guest;
pub mod memory;
pub mod ours;
pub mod ring;
pub mod theirs;
pub mod turns;
pub mod wire;

/// From where to where frames go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Way {
    /// From one guest to another of the same host and subnet.
    Guests,
    /// From a guest to the wire, by VXLAN.
    Out,
    /// From the wire to a guest.
    In,
}

impl Way {
    /// All three.
    pub const ALL: [Way; 3] = [Way::Guests, Way::Out, Way::In];

    /// For a table.
    pub fn name(self) -> &'static str {
        match self {
            Way::Guests => "guest to guest",
            Way::Out => "guest to wire",
            Way::In => "wire to guest",
        }
    }

    /// Whether the guest that sends is on this host.
    pub fn sends(self) -> bool {
        self != Way::In
    }

    /// Whether the guest that receives is on this host.
    pub fn receives(self) -> bool {
        self != Way::Out
    }
}
