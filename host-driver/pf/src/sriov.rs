//! Configures and enables VFs.

use culvert_abi::regs::{
    VF_ALLOW_MAC, VF_ALLOW_PROMISC, VF_DRIVER_OK, VF_FLAGS, VF_LINK_UP, VF_MAC_HIGH, VF_MAC_LOW, VF_MTU,
    VF_STRIDE, VF_UPCALL_SHARE, VFS,
};
use culvert_offload::VfConfig;
use culvert_pci::VfHandle;

use crate::Result;
use crate::mailbox::mac_words;
use crate::nic::Nic;

/// The register of VF `vf` at this offset of its block.
fn register(vf: u16, offset: u32) -> u32 {
    VFS + u32::from(vf) * VF_STRIDE + offset
}

impl Nic {
    /// Configures VF `vf`. A running guest sees the change when it reads its configuration.
    ///
    /// # Errors
    /// The device is lost.
    pub fn configure_vf(&self, vf: u16, config: &VfConfig) -> Result<()> {
        let bar = &self.shared.bar;
        let [low, high] = mac_words(config.mac);
        bar.write(register(vf, VF_MAC_LOW), low)?;
        bar.write(register(vf, VF_MAC_HIGH), high)?;
        bar.write(register(vf, VF_MTU), u32::from(config.mtu))?;
        bar.write(register(vf, VF_UPCALL_SHARE), u32::from(config.upcall_share))?;
        let flag = |on: bool, bit: u32| if on { bit } else { 0 };
        let flags = flag(config.link_up, VF_LINK_UP)
            | flag(config.allow_mac_change, VF_ALLOW_MAC)
            | flag(config.allow_promisc, VF_ALLOW_PROMISC);
        bar.write(register(vf, VF_FLAGS), flags)
    }

    /// Configures VFs by `configs`, then enables VFs 0 to `n - 1`. If exactly these are enabled already, they keep running.
    ///
    /// # Errors
    /// The NIC has fewer VFs, or they do not appear in time.
    pub fn enable_vfs(&self, n: u16, configs: &[VfConfig]) -> Result<Vec<VfHandle>> {
        for (vf, config) in (0..n).zip(configs) {
            self.configure_vf(vf, config)?;
        }
        Ok(self.shared.device.enable_vfs(n)?)
    }

    /// Whether a guest's driver runs VF `vf`.
    ///
    /// # Errors
    /// The device is lost.
    pub fn vf_is_driven(&self, vf: u16) -> Result<bool> {
        Ok(self.shared.bar.read(register(vf, VF_DRIVER_OK))? != 0)
    }
}
