//! [`PortState`]: how far an attached port is usable, and why not.

use std::sync::Arc;

/// State of an attached port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortState {
    /// It is open and has a link.
    Up,
    /// It is open and has no link: there is no other side.
    NoLink,
    /// It is being opened, and no attempt has failed since it was last open.
    Opening,
    /// It does not open, or broke: why. It is tried again in the background.
    Failed(Arc<str>),
}

impl PortState {
    /// Of two parts of one port, which workers serve each by itself, the state that says more about what is wrong.
    #[must_use]
    pub fn worse(self, other: Self) -> Self {
        let rank = |state: &Self| match state {
            PortState::Up => 0,
            PortState::NoLink => 1,
            PortState::Opening => 2,
            PortState::Failed(_) => 3,
        };
        if rank(&other) > rank(&self) { other } else { self }
    }
}

/// Frames that were too long for a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LengthDrops {
    /// How many.
    pub packets: u64,
    /// Longest IP packet that the port sends, if it knows.
    pub mtu: Option<u32>,
}

impl LengthDrops {
    /// The drops of two parts of one port.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        LengthDrops { packets: self.packets + other.packets, mtu: self.mtu.or(other.mtu) }
    }
}
