//! Enables VFs through a PF's SR-IOV extended capability (PCIe 6.0 section 9.3.3).

use crate::capability::{self, id};
use crate::{Device, Error, Result};

/// SR-IOV Control (PCIe 6.0 section 9.3.3.3).
const CONTROL: u16 = 0x08;
const CONTROL_VF_ENABLE: u16 = 1 << 0;
const CONTROL_VF_MEMORY: u16 = 1 << 3;
/// TotalVFs (PCIe 6.0 section 9.3.3.6).
const TOTAL_VFS: u16 = 0x0e;
/// NumVFs (PCIe 6.0 section 9.3.3.7).
const NUM_VFS: u16 = 0x10;

/// Enables `n` VFs. Does nothing if exactly `n` are enabled already: clearing VF Enable would reset them.
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
    // NumVFs may change only while VF Enable is clear (PCIe 6.0 section 9.3.3.7).
    let cleared = control & !(CONTROL_VF_ENABLE | CONTROL_VF_MEMORY);
    device.config_write_u16(at + CONTROL, cleared)?;
    device.config_write_u16(at + NUM_VFS, n)?;
    if n > 0 {
        device.config_write_u16(at + CONTROL, cleared | CONTROL_VF_ENABLE | CONTROL_VF_MEMORY)?;
    }
    Ok(())
}
