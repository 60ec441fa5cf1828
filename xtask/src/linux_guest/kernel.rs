//! Debian's kernel for cloud machines, the modules that virtio-net needs, and a static busybox.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::apt_root::AptRoot;
use crate::failure::{Context, Result};
use crate::folder::{beside, create_dir, remove_dir, replace_dir};
use crate::run;
use crate::workspace::Workspace;

/// The package that names the newest kernel.
const KERNEL: &str = "linux-image-cloud-amd64";
/// Modules in the order in which they are loaded; what else virtio-net over PCI needs is built into the kernel.
pub(super) const MODULES: [(&str, &str); 3] =
    [("failover", "net/core"), ("net_failover", "drivers/net"), ("virtio_net", "drivers/net")];

/// The folder with `vmlinuz`, `busybox` and the modules.
pub(super) fn find(workspace: &Workspace) -> Result<PathBuf> {
    let folder = workspace.cache()?.join("linux-guest");
    if folder.is_dir() {
        return Ok(folder);
    }
    println!("fetching a Debian kernel and busybox for the Linux guest into the cache");
    let apt = AptRoot::open(workspace)?;
    let package = apt
        .depends(KERNEL)?
        .into_iter()
        .find(|name| name.starts_with("linux-image-"))
        .ok_or_else(|| format!("{KERNEL} names no kernel"))?;
    let version = package.trim_start_matches("linux-image-").to_owned();
    let unpacked = beside(&folder, "unpacked");
    remove_dir(&unpacked)?;
    apt.unpack(&[&package, "busybox-static"], &unpacked)?;

    let partial = beside(&folder, "new");
    remove_dir(&partial)?;
    create_dir(&partial)?;
    copy(&[unpacked.join("boot").join(format!("vmlinuz-{version}"))], &partial.join("vmlinuz"))?;
    copy(&["bin", "usr/bin"].map(|folder| unpacked.join(folder).join("busybox")), &partial.join("busybox"))?;
    for (name, place) in MODULES {
        let modules = ["usr/lib", "lib"]
            .map(|folder| unpacked.join(folder).join("modules").join(&version).join("kernel").join(place));
        let compressed = partial.join(format!("{name}.ko.xz"));
        if copy(&modules.clone().map(|folder| folder.join(format!("{name}.ko.xz"))), &compressed).is_ok() {
            run::output(Command::new("xz").arg("-d").arg(&compressed))?;
        } else {
            copy(
                &modules.map(|folder| folder.join(format!("{name}.ko"))),
                &partial.join(format!("{name}.ko")),
            )?;
        }
    }
    replace_dir(&partial, &folder)?;
    remove_dir(&unpacked)?;
    Ok(folder)
}

/// Copies the first of the candidates that exists.
fn copy(candidates: &[PathBuf], to: &Path) -> Result<()> {
    let from = candidates
        .iter()
        .find(|path| path.is_file())
        .ok_or_else(|| format!("none of {candidates:?} is in the package"))?;
    fs::copy(from, to).context(|| format!("cannot copy {}", from.display()))?;
    Ok(())
}
