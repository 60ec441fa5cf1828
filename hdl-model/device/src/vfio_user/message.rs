//! The vfio-user wire format: header, commands, and bounded access to a message's fields.

use rustix::io::Errno;

/// Largest payload of a region access or DMA message that we announce, in bytes.
pub const MAX_TRANSFER: usize = 1 << 20;
/// Largest message that is read: the largest transfer and room for its header.
pub const MAX_MESSAGE: usize = MAX_TRANSFER + 4096;
/// File descriptors a message may carry.
pub const MAX_FDS: usize = 16;
/// Bytes of a message header.
pub(super) const HEADER_LEN: usize = 16;

/// Message types and flag bits of the header's `flags`.
pub(super) mod flag {
    pub(in super::super) const TYPE: u32 = 0xf;
    pub(in super::super) const REPLY: u32 = 1;
    pub(in super::super) const NO_REPLY: u32 = 1 << 4;
    pub(in super::super) const ERROR: u32 = 1 << 5;
}

/// Command numbers.
pub(super) mod command {
    pub(in super::super) const VERSION: u16 = 1;
    pub(in super::super) const DMA_MAP: u16 = 2;
    pub(in super::super) const DMA_UNMAP: u16 = 3;
    pub(in super::super) const DEVICE_GET_INFO: u16 = 4;
    pub(in super::super) const DEVICE_GET_REGION_INFO: u16 = 5;
    pub(in super::super) const DEVICE_GET_REGION_IO_FDS: u16 = 6;
    pub(in super::super) const DEVICE_GET_IRQ_INFO: u16 = 7;
    pub(in super::super) const DEVICE_SET_IRQS: u16 = 8;
    pub(in super::super) const REGION_READ: u16 = 9;
    pub(in super::super) const REGION_WRITE: u16 = 10;
    pub(in super::super) const DMA_READ: u16 = 11;
    pub(in super::super) const DMA_WRITE: u16 = 12;
    pub(in super::super) const DEVICE_RESET: u16 = 13;
    pub(in super::super) const REGION_WRITE_MULTI: u16 = 15;
}

/// A message's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) id: u16,
    pub(super) command: u16,
    /// Length of the whole message.
    pub(super) size: u32,
    pub(super) flags: u32,
    pub(super) error: u32,
}

impl Header {
    pub(super) fn decode(bytes: &[u8; HEADER_LEN]) -> Self {
        let fields = Fields(bytes);
        Self {
            id: fields.u16_at(0),
            command: fields.u16_at(2),
            size: fields.u32_at(4),
            flags: fields.u32_at(8),
            error: fields.u32_at(12),
        }
    }

    pub(super) fn encode(&self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        out[0..2].copy_from_slice(&self.id.to_le_bytes());
        out[2..4].copy_from_slice(&self.command.to_le_bytes());
        out[4..8].copy_from_slice(&self.size.to_le_bytes());
        out[8..12].copy_from_slice(&self.flags.to_le_bytes());
        out[12..16].copy_from_slice(&self.error.to_le_bytes());
        out
    }

    pub(super) fn is_request(&self) -> bool {
        self.flags & flag::TYPE == 0
    }

    pub(super) fn is_reply(&self) -> bool {
        self.flags & flag::TYPE == flag::REPLY
    }

    pub(super) fn wants_reply(&self) -> bool {
        self.flags & flag::NO_REPLY == 0
    }
}

/// A message's bytes, whose length was checked by [`fields`]. Reading past the end gives zero, never a panic.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a>(&'a [u8]);

/// The fixed part of a command: at least `len` bytes, or `EINVAL`.
pub(super) fn fields(body: &[u8], len: usize) -> Result<Fields<'_>, Errno> {
    if body.len() < len { Err(Errno::INVAL) } else { Ok(Fields(body)) }
}

impl Fields<'_> {
    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        self.0.get(at..at + N).and_then(|bytes| bytes.try_into().ok()).unwrap_or([0; N])
    }

    pub(super) fn u16_at(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.array(at))
    }

    pub(super) fn u32_at(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.array(at))
    }

    pub(super) fn u64_at(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.array(at))
    }
}

/// Builds a reply's body.
#[derive(Default)]
pub(super) struct Body(pub(super) Vec<u8>);

impl Body {
    pub(super) fn u16s(mut self, values: &[u16]) -> Self {
        self.0.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        self
    }

    pub(super) fn u32s(mut self, values: &[u32]) -> Self {
        self.0.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        self
    }

    pub(super) fn u64s(mut self, values: &[u64]) -> Self {
        self.0.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        self
    }

    pub(super) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }
}
