//! `cargo xtask linux-guest`: a stock Linux guest for the VFs: QEMU that speaks vfio-user, Debian's kernel, a small initramfs.
//!
//! The result is a folder with `qemu` (a program or a launcher), `vmlinuz` and `initramfs`; tests/e2e knows how to start them.

mod cpio;
mod initramfs;
mod kernel;
mod qemu;
#[cfg(test)]
mod tests;

use std::env;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use clap::Args;

use crate::failure::{Context, Result};
use crate::folder::create_dir;
use crate::workspace::Workspace;

/// What to do with the guest.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Boot it once without a NIC and report the time to user space.
    #[arg(long)]
    boot: bool,
}

pub(crate) fn execute(workspace: &Workspace, options: &Options) -> Result<()> {
    let folder = prepare(workspace)?;
    println!("Linux guest: {}", folder.display());
    if options.boot { boot(&folder) } else { Ok(()) }
}

/// Fetches what is not in the cache, makes the initramfs, and returns the folder with the three files.
pub(crate) fn prepare(workspace: &Workspace) -> Result<PathBuf> {
    if env::consts::ARCH != "x86_64" {
        return Err(format!("the Linux guest needs an x86-64 machine; this is {}", env::consts::ARCH).into());
    }
    let _lock = workspace.lock_cache()?;
    let qemu = qemu::find(workspace)?;
    let kernel = kernel::find(workspace)?;
    let folder = workspace.target.join("linux-guest");
    create_dir(&folder)?;
    link(&qemu, &folder.join("qemu"))?;
    link(&kernel.join("vmlinuz"), &folder.join("vmlinuz"))?;
    let archive = initramfs::build(&kernel)?;
    let path = folder.join("initramfs");
    fs::write(&path, archive).context(|| format!("cannot write {}", path.display()))?;
    Ok(folder)
}

fn link(to: &Path, from: &Path) -> Result<()> {
    if fs::read_link(from).is_ok_and(|old| old == to) {
        return Ok(());
    }
    let _ = fs::remove_file(from);
    symlink(to, from).context(|| format!("cannot link {} to {}", from.display(), to.display()))
}

/// Boots the guest without a NIC and waits for its first line on the console.
fn boot(folder: &Path) -> Result<()> {
    const LIMIT: Duration = Duration::from_secs(60);
    let log = folder.join("boot.log");
    let output = fs::File::create(&log).context(|| format!("cannot create {}", log.display()))?;
    let start = Instant::now();
    let mut guest = Command::new(folder.join("qemu"))
        .args(["-M", "q35", "-accel", "tcg", "-cpu", "max", "-m", "256", "-nodefaults", "-display", "none"])
        .args(["-no-reboot", "-serial", "stdio", "-append", "console=ttyS0 quiet panic=-1"])
        .arg("-kernel")
        .arg(folder.join("vmlinuz"))
        .arg("-initrd")
        .arg(folder.join("initramfs"))
        .stdin(Stdio::piped())
        .stderr(output.try_clone().context(|| "cannot share the log file")?)
        .stdout(output)
        .spawn()
        .context(|| "cannot start the guest")?;
    let mut up = false;
    while !up && start.elapsed() < LIMIT && guest.try_wait().context(|| "waiting for the guest")?.is_none() {
        std::thread::sleep(Duration::from_millis(20));
        up = fs::read_to_string(&log).unwrap_or_default().contains("culvert-guest: up");
    }
    let time = start.elapsed();
    let _ = guest.kill();
    let _ = guest.wait();
    if up {
        println!("user space after {:.1} s", time.as_secs_f64());
        return Ok(());
    }
    Err(format!(
        "the guest did not reach user space within {} s; its console is in {}",
        LIMIT.as_secs(),
        log.display()
    )
    .into())
}
