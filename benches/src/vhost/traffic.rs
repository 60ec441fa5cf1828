//! Where frames of a case go.

/// Source and destination of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Traffic {
    /// From one guest to another of the same host and subnet.
    GuestToGuest,
    /// From a guest to the wire, by VXLAN.
    GuestToWire,
    /// From the wire to a guest.
    WireToGuest,
}

impl Traffic {
    /// All three.
    pub const ALL: [Traffic; 3] = [Traffic::GuestToGuest, Traffic::GuestToWire, Traffic::WireToGuest];

    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Traffic::GuestToGuest => "guest to guest",
            Traffic::GuestToWire => "guest to wire",
            Traffic::WireToGuest => "wire to guest",
        }
    }

    /// Whether the guest that sends is on this host.
    pub fn sends(self) -> bool {
        self != Traffic::WireToGuest
    }

    /// Whether the guest that receives is on this host.
    pub fn receives(self) -> bool {
        self != Traffic::GuestToWire
    }
}
