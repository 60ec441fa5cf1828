//! A PCI function in sysfs: checks that VFIO can open it, and enables its VFs.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::address::{FunctionAddress, full_address};
use crate::{Error, Result, VfHandle};

/// Time limit for the kernel to create VFs.
const VFS_LIMIT: Duration = Duration::from_secs(10);

/// A function's directory in sysfs. Tests choose other roots than `/sys` and `/dev`.
pub(super) struct Sysfs {
    bdf: String,
    dir: PathBuf,
    dev: PathBuf,
}

impl Sysfs {
    pub(super) fn new(bdf: &str, sys: &Path, dev: &Path) -> Result<Self> {
        let bdf = full_address(bdf).ok_or_else(|| Error::Address(bdf.into()))?;
        let dir = sys.join("bus/pci/devices").join(&bdf);
        Ok(Self { bdf, dir, dev: dev.into() })
    }

    pub(super) fn bdf(&self) -> &str {
        &self.bdf
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// An [`Error::Open`] for this function.
    fn problem(&self, problem: impl Into<String>, remedy: &'static str) -> Error {
        Error::Open { device: self.bdf.clone(), problem: problem.into(), remedy }
    }

    /// The last component of a symbolic link's target.
    fn link(&self, name: &str) -> Option<String> {
        let target = fs::read_link(self.dir.join(name)).ok()?;
        Some(target.file_name()?.to_string_lossy().into_owned())
    }

    /// Checks all that VFIO needs to open the function: IOMMU group, driver, device files.
    pub(super) fn check(&self) -> Result<()> {
        if !self.dir.exists() {
            return Err(self.problem("no such PCI function", "`lspci -D` lists them"));
        }
        let group = self.link("iommu_group").ok_or_else(|| {
            let remedy = "turn it on in the firmware's set-up and boot with intel_iommu=on or amd_iommu=on";
            self.problem("it has no IOMMU group, so the IOMMU is off", remedy)
        })?;
        let driver = self.link("driver");
        if driver.as_deref() != Some("vfio-pci") {
            let bound =
                driver.map_or("bound to no driver".into(), |d| format!("bound to {d}, not to vfio-pci"));
            let remedy = "write vfio-pci to its driver_override, unbind it, and bind it to vfio-pci";
            return Err(self.problem(bound, remedy));
        }
        let vfio = self.dev.join("vfio");
        for file in ["vfio", &group] {
            let path = vfio.join(file);
            if let Err(e) = fs::OpenOptions::new().read(true).write(true).open(&path)
                // A busy group may be this process's own; the container reports it otherwise.
                && e.raw_os_error() != Some(rustix::io::Errno::BUSY.raw_os_error())
            {
                let remedy = "load the module vfio-pci, and run as root or own the group's file";
                return Err(self.problem(format!("{}: {e}", path.display()), remedy));
            }
        }
        Ok(())
    }

    /// Reads a number from a file of the directory.
    fn number(&self, file: &str) -> Result<u16> {
        let missing =
            || Error::Missing { device: self.bdf.clone(), what: format!("SR-IOV ({file} in sysfs)") };
        let text = fs::read_to_string(self.dir.join(file)).map_err(|_| missing())?;
        text.trim().parse().map_err(|_| missing())
    }

    /// Enables `n` VFs and returns their addresses.
    pub(super) fn set_num_vfs(&self, n: u16) -> Result<Vec<VfHandle>> {
        let total = self.number("sriov_totalvfs")?;
        if n > total {
            return Err(Error::TooManyVfs { device: self.bdf.clone(), wanted: n, total });
        }
        let now = self.number("sriov_numvfs")?;
        if now != n {
            // The kernel refuses a change from one number to another without 0 between them.
            for value in [Some(0).filter(|_| now != 0), Some(n).filter(|n| *n != 0)].into_iter().flatten() {
                let file = self.dir.join("sriov_numvfs");
                fs::write(&file, value.to_string())
                    .map_err(|e| Error::system(format!("writing {value} to {}", file.display()), e))?;
            }
        }
        let deadline = Instant::now() + VFS_LIMIT;
        (0..n).map(|index| Ok(VfHandle { index, address: self.vf(index, deadline)? })).collect()
    }

    /// Waits for VF `index` and returns its address.
    fn vf(&self, index: u16, deadline: Instant) -> Result<FunctionAddress> {
        loop {
            if let Some(bdf) = self.link(&format!("virtfn{index}")) {
                return Ok(FunctionAddress::Pci(bdf));
            }
            if Instant::now() > deadline {
                let (device, request) = (self.bdf.clone(), "sriov_numvfs (no virtfn appeared)");
                return Err(Error::Timeout { device, request, limit: VFS_LIMIT });
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
