//! IP prefixes.

use core::fmt;
use core::net::IpAddr;
use core::str::FromStr;

use crate::id::ParseError;

/// An IP prefix without host bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Prefix {
    addr: IpAddr,
    len: u8,
}

/// An address as 128 bits, left-aligned, and how many count.
fn bits(addr: IpAddr) -> (u128, u8) {
    match addr {
        IpAddr::V4(a) => (u128::from(a.to_bits()) << 96, 32),
        IpAddr::V6(a) => (a.to_bits(), 128),
    }
}

fn mask(len: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0)
}

impl Prefix {
    /// All of IPv4.
    pub const ANY_V4: Prefix = Prefix { addr: IpAddr::V4(core::net::Ipv4Addr::UNSPECIFIED), len: 0 };
    /// All of IPv6.
    pub const ANY_V6: Prefix = Prefix { addr: IpAddr::V6(core::net::Ipv6Addr::UNSPECIFIED), len: 0 };

    /// A prefix.
    ///
    /// # Errors
    /// The length is too great for the family, or bits behind it are set.
    pub fn new(addr: IpAddr, len: u8) -> Result<Self, ParseError> {
        let (value, most) = bits(addr);
        if len > most {
            return Err(ParseError::Prefix);
        }
        if value & !mask(len) != 0 {
            return Err(ParseError::HostBits);
        }
        Ok(Prefix { addr, len })
    }

    /// The prefix of an address, host bits cleared; a too great length is taken as the whole address.
    pub fn of(addr: IpAddr, len: u8) -> Self {
        let (value, most) = bits(addr);
        let len = len.min(most);
        let value = value & mask(len);
        let addr = match addr {
            IpAddr::V4(_) => IpAddr::V4(core::net::Ipv4Addr::from_bits((value >> 96) as u32)),
            IpAddr::V6(_) => IpAddr::V6(core::net::Ipv6Addr::from_bits(value)),
        };
        Prefix { addr, len }
    }

    /// Its first address.
    pub fn addr(&self) -> IpAddr {
        self.addr
    }

    /// Its length in bits.
    #[expect(clippy::len_without_is_empty, reason = "the length of a prefix, not of a collection")]
    pub fn len(&self) -> u8 {
        self.len
    }

    /// Whether an address lies in it.
    pub fn contains(&self, addr: IpAddr) -> bool {
        self.addr.is_ipv4() == addr.is_ipv4() && (bits(self.addr).0 ^ bits(addr).0) & mask(self.len) == 0
    }

    /// Whether they have an address in common.
    pub fn overlaps(&self, other: &Prefix) -> bool {
        self.contains(other.addr) || other.contains(self.addr)
    }

    /// The lowest address that a host can have: in HNV the gateway's.
    pub fn lowest_host(&self) -> IpAddr {
        match self.addr {
            IpAddr::V4(a) if self.len < 31 => IpAddr::V4(core::net::Ipv4Addr::from_bits(a.to_bits() | 1)),
            IpAddr::V6(a) if self.len < 127 => IpAddr::V6(core::net::Ipv6Addr::from_bits(a.to_bits() | 1)),
            addr => addr,
        }
    }

    /// The last address: for IPv4 the broadcast address.
    pub fn last(&self) -> IpAddr {
        match self.addr {
            IpAddr::V4(a) => {
                let host = !((mask(self.len) >> 96) as u32);
                IpAddr::V4(core::net::Ipv4Addr::from_bits(a.to_bits() | host))
            }
            IpAddr::V6(a) => IpAddr::V6(core::net::Ipv6Addr::from_bits(a.to_bits() | !mask(self.len))),
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.len)
    }
}

impl FromStr for Prefix {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let (addr, len) = match text.split_once('/') {
            Some((addr, len)) => (addr, Some(len)),
            None => (text, None),
        };
        let addr: IpAddr = addr.parse().map_err(|_| ParseError::Prefix)?;
        let len = match len {
            Some(len) => len.parse().map_err(|_| ParseError::Prefix)?,
            None => bits(addr).1,
        };
        Prefix::new(addr, len)
    }
}
