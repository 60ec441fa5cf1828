//! Configuration space: a header of type 0, capabilities, and which bits of each software may write.

use super::CONFIG_LEN;

/// Offsets in the header.
pub(super) const COMMAND: usize = 0x04;
const STATUS: usize = 0x06;
const BAR0: usize = 0x10;
const CAP_POINTER: usize = 0x34;
/// Where capabilities and extended capabilities begin.
const FIRST_CAP: usize = 0x40;
const FIRST_EXTENDED: usize = 0x100;

/// Vendor, device and class of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Vendor id.
    pub vendor: u16,
    /// Device id.
    pub device: u16,
    /// Subsystem vendor id.
    pub subsystem_vendor: u16,
    /// Subsystem id.
    pub subsystem: u16,
    /// Class code, 24 bits: class, subclass, programming interface.
    pub class: u32,
    /// Revision.
    pub revision: u8,
}

/// A 64-bit, not prefetchable memory BAR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bar {
    /// 0, 2 or 4: it takes this register and the next.
    pub index: usize,
    /// Length in bytes: a power of two, 4096 at least.
    pub size: u64,
}

impl Bar {
    /// The two registers' masks: the address bits that are not below the size read back what was written.
    fn mask(self) -> u64 {
        !(self.size - 1)
    }
}

/// Type bits of a 64-bit memory BAR.
const BAR_64: u32 = 0b100;

/// Lays configuration space out. Capabilities are linked in the order in which they are added.
pub struct ConfigBuilder {
    space: ConfigSpace,
    next_cap: usize,
    /// The pointer to patch with the next capability's offset.
    link: usize,
    next_extended: usize,
    last_extended: Option<usize>,
}

impl ConfigBuilder {
    /// A type 0 header without BARs.
    pub fn new(id: Identity) -> Self {
        let mut space = ConfigSpace::zeroed();
        space.set_u16(0x00, id.vendor);
        space.set_u16(0x02, id.device);
        space.set_u16(STATUS, 1 << 4); // capability list
        space.set_u32(0x08, id.class << 8 | u32::from(id.revision));
        space.set_u16(0x2c, id.subsystem_vendor);
        space.set_u16(0x2e, id.subsystem);
        // Memory space, bus master, parity, SERR#, INTx disable. There is no I/O space.
        space.allow(COMMAND, &0x0546u16.to_le_bytes());
        space.allow(0x0c, &[0xff]); // cache line size
        space.allow(0x3c, &[0xff]); // interrupt line
        Self {
            space,
            next_cap: FIRST_CAP,
            link: CAP_POINTER,
            next_extended: FIRST_EXTENDED,
            last_extended: None,
        }
    }

    /// Gives the function an interrupt pin, INTA.
    pub fn interrupt_pin(&mut self) {
        self.space.bytes[0x3d] = 1;
    }

    /// Adds a BAR.
    pub fn bar(mut self, bar: Bar) -> Self {
        self.place_bar(BAR0, bar);
        self
    }

    /// Puts a BAR's two registers into a row of BARs that begins at `row`: the header's or SR-IOV's.
    pub(super) fn place_bar(&mut self, row: usize, bar: Bar) {
        let at = row + 4 * bar.index;
        self.space.set_u32(at, BAR_64);
        self.space.allow(at, &bar.mask().to_le_bytes());
    }

    /// Adds a capability and returns its offset: `body` and the mask of its writable bits follow id and link.
    pub fn capability(&mut self, id: u8, body: &[u8], writable: &[u8]) -> usize {
        let at = self.next_cap;
        self.space.bytes[self.link] = at as u8;
        self.space.set(at, &[id, 0]);
        self.space.set(at + 2, body);
        self.space.allow(at + 2, writable);
        self.link = at + 1;
        self.next_cap = (at + 2 + body.len()).next_multiple_of(4);
        assert!(self.next_cap <= FIRST_EXTENDED, "capabilities must end before the extended ones begin");
        at
    }

