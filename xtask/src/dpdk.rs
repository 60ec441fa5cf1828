//! DPDK's testpmd, the other side of vhost-user rings in a test: the system's, or Debian's run out of the cache.
//!
//! The package with testpmd depends on all that is needed to build with DPDK, which would replace parts of the system. So
//! it is unpacked beside the libraries that testpmd links with, and nothing is installed.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use crate::apt_root::{AptRoot, SUITE};
use crate::failure::{Context, Result};
use crate::folder::{beside, remove_dir, replace_dir};
use crate::run;
use crate::workspace::Workspace;

/// The package with testpmd.
const PACKAGE: &str = "dpdk-dev";
/// Starts testpmd with the dynamic loader, libraries and drivers that lie beside it.
const LAUNCHER: &str = "#!/bin/sh
here=$(dirname \"$(readlink -f \"$0\")\")
libraries=$here/usr/lib/x86_64-linux-gnu
exec \"$libraries/ld-linux-x86-64.so.2\" --library-path \"$libraries\" \\
    \"$here/tools/usr/bin/dpdk-testpmd\" -d \"$(echo \"$libraries\"/dpdk/pmds-*)\" \"$@\"
";

/// The program to start.
pub(crate) fn testpmd(workspace: &Workspace) -> Result<PathBuf> {
    if let Some(system) = run::find_program("dpdk-testpmd") {
        return Ok(system);
    }
    let _lock = workspace.lock_cache()?;
    let folder = workspace.cache()?.join("dpdk-testpmd");
    let launcher = folder.join("testpmd");
    if launcher.is_file() {
        return Ok(launcher);
    }
    println!("the system has no dpdk-testpmd: fetching one from {SUITE} into the cache");
    let apt = AptRoot::open(workspace)?;
    let partial = beside(&folder, "new");
    remove_dir(&partial)?;
    let needed = apt.depends(PACKAGE)?;
    let mut libraries: Vec<&str> =
        needed.iter().map(String::as_str).filter(|name| is_library(name)).collect();
    // What the test uses, and testpmd loads by itself: of the version that the others have.
    let version = libraries.iter().find_map(|name| name.strip_prefix("librte-eal"));
    let version = version.ok_or("the package of testpmd names no librte-eal")?;
    let drivers = ["librte-net-virtio", "librte-mempool-ring"].map(|name| format!("{name}{version}"));
    libraries.extend(drivers.iter().map(String::as_str));
    apt.unpack_with_dependencies(&libraries, SUITE, &partial)?;
    apt.unpack(&[PACKAGE], &partial.join("tools"))?;
    let new = partial.join("testpmd");
    fs::write(&new, LAUNCHER)
        .and_then(|()| fs::set_permissions(&new, fs::Permissions::from_mode(0o755)))
        .context(|| format!("cannot write {}", new.display()))?;
    // Knows its drivers without taking any memory or processor.
    if !run::succeeds(Command::new(&new).args([
        "--no-huge",
        "--no-pci",
        "--no-shconf",
        "-m",
        "64",
        "--",
        "--help",
    ])) {
        return Err(format!("the testpmd in {} does not start", partial.display()).into());
    }
    replace_dir(&partial, &folder)?;
    Ok(launcher)
}

/// Whether a package has a library to run with, and not what is needed to build.
fn is_library(name: &str) -> bool {
    name.starts_with("lib") && !name.ends_with("-dev")
        || name.starts_with("zlib")
        || name == "ibverbs-providers"
}
