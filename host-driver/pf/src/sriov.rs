//! VFs: what the host allows each, and making them exist.

use culvert_abi::regs::{
    VF_ALLOW_MAC, VF_ALLOW_PROMISC, VF_DRIVER_OK, VF_FLAGS, VF_LINK_UP, VF_MAC_HIGH, VF_MAC_LOW, VF_MTU,
    VF_STRIDE, VF_UPCALL_SHARE, VFS,
};
use culvert_offload::VfConfig;
use culvert_pci::VfHandle;

use crate::mailbox::mac_words;
use crate::{Nic, Result};

fn register(vf: u16, offset: u32) -> u32 {
    VFS + u32::from(vf) * VF_STRIDE + offset
}

impl Nic {
    /// Writes what VF `vf` is to be. A guest that runs already sees it when it asks.
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

    /// Makes VFs 0 to `n - 1` exist, after writing what the first of them are to be. If as many exist already they are
    /// left running.
    ///
    /// # Errors
    /// The NIC has not as many, or they do not appear.
    pub fn enable_vfs(&self, n: u16, configs: &[VfConfig]) -> Result<Vec<VfHandle>> {
        for (vf, config) in (0..n).zip(configs) {
            self.configure_vf(vf, config)?;
        }
        Ok(self.shared.device.enable_vfs(n)?)
    }

    /// Whether a driver runs VF `vf`.
    ///
    /// # Errors
    /// The device is lost.
    pub fn vf_is_driven(&self, vf: u16) -> Result<bool> {
        Ok(self.shared.bar.read(register(vf, VF_DRIVER_OK))? != 0)
    }
}
