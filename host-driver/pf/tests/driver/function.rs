//! `Function`: the board's PF, as a `Device` and as the registers of its BAR 0.

use std::sync::Arc;

use culvert_abi::regs;
use culvert_pci::{Device, DmaBuffer, Error, Interrupt, PageKind, Registers, Result, VfHandle};

use crate::board::Board;

/// The board's PF.
pub(crate) struct Function(pub(crate) Arc<Board>);

impl Device for Function {
    fn name(&self) -> &str {
        "test-board"
    }

    fn config_read(&self, offset: u16, data: &mut [u8]) -> Result<()> {
        self.0.access()?;
        let ids =
            [culvert_abi::pci::VENDOR.to_le_bytes(), culvert_abi::pci::PF_DEVICE.to_le_bytes()].concat();
        data.copy_from_slice(&ids[usize::from(offset)..usize::from(offset) + data.len()]);
        Ok(())
    }

    fn config_write(&self, _: u16, _: &[u8]) -> Result<()> {
        Ok(())
    }

    fn bar(&self, _: u8) -> Result<Box<dyn Registers>> {
        Ok(Box::new(Function(self.0.clone())))
    }

    fn alloc_dma_in(&self, len: usize, _: PageKind) -> Result<DmaBuffer> {
        self.0.lock().allocate(len)
    }

    fn interrupt_count(&self) -> u16 {
        self.0.interrupts.len() as u16
    }

    fn interrupt(&self, vector: u16) -> Result<Interrupt> {
        Ok(self.0.interrupts[usize::from(vector)].clone())
    }

    fn reset(&self) -> Result<()> {
        Ok(())
    }

    fn enable_vfs(&self, n: u16) -> Result<Vec<VfHandle>> {
        let address = |i| culvert_pci::FunctionAddress::Socket(format!("/run/vf{i}").into());
        Ok((0..n).map(|index| VfHandle { index, address: address(index) }).collect())
    }
}

impl Registers for Function {
    fn size(&self) -> u64 {
        regs::BAR0_LEN
    }

    fn read8(&self, _: u64) -> Result<u8> {
        Err(refused())
    }

    fn read16(&self, _: u64) -> Result<u16> {
        Err(refused())
    }

    fn read32(&self, offset: u64) -> Result<u32> {
        self.0.access()?;
        Ok(self.0.lock().read_register(offset as u32))
    }

    fn read64(&self, offset: u64) -> Result<u64> {
        let mut state = self.0.lock();
        self.0.access()?;
        let (low, high) = (state.read_register(offset as u32), state.read_register(offset as u32 + 4));
        Ok(u64::from(low) | u64::from(high) << 32)
    }

    fn write8(&self, _: u64, _: u8) -> Result<()> {
        Err(refused())
    }

    fn write16(&self, _: u64, _: u16) -> Result<()> {
        Err(refused())
    }

    fn write32(&self, offset: u64, value: u32) -> Result<()> {
        self.0.access()?;
        self.0.lock().write_register(offset as u32, value);
        Ok(())
    }

    fn write64(&self, _: u64, _: u64) -> Result<()> {
        Err(refused())
    }
}

/// All registers have 32 or 64 bits.
fn refused() -> Error {
    Error::Missing { device: "test-board".into(), what: "registers of this width".into() }
}
