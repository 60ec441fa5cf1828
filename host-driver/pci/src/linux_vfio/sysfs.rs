//! What sysfs says of a PCI function: whether VFIO can open it, and its VFs.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::{Error, FunctionAddress, Result, VfHandle};

/// How long the kernel may take to make VFs.
const VFS_LIMIT: Duration = Duration::from_secs(10);

/// A PCI address with its domain, in lower case: `03:00.0` becomes `0000:03:00.0`. `None` if it is none.
#[must_use]
pub fn full_address(text: &str) -> Option<String> {
    let hex = |part: &str, digits: usize| part.len() == digits && part.bytes().all(|b| b.is_ascii_hexdigit());
    let parts: Vec<&str> = text.split(':').collect();
    let (domain, bus, rest) = match parts[..] {
        [bus, rest] => ("0000", bus, rest),
        [domain, bus, rest] => (domain, bus, rest),
        _ => return None,
    };
    let (device, function) = rest.split_once('.')?;
    let function_ok = matches!(function.as_bytes(), [b'0'..=b'7']);
    let good = hex(domain, 4) && hex(bus, 2) && hex(device, 2) && function_ok;
    good.then(|| format!("{domain}:{bus}:{device}.{function}").to_ascii_lowercase())
}

/// A function's directory in sysfs. The roots can be others in tests.
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

    fn problem(&self, problem: impl Into<String>, remedy: &'static str) -> Error {
        Error::Open { device: self.bdf.clone(), problem: problem.into(), remedy }
    }

    /// The last part of a link in the directory.
    fn link(&self, name: &str) -> Option<String> {
        let target = fs::read_link(self.dir.join(name)).ok()?;
        Some(target.file_name()?.to_string_lossy().into_owned())
    }

    /// Checks what has to be in place before VFIO can open the function.
    pub(super) fn check(&self) -> Result<()> {
        if !self.dir.exists() {
            return Err(self.problem("there is no such PCI function", "`lspci -D` lists them"));
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
                // An open group is fine if it is ours; the container will say so.
                && e.raw_os_error() != Some(rustix::io::Errno::BUSY.raw_os_error())
            {
                let remedy = "load the module vfio-pci, and run as root or own the group's file";
                return Err(self.problem(format!("{}: {e}", path.display()), remedy));
            }
        }
        Ok(())
    }

    fn number(&self, file: &str) -> Result<u16> {
        let missing =
            || Error::Missing { device: self.bdf.clone(), what: format!("SR-IOV ({file} in sysfs)") };
        let text = fs::read_to_string(self.dir.join(file)).map_err(|_| missing())?;
        text.trim().parse().map_err(|_| missing())
    }

    /// Makes `n` VFs exist and names them.
    pub(super) fn set_num_vfs(&self, n: u16) -> Result<Vec<VfHandle>> {
        let total = self.number("sriov_totalvfs")?;
        if n > total {
            return Err(Error::TooManyVfs { device: self.bdf.clone(), wanted: n, total });
        }
        let now = self.number("sriov_numvfs")?;
        if now != n {
            // The kernel refuses to go from one number to another in one step.
            for value in [Some(0).filter(|_| now != 0), Some(n).filter(|n| *n != 0)].into_iter().flatten() {
                let file = self.dir.join("sriov_numvfs");
                fs::write(&file, value.to_string())
                    .map_err(|e| Error::system(format!("writing {value} to {}", file.display()), e))?;
            }
        }
        let deadline = Instant::now() + VFS_LIMIT;
        (0..n).map(|index| Ok(VfHandle { index, address: self.vf(index, deadline)? })).collect()
    }

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
