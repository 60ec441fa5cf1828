//! `Bar0`: the PF's registers, by accesses of the width that they require.

use std::sync::Mutex;

use culvert_abi::regs;
use culvert_pci::Registers;

use crate::Result;

/// The registers of the PF.
pub(crate) struct Bar0 {
    registers: Box<dyn Registers>,
    /// Held from a mailbox request to its answer.
    pub(crate) mailbox: Mutex<()>,
}

impl Bar0 {
    pub(crate) fn new(registers: Box<dyn Registers>) -> Self {
        Bar0 { registers, mailbox: Mutex::new(()) }
    }

    pub(crate) fn read(&self, offset: u32) -> Result<u32> {
        Ok(self.registers.read32(u64::from(offset))?)
    }

    pub(crate) fn write(&self, offset: u32, value: u32) -> Result<()> {
        Ok(self.registers.write32(u64::from(offset), value)?)
    }

    /// Reads a 64-bit counter in one access.
    pub(crate) fn counter(&self, offset: u32) -> Result<u64> {
        Ok(self.registers.read64(u64::from(offset))?)
    }

    /// Writes register `register` of PF queue `queue`.
    pub(crate) fn queue_write(&self, queue: usize, register: u32, value: u32) -> Result<()> {
        self.write(queue_register(queue, register), value)
    }

    /// Reads register `register` of PF queue `queue`.
    pub(crate) fn queue_read(&self, queue: usize, register: u32) -> Result<u32> {
        self.read(queue_register(queue, register))
    }

    /// Reads `len` bytes of text from `offset` on.
    pub(crate) fn bytes(&self, offset: u32, len: u32) -> Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(len as usize);
        for word in 0..len / 8 {
            bytes.extend(self.counter(offset + 8 * word)?.to_le_bytes());
        }
        Ok(bytes)
    }
}

fn queue_register(queue: usize, register: u32) -> u32 {
    regs::QUEUES + queue as u32 * regs::QUEUE_STRIDE + register
}
