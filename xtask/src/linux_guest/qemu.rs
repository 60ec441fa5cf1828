//! A QEMU with `vfio-user-pci`: the system's, or one from a newer suite run out of the cache with its own libraries.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use crate::apt_root::{AptRoot, BACKPORTS};
use crate::failure::{Context, Result};
use crate::folder::{beside, remove_dir, replace_dir};
use crate::run;
use crate::workspace::Workspace;

/// Starts QEMU with the dynamic loader, libraries, modules and data that lie beside it.
const LAUNCHER: &str = "#!/bin/sh
here=$(dirname \"$(readlink -f \"$0\")\")
libraries=$here/usr/lib/x86_64-linux-gnu
export QEMU_MODULE_DIR=$libraries/qemu
exec $libraries/ld-linux-x86-64.so.2 --library-path $libraries:$libraries/pulseaudio:$libraries/qemu \\
    $here/usr/bin/qemu-system-x86_64 \\
    -L $here/usr/share/qemu -L $here/usr/share/seabios -L $here/usr/lib/ipxe/qemu \"$@\"
";

/// The program to start.
pub(super) fn find(workspace: &Workspace) -> Result<PathBuf> {
    if let Some(system) = run::find_program("qemu-system-x86_64").filter(speaks_vfio_user) {
        return Ok(system);
    }
    let folder = workspace.cache()?.join("qemu-vfio-user");
    let launcher = folder.join("qemu-system-x86_64");
    if launcher.is_file() {
        return Ok(launcher);
    }
    println!(
        "the system has no QEMU with vfio-user-pci (10.1 or newer): fetching one from {BACKPORTS} into the cache"
    );
    let apt = AptRoot::open(workspace)?;
    let partial = beside(&folder, "new");
    remove_dir(&partial)?;
    // OVMF is a firmware for EFI guests, larger than all the rest.
    apt.unpack_with_dependencies(&["qemu-system-x86", "ovmf-"], BACKPORTS, &partial)?;
    let new = partial.join("qemu-system-x86_64");
    fs::write(&new, LAUNCHER)
        .and_then(|()| fs::set_permissions(&new, fs::Permissions::from_mode(0o755)))
        .context(|| format!("cannot write {}", new.display()))?;
    if !speaks_vfio_user(&new) {
        return Err(
            format!("the QEMU in {} does not start or has no vfio-user-pci", partial.display()).into()
        );
    }
    replace_dir(&partial, &folder)?;
    Ok(launcher)
}

fn speaks_vfio_user(program: &PathBuf) -> bool {
    run::succeeds(Command::new(program).args(["-device", "vfio-user-pci,help"]))
}
