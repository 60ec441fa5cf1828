//! Ports of the data path, as 16 bits: where a packet comes from and where it leaves.

use culvert_packet::VportId;

/// A port of the data path.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Port {
    /// A virtual NIC: numbers 0 to [`Port::MAX_VPORTS`] - 1.
    Vport(VportId),
    /// A MAC port: 0 or 1.
    Uplink(u8),
    /// The host's slow path.
    Host,
    /// Nowhere.
    None,
}

impl Port {
    /// How many vports a host can have.
    pub const MAX_VPORTS: u16 = 1024;
    /// How many MAC ports a NIC has.
    pub const UPLINKS: u8 = 2;
    const UPLINK_BASE: u16 = 0xff00;
    const HOST: u16 = 0xfffe;
    const NONE: u16 = 0xffff;

    /// From the 16 bits of a record or descriptor. Numbers that name no port are [`Port::None`].
    #[inline(always)]
    pub const fn from_bits(bits: u16) -> Self {
        if bits < Self::MAX_VPORTS {
            Port::Vport(VportId(bits))
        } else if bits >= Self::UPLINK_BASE && bits < Self::UPLINK_BASE + Self::UPLINKS as u16 {
            Port::Uplink((bits - Self::UPLINK_BASE) as u8)
        } else if bits == Self::HOST {
            Port::Host
        } else {
            Port::None
        }
    }

    /// The 16 bits.
    #[inline(always)]
    pub const fn bits(self) -> u16 {
        match self {
            Port::Vport(VportId(id)) => id,
            Port::Uplink(n) => Self::UPLINK_BASE + n as u16,
            Port::Host => Self::HOST,
            Port::None => Self::NONE,
        }
    }
}
