//! Capability lists: good, empty, looped and broken.

use std::sync::Mutex;

use super::*;
use crate::{DmaBuffer, Error, Interrupt, PageKind, Registers, VfHandle};

/// A function that is only its configuration space.
struct ConfigOnly(Mutex<Vec<u8>>);

impl Device for ConfigOnly {
    fn name(&self) -> &str {
        "test function"
    }

    fn config_read(&self, offset: u16, data: &mut [u8]) -> Result<()> {
        let config = self.0.lock().unwrap();
        let range = usize::from(offset)..usize::from(offset) + data.len();
        let size = config.len() as u64;
        let outside =
            Error::OutOfRange { thing: "config".into(), offset: offset.into(), len: data.len() as u64, size };
        data.copy_from_slice(config.get(range).ok_or(outside)?);
        Ok(())
    }

    fn config_write(&self, offset: u16, data: &[u8]) -> Result<()> {
        self.0.lock().unwrap()[usize::from(offset)..][..data.len()].copy_from_slice(data);
        Ok(())
    }

    fn bar(&self, n: u8) -> Result<Box<dyn Registers>> {
        Err(Error::Missing { device: self.name().into(), what: format!("BAR{n}") })
    }

    fn alloc_dma_in(&self, len: usize, _: PageKind) -> Result<DmaBuffer> {
        DmaBuffer::detached(0, len)
    }

    fn interrupt_count(&self) -> u16 {
        0
    }

    fn interrupt(&self, _: u16) -> Result<Interrupt> {
        Interrupt::new()
    }

    fn reset(&self) -> Result<()> {
        Ok(())
    }

    fn enable_vfs(&self, _: u16) -> Result<Vec<VfHandle>> {
        Ok(Vec::new())
    }
}

fn function(size: usize, set: &[(usize, &[u8])]) -> ConfigOnly {
    let mut config = vec![0; size];
    for (at, bytes) in set {
        config[*at..at + bytes.len()].copy_from_slice(bytes);
    }
    ConfigOnly(Mutex::new(config))
}

#[test]
fn all_capabilities_of_one_id_are_found_in_order() {
    let list: &[(usize, &[u8])] =
        &[(6, &[0x10]), (0x34, &[0x80]), (0x80, &[9, 0x50]), (0x50, &[0x11, 0x60]), (0x60, &[9, 0])];
    let device = function(256, list);
    assert_eq!(find_all(&device, id::VENDOR).unwrap(), [0x80, 0x60]);
    assert_eq!(find(&device, id::MSIX).unwrap(), Some(0x50));
    assert_eq!(find(&device, id::PCI_EXPRESS).unwrap(), None);
}

#[test]
fn a_looped_list_ends() {
    let device = function(256, &[(6, &[0x10]), (0x34, &[0x40]), (0x40, &[9, 0x48]), (0x48, &[9, 0x40])]);
    assert_eq!(find_all(&device, id::VENDOR).unwrap(), [0x40, 0x48]);
    let device = function(4096, &[(0x100, &[1, 0, 1, 0x14]), (0x140, &[2, 0, 1, 0x10])]);
    assert_eq!(find_extended(&device, id::SRIOV).unwrap(), None);
}

#[test]
fn without_a_list_nothing_is_found() {
    let device = function(256, &[(0x34, &[0x40]), (0x40, &[9, 0])]);
    assert_eq!(find(&device, id::VENDOR).unwrap(), None, "the Status register reports no list");
    assert_eq!(find_extended(&device, id::SRIOV).unwrap(), None, "no extended configuration space");
    let device = function(4096, &[(0x100, &[0xff; 4])]);
    assert_eq!(find_extended(&device, id::SRIOV).unwrap(), None);
}
