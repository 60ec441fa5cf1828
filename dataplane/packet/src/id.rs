//! Identifiers, checked where they come in: MAC addresses, VNI, VSID, VLAN id, routing domain, vport, encapsulation.

use core::fmt;
use core::str::FromStr;

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// All ones.
    pub const BROADCAST: MacAddr = MacAddr([0xff; 6]);
    /// All zeros.
    pub const ZERO: MacAddr = MacAddr([0; 6]);

    /// Whether it names a group, the broadcast group included.
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 != 0
    }

    /// Whether it is all ones.
    pub fn is_broadcast(self) -> bool {
        self == Self::BROADCAST
    }

    /// Whether one station can have it: neither a group nor zero.
    pub fn is_unicast(self) -> bool {
        !self.is_multicast() && self != Self::ZERO
    }
}

impl From<[u8; 6]> for MacAddr {
    fn from(bytes: [u8; 6]) -> Self {
        MacAddr(bytes)
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Text that is not what it should be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ParseError {
    /// Not a MAC address.
    Mac,
    /// Not a GUID.
    Guid,
    /// Not an IP prefix.
    Prefix,
    /// An IP prefix with bits set behind its length.
    HostBits,
    /// Not a kind of encapsulation.
    Encap,
    /// Not a reason's word.
    Reason,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mac => "not a MAC address: write 00:1d:d8:07:00:01, 00-1D-D8-07-00-01 or 001DD8070001",
            Self::Guid => "not a GUID: write 8-4-4-4-12 hexadecimal digits",
            Self::Prefix => "not an IP prefix: write address/length, such as 10.1.1.0/24",
            Self::HostBits => {
                "the prefix has address bits set behind its length: clear them, or make it longer"
            }
            Self::Encap => "not a kind of encapsulation: write VXLAN or NVGRE",
            Self::Reason => "no such reason: write a word as `culvert drops` shows it, such as acl_deny",
        })
    }
}

impl core::error::Error for ParseError {}

fn hex_digits<const N: usize>(text: &str, separators: &[u8]) -> Option<[u8; N]> {
    let mut out = [0u8; N];
    let mut digits = 0;
    for &c in text.as_bytes() {
        if separators.contains(&c) {
            continue;
        }
        let value = (c as char).to_digit(16)? as u8;
        *out.get_mut(digits / 2)? |= value << (4 * (1 - digits % 2));
        digits += 1;
    }
    (digits == 2 * N).then_some(out)
}

impl FromStr for MacAddr {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let separated = |c: char| {
            text.len() == 17 && text.split(c).count() == 6 && text.split(c).all(|part| part.len() == 2)
        };
        if text.len() != 12 && !separated(':') && !separated('-') {
            return Err(ParseError::Mac);
        }
        hex_digits(text, b":-").map(MacAddr).ok_or(ParseError::Mac)
    }
}

/// A number outside the range that it must lie in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OutOfRange {
    /// What it should have been.
    pub what: &'static str,
    /// The number.
    pub value: u32,
    /// Least allowed.
    pub least: u32,
    /// Greatest allowed.
    pub greatest: u32,
}

impl fmt::Display for OutOfRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let OutOfRange { what, value, least, greatest } = self;
        write!(f, "{value} is no {what}: choose one from {least} to {greatest}")
    }
}

impl core::error::Error for OutOfRange {}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($int:ty), $what:literal, $least:literal ..= $greatest:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub struct $name($int);

        impl $name {
            /// Least one.
            pub const MIN: $int = $least;
            /// Greatest one.
            pub const MAX: $int = $greatest;

            /// Checks a number.
            ///
            /// # Errors
            /// It is out of range.
            pub const fn new(value: $int) -> Result<Self, OutOfRange> {
                #[allow(unused_comparisons, reason = "some ranges begin at 0")]
                if value >= $least && value <= $greatest {
                    Ok($name(value))
                } else {
                    Err(OutOfRange { what: $what, value: value as u32, least: $least, greatest: $greatest })
                }
            }

            /// The number.
            pub const fn get(self) -> $int {
                self.0
            }
        }

        impl TryFrom<$int> for $name {
            type Error = OutOfRange;
            fn try_from(value: $int) -> Result<Self, OutOfRange> {
                Self::new(value)
            }
        }

        impl From<$name> for $int {
            fn from(value: $name) -> $int {
                value.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

number! {
    /// VXLAN network identifier, 24 bits (RFC 7348 section 5).
    Vni(u32), "VNI", 0 ..= 0xff_ffff
}
number! {
    /// Virtual subnet id of HNV: one broadcast domain; serves as VNI and as upper 24 bits of the NVGRE key
    /// (RFC 7637 section 3.4 reserves what lies outside the range).
    Vsid(u32), "VSID", 4096 ..= 0xff_fffe
}
number! {
    /// 802.1Q VLAN id.
    VlanId(u16), "VLAN id", 1 ..= 4094
}

impl Vsid {
    /// As VNI.
    pub const fn vni(self) -> Vni {
        Vni(self.0)
    }
}

/// Number of a virtual port on its host.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct VportId(pub u16);

impl fmt::Display for VportId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Routing domain id: a GUID that names one virtual network, the isolation boundary.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Rdid(pub [u8; 16]);

impl fmt::Display for Rdid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Rdid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Rdid {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let text = text.strip_prefix('{').and_then(|t| t.strip_suffix('}')).unwrap_or(text);
        let mut parts = text.split('-').map(str::len);
        let shape = [8, 4, 4, 4, 12].into_iter().all(|n| parts.next() == Some(n)) && parts.next().is_none();
        if !shape {
            return Err(ParseError::Guid);
        }
        hex_digits(text, b"-").map(Rdid).ok_or(ParseError::Guid)
    }
}

/// How tenants' frames are carried. The numbers stand in flow keys and tunnels.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[repr(u8)]
pub enum Encap {
    /// VXLAN, RFC 7348.
    #[default]
    Vxlan = 1,
    /// NVGRE, RFC 7637.
    Nvgre = 2,
}

impl Encap {
    /// From its number.
    pub const fn from_u8(number: u8) -> Option<Encap> {
        match number {
            1 => Some(Encap::Vxlan),
            2 => Some(Encap::Nvgre),
            _ => None,
        }
    }

    /// `VXLAN` or `NVGRE`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Encap::Vxlan => "VXLAN",
            Encap::Nvgre => "NVGRE",
        }
    }
}

impl fmt::Display for Encap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Encap {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let known = [Encap::Vxlan, Encap::Nvgre];
        known.into_iter().find(|e| e.as_str().eq_ignore_ascii_case(text)).ok_or(ParseError::Encap)
    }
}
