//! The SR-IOV capability of a PF: how many VFs there may be, and making them exist by writing to it.

use crate::capability::{self, id};
use crate::{Device, Error, Result};

// Offsets in the capability and bits, PCI Express Base Specification, "SR-IOV Extended Capability".
const CONTROL: u16 = 0x08;
const CONTROL_VF_ENABLE: u16 = 1 << 0;
const CONTROL_VF_MEMORY: u16 = 1 << 3;
const TOTAL_VFS: u16 = 0x0e;
const NUM_VFS: u16 = 0x10;

/// Makes `n` VFs exist. Does nothing if just so many are enabled already: clearing VF Enable would reset them.
pub(crate) fn set_num_vfs(device: &dyn Device, n: u16) -> Result<()> {
    let at = capability::find_extended(device, id::SRIOV)?;
    let at =
        at.ok_or_else(|| Error::Missing { device: device.name().into(), what: "SR-IOV capability".into() })?;
    let total = device.config_u16(at + TOTAL_VFS)?;
    if n > total {
        return Err(Error::TooManyVfs { device: device.name().into(), wanted: n, total });
    }
    let control = device.config_u16(at + CONTROL)?;
    let enabled = control & CONTROL_VF_ENABLE != 0;
    if enabled == (n > 0) && device.config_u16(at + NUM_VFS)? == n {
        return Ok(());
    }
    // NumVFs may only be changed while VF Enable is clear.
    let cleared = control & !(CONTROL_VF_ENABLE | CONTROL_VF_MEMORY);
    device.config_write_u16(at + CONTROL, cleared)?;
    device.config_write_u16(at + NUM_VFS, n)?;
    if n > 0 {
        device.config_write_u16(at + CONTROL, cleared | CONTROL_VF_ENABLE | CONTROL_VF_MEMORY)?;
    }
    Ok(())
}
