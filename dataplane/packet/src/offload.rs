//! What hardware knows or is asked to do about a packet: checksums, segmentation, where its headers are.

/// State of a packet's checksums.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[repr(u8)]
pub enum ChecksumState {
    /// Nothing is known; what stands in the packet is as it came.
    #[default]
    None = 0,
    /// The field holds the sum of the pseudo-header: the rest, from `start`, is to be added and the complement stored.
    Partial = 1,
    /// Right.
    Verified = 2,
    /// Wrong. Of an encapsulated packet: the outer UDP checksum.
    Bad = 3,
}

impl ChecksumState {
    /// From its number.
    pub const fn from_u8(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::None),
            1 => Some(Self::Partial),
            2 => Some(Self::Verified),
            3 => Some(Self::Bad),
            _ => None,
        }
    }
}

/// How a packet is to be cut into segments.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[repr(u8)]
pub enum Gso {
    /// Not at all.
    #[default]
    None = 0,
    /// TCP over IPv4.
    TcpV4 = 1,
    /// TCP over IPv6.
    TcpV6 = 2,
    /// UDP, each segment a datagram.
    Udp = 3,
}

impl Gso {
    /// From its number.
    pub const fn from_u8(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::None),
            1 => Some(Self::TcpV4),
            2 => Some(Self::TcpV6),
            3 => Some(Self::Udp),
            _ => None,
        }
    }
}

/// Offload metadata of a packet. Offsets count from the frame's first byte, 0 where there is no such header; the outer
/// ones are those of an encapsulated packet only.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[repr(C)]
pub struct Offload {
    /// State of the checksum of the (inner) packet's transport header.
    pub checksum: ChecksumState,
    /// Segmentation.
    pub gso: Gso,
    /// Largest payload of a segment; 0 without segmentation.
    pub mss: u16,
    /// Partial checksum: offset where summing starts.
    pub start: u16,
    /// Partial checksum: offset of the field, from `start`.
    pub offset: u16,
    /// Outer IP header.
    pub outer_l3: u16,
    /// Outer UDP or GRE header.
    pub outer_l4: u16,
    /// Inner IP header.
    pub inner_l3: u16,
    /// Inner transport header.
    pub inner_l4: u16,
}

const _: () = assert!(size_of::<Offload>() == 16);

impl Offload {
    /// What `by` bytes more in front of the frame make of the offsets. `None`: one does not fit.
    pub fn moved_back(&self, by: u16) -> Option<Offload> {
        let moved = |offset: u16| if offset == 0 { Some(0) } else { offset.checked_add(by) };
        let start = if self.checksum == ChecksumState::Partial { self.start.checked_add(by)? } else { 0 };
        Some(Offload {
            start,
            outer_l3: moved(self.outer_l3)?,
            outer_l4: moved(self.outer_l4)?,
            inner_l3: moved(self.inner_l3)?,
            inner_l4: moved(self.inner_l4)?,
            ..*self
        })
    }

    /// Adds up and stores a partial checksum, as the hardware does. `false`, and nothing is written, if the field does
    /// not lie within the frame.
    pub fn fill_checksum(&self, frame: &mut [u8]) -> bool {
        if self.checksum != ChecksumState::Partial {
            return true;
        }
        let (start, offset) = (usize::from(self.start), usize::from(self.offset));
        let Some(covered) = frame.get_mut(start..).filter(|c| offset + 2 <= c.len()) else { return false };
        let sum = crate::checksum::of(covered);
        // In UDP, whose checksum is at offset 6, a 0 would mean that there is none (RFC 768); all ones are the same number.
        let sum = if offset == 6 { crate::udp::not_zero(sum) } else { sum };
        covered[offset..offset + 2].copy_from_slice(&sum.to_be_bytes());
        true
    }
}
