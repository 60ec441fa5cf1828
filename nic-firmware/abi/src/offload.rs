//! Offload metadata of a packet, as ring entries and descriptors carry it.

use culvert_flow::Checksum;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Offload metadata of a packet: what is known of its checksums, how it is to be segmented, where its headers are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct OffloadBits {
    /// 0 nothing known, 1 partial (to be filled in), 2 verified, 3 bad.
    pub checksum: u8,
    /// 0 none, 1 TCPv4, 2 TCPv6, 3 UDP (virtio numbering of kinds).
    pub gso: u8,
    /// Largest segment payload.
    pub mss: u16,
    /// Partial checksum: where summing starts.
    pub start: u16,
    /// Partial checksum: where the sum goes, from `start`.
    pub offset: u16,
}

impl OffloadBits {
    /// `checksum`: nothing known.
    pub const NONE: u8 = 0;
    /// `checksum`: partial.
    pub const PARTIAL: u8 = 1;
    /// `checksum`: verified.
    pub const VERIFIED: u8 = 2;
    /// `checksum`: bad (of an encapsulated packet: the outer UDP checksum).
    pub const BAD: u8 = 3;

    /// Metadata that says only what is known of the checksum.
    pub fn of_checksum(checksum: Checksum) -> Self {
        let checksum = match checksum {
            Checksum::Unknown => Self::NONE,
            Checksum::Good => Self::VERIFIED,
            Checksum::Bad => Self::BAD,
        };
        OffloadBits { checksum, ..Self::default() }
    }

    /// What is known of the checksum.
    #[inline(always)]
    pub fn known_checksum(&self) -> Checksum {
        match self.checksum {
            Self::VERIFIED => Checksum::Good,
            Self::BAD => Checksum::Bad,
            _ => Checksum::Unknown,
        }
    }
}

const _: () = assert!(size_of::<OffloadBits>() == 8);
