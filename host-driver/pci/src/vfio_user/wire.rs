//! Message layouts of the vfio-user protocol, version 0.1. All fields are little-endian.

/// The header's size.
pub(super) const HEADER: usize = 16;
/// Longest message: the most data of one transfer plus room for the fields around it.
pub(super) const MAX_MESSAGE: u32 = MAX_TRANSFER + 4096;
/// Most data in one message.
pub(super) const MAX_TRANSFER: u32 = 1 << 20;
/// Most file descriptors that the client accepts with one message.
pub(super) const MAX_FDS: usize = 16;

/// Commands.
pub(super) mod command {
    pub(in super::super) const VERSION: u16 = 1;
    pub(in super::super) const DMA_MAP: u16 = 2;
    pub(in super::super) const DMA_UNMAP: u16 = 3;
    pub(in super::super) const DEVICE_GET_INFO: u16 = 4;
    pub(in super::super) const DEVICE_GET_REGION_INFO: u16 = 5;
    pub(in super::super) const DEVICE_GET_IRQ_INFO: u16 = 7;
    pub(in super::super) const DEVICE_SET_IRQS: u16 = 8;
    pub(in super::super) const REGION_READ: u16 = 9;
    pub(in super::super) const REGION_WRITE: u16 = 10;
    pub(in super::super) const DMA_READ: u16 = 11;
    pub(in super::super) const DMA_WRITE: u16 = 12;
    pub(in super::super) const DEVICE_RESET: u16 = 13;
}

/// The message type in the flags: the low four bits.
const TYPE_MASK: u32 = 0xf;
/// A reply.
pub(super) const REPLY: u32 = 1;
/// The sender wants no reply.
pub(super) const NO_REPLY: u32 = 1 << 4;
/// A reply that reports an error.
pub(super) const ERROR: u32 = 1 << 5;

/// A message's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) id: u16,
    pub(super) command: u16,
    pub(super) size: u32,
    pub(super) flags: u32,
    pub(super) error: u32,
}

impl Header {
    pub(super) fn encode(&self) -> [u8; HEADER] {
        let mut out = [0; HEADER];
        out[0..2].copy_from_slice(&self.id.to_le_bytes());
        out[2..4].copy_from_slice(&self.command.to_le_bytes());
        out[4..8].copy_from_slice(&self.size.to_le_bytes());
        out[8..12].copy_from_slice(&self.flags.to_le_bytes());
        out[12..16].copy_from_slice(&self.error.to_le_bytes());
        out
    }

    pub(super) fn decode(b: &[u8; HEADER]) -> Self {
        Self {
            id: u16::from_le_bytes([b[0], b[1]]),
            command: u16::from_le_bytes([b[2], b[3]]),
            size: u32::from_le_bytes([b[4], b[5], b[6], b[7]]),
            flags: u32::from_le_bytes([b[8], b[9], b[10], b[11]]),
            error: u32::from_le_bytes([b[12], b[13], b[14], b[15]]),
        }
    }

    pub(super) fn is_reply(&self) -> bool {
        self.flags & TYPE_MASK == REPLY
    }
}

/// The command's name, for error messages.
pub(super) fn name(cmd: u16) -> &'static str {
    match cmd {
        command::VERSION => "VERSION",
        command::DMA_MAP => "DMA_MAP",
        command::DMA_UNMAP => "DMA_UNMAP",
        command::DEVICE_GET_INFO => "DEVICE_GET_INFO",
        command::DEVICE_GET_REGION_INFO => "DEVICE_GET_REGION_INFO",
        command::DEVICE_GET_IRQ_INFO => "DEVICE_GET_IRQ_INFO",
        command::DEVICE_SET_IRQS => "DEVICE_SET_IRQS",
        command::REGION_READ => "REGION_READ",
        command::REGION_WRITE => "REGION_WRITE",
        command::DMA_READ => "DMA_READ",
        command::DMA_WRITE => "DMA_WRITE",
        command::DEVICE_RESET => "DEVICE_RESET",
        _ => "unknown command",
    }
}

/// Reads a 32-bit field, if the message is long enough.
pub(super) fn u32_at(body: &[u8], at: usize) -> Option<u32> {
    body.get(at..)?.first_chunk().map(|b| u32::from_le_bytes(*b))
}

/// Reads a 64-bit field, if the message is long enough.
pub(super) fn u64_at(body: &[u8], at: usize) -> Option<u64> {
    body.get(at..)?.first_chunk().map(|b| u64::from_le_bytes(*b))
}

/// A region's description: the reply to DEVICE_GET_REGION_INFO.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct RegionInfo {
    /// Length of the complete reply.
    pub(super) argsz: u32,
    pub(super) flags: u32,
    pub(super) size: u64,
    /// Offset of the region in the file that came with the reply.
    pub(super) file_offset: u64,
    /// Offset and length of the areas that can be mapped. Empty: the whole region, if the flags allow mapping.
    pub(super) areas: Vec<(u64, u64)>,
}

pub(super) const REGION_FLAG_MMAP: u32 = 1 << 2;
const REGION_FLAG_CAPS: u32 = 1 << 3;
const CAP_SPARSE_MMAP: u16 = 1;
/// Most mapped areas that the client accepts in one region.
const MAX_AREAS: u32 = 64;

impl RegionInfo {
    /// Decodes a reply. `None`: it is malformed.
    pub(super) fn decode(body: &[u8]) -> Option<Self> {
        let mut info = Self {
            argsz: u32_at(body, 0)?,
            flags: u32_at(body, 4)?,
            size: u64_at(body, 16)?,
            file_offset: u64_at(body, 24)?,
            areas: Vec::new(),
        };
        if info.flags & REGION_FLAG_CAPS == 0 || info.argsz as usize > body.len() {
            return Some(info);
        }
        let mut at = u32_at(body, 12)? as usize;
        while at != 0 {
            let id = u32_at(body, at)? as u16;
            let next = u32_at(body, at + 4)? as usize;
            if id == CAP_SPARSE_MMAP {
                let count = u32_at(body, at + 8).filter(|n| *n <= MAX_AREAS)?;
                for i in 0..count as usize {
                    let entry = at + 16 + 16 * i;
                    info.areas.push((u64_at(body, entry)?, u64_at(body, entry + 8)?));
                }
            }
            if next != 0 && next <= at {
                return None;
            }
            at = next;
        }
        Some(info)
    }
}