    /// Adds the PCI Express capability (PCIe 6.0 section 7.5.3) of an endpoint that can be reset; returns its offset.
    pub fn express(&mut self) -> usize {
        let mut body = [0; 0x3a];
        let mut mask = [0; 0x3a];
        body[0..2].copy_from_slice(&0x0002u16.to_le_bytes()); // version 2, endpoint
        body[2..6].copy_from_slice(&(1u32 << 28 | 1 << 15).to_le_bytes()); // FLR, role-based error reporting
        // Device control. Bit 15, which starts the reset, always reads 0.
        mask[6..8].copy_from_slice(&0x7fffu16.to_le_bytes());
        body[0x0a..0x0e].copy_from_slice(&0x0000_0083u32.to_le_bytes()); // link: x8, 8 GT/s
        body[0x10..0x12].copy_from_slice(&0x0083u16.to_le_bytes()); // as negotiated
        self.capability(0x10, &body, &mask)
    }

    /// Adds the MSI-X capability (PCI 7.7.2) with table and pending bits in one BAR; returns its offset.
    pub fn msix(&mut self, vectors: u16, bar: usize, table: u32, pending: u32) -> usize {
        let mut body = [0; 10];
        body[0..2].copy_from_slice(&(vectors - 1).to_le_bytes());
        body[2..6].copy_from_slice(&(table | bar as u32).to_le_bytes());
        body[6..10].copy_from_slice(&(pending | bar as u32).to_le_bytes());
        // Enable and function mask.
        self.capability(0x11, &body, &0xc000u16.to_le_bytes())
    }

    /// Adds an extended capability and returns its offset: `body` and its mask follow the 32-bit header.
    pub fn extended(&mut self, id: u16, version: u8, body: &[u8], writable: &[u8]) -> usize {
        let at = self.next_extended;
        if let Some(last) = self.last_extended {
            let header = self.space.u32(last) & 0x000f_ffff | (at as u32) << 20;
            self.space.set_u32(last, header);
        }
        self.space.set_u32(at, u32::from(id) | u32::from(version) << 16);
        self.space.set(at + 4, body);
        self.space.allow(at + 4, writable);
        self.last_extended = Some(at);
        self.next_extended = (at + 4 + body.len()).next_multiple_of(4);
        at
    }

    /// The finished space; its present content is what a reset restores.
    pub fn build(mut self) -> ConfigSpace {
        self.space.initial.copy_from_slice(&self.space.bytes[..]);
        self.space
    }
}

/// A function's configuration space.
pub struct ConfigSpace {
    bytes: Box<[u8; CONFIG_LEN]>,
    writable: Box<[u8; CONFIG_LEN]>,
    initial: Box<[u8; CONFIG_LEN]>,
}

impl ConfigSpace {
    fn zeroed() -> Self {
        Self {
            bytes: Box::new([0; CONFIG_LEN]),
            writable: Box::new([0; CONFIG_LEN]),
            initial: Box::new([0; CONFIG_LEN]),
        }
    }

    /// Reads; bytes beyond the space read 0.
    pub fn read(&self, offset: usize, into: &mut [u8]) {
        for (i, byte) in into.iter_mut().enumerate() {
            *byte = self.bytes.get(offset.wrapping_add(i)).copied().unwrap_or(0);
        }
    }

    /// Writes the writable bits.
    pub fn write(&mut self, offset: usize, from: &[u8]) {
        for (i, value) in from.iter().enumerate() {
            let at = offset.wrapping_add(i);
            if let (Some(byte), Some(mask)) = (self.bytes.get_mut(at), self.writable.get(at)) {
                *byte = *byte & !mask | value & mask;
            }
        }
    }

    /// Puts every bit back to its value after power-on.
    pub fn reset(&mut self) {
        self.bytes.copy_from_slice(&self.initial[..]);
    }

    /// The 16-bit number at `at`, which lies in the space.
    pub fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.bytes[at], self.bytes[at + 1]])
    }

    /// The 32-bit number at `at`, which lies in the space.
    pub fn u32(&self, at: usize) -> u32 {
        u32::from(self.u16(at)) | u32::from(self.u16(at + 2)) << 16
    }

    /// Sets bytes whatever software may write.
    pub fn set(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// Sets a 16-bit number.
    pub fn set_u16(&mut self, at: usize, value: u16) {
        self.set(at, &value.to_le_bytes());
    }

    /// Sets a 32-bit number.
    pub fn set_u32(&mut self, at: usize, value: u32) {
        self.set(at, &value.to_le_bytes());
    }

    /// Sets which bits software may write from `at` on.
    pub fn allow(&mut self, at: usize, mask: &[u8]) {
        self.writable[at..at + mask.len()].copy_from_slice(mask);
    }
}
