//! Open vSwitch with DPDK for the benchmarks: found, installed, or requested from the user.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::Command;

use crate::failure::{Context, Result};
use crate::run;

/// Debian's build with DPDK.
const SWITCH: &str = "/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk";
/// Folders of DPDK's drivers, one for each version of its ABI.
const DRIVERS: &str = "/usr/lib/x86_64-linux-gnu/dpdk";
/// The drivers in use: ports without hardware, and the memory of packet buffers.
const USED: [&str; 2] = ["net-null", "mempool-ring"];
/// The script that decides whether packages may start services (Debian Policy 9.3.3).
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Installs Open vSwitch if it is missing.
pub(super) fn prepare() -> Result<()> {
    if complete() {
        return Ok(());
    }
    let mut packages = vec!["openvswitch-switch-dpdk".to_owned(), "util-linux".into(), "iproute2".into()];
    for driver in USED {
        packages.push(package(driver)?);
    }
    let install = format!("apt-get install --no-install-recommends {}", packages.join(" "));
    if !rustix::process::geteuid().is_root() {
        return Err(format!("Open vSwitch with DPDK is missing; as root: {install}").into());
    }
    let _quiet = NoServices::begin()?;
    let mut command = Command::new("apt-get");
    command.args(["install", "-q", "-y", "--no-install-recommends"]).args(&packages);
    eprintln!("$ {}", run::shown(&command));
    run::output(command.env("DEBIAN_FRONTEND", "noninteractive"))?;
    eprintln!(
        "Open vSwitch was installed and not started; to keep it from starting at boot: \
         systemctl disable openvswitch-switch"
    );
    if complete() {
        Ok(())
    } else {
        Err(format!("{SWITCH} or its drivers are missing after `{install}`").into())
    }
}

fn complete() -> bool {
    let folders = || fs::read_dir(DRIVERS).into_iter().flatten().flatten();
    let has = |driver: &str| {
        let prefix = format!("librte_{}.so", driver.replace('-', "_"));
        folders().any(|folder| {
            let files = fs::read_dir(folder.path()).into_iter().flatten().flatten();
            files.into_iter().any(|file| file.file_name().to_string_lossy().starts_with(&prefix))
        })
    };
    Path::new(SWITCH).is_file() && run::find_program("setpriv").is_some() && USED.into_iter().all(has)
}

/// The package of a driver, whose name ends with the ABI's version.
fn package(driver: &str) -> Result<String> {
    let pattern = format!("^librte-{driver}[0-9]+$");
    let mut search = Command::new("apt-cache");
    let found = run::output(search.args(["search", "--names-only", &pattern]))?;
    let name = found.lines().filter_map(|line| line.split_whitespace().next()).max();
    name.map(str::to_owned).ok_or_else(|| {
        format!(
            "this system's apt offers no librte-{driver}: run `apt-get update`, or use Debian 12 or newer"
        )
        .into()
    })
}

/// Prevents installed packages from starting services, until this is dropped.
struct NoServices {
    created: bool,
}

impl NoServices {
    fn begin() -> Result<Self> {
        // Respect an existing script.
        if Path::new(POLICY).exists() {
            return Ok(NoServices { created: false });
        }
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o755).open(POLICY);
        let written = file.and_then(|mut file| file.write_all(b"#!/bin/sh\nexit 101\n"));
        written.context(|| format!("cannot write {POLICY}"))?;
        Ok(NoServices { created: true })
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.created
            && let Err(error) = fs::remove_file(POLICY)
        {
            eprintln!("cannot remove {POLICY}: {error}");
        }
    }
}
