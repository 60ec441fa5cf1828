//! A stock Linux VM on VFs: QEMU with `vfio-user-pci`, Debian's kernel, its unchanged virtio_net.
//!
//! `cargo xtask linux-guest` prepares the folder with `qemu`, `vmlinuz` and `initramfs`. The guest configures `eth0` itself, at
//! every boot, from what it was started with; then its console takes shell commands:
//!
//! 1. [`LinuxGuest::start`], [`LinuxGuest::wait_up`]: booted, NIC bound.
//! 2. [`LinuxGuest::run`]: any busybox command (`ping -c 5 10.1.1.12`, `nc 10.1.1.12 5000 < /tmp/file`).
//! 3. [`LinuxGuest::reboot`]: the same VM, the same VFs, once more.

use std::fs::{self, File};
use std::io::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use crate::process::die_with_parent;

/// Begins every line of the console that is for us.
const MARK: &str = "culvert-guest: ";

/// What a guest is started with.
#[derive(Clone, Copy, Debug)]
pub struct LinuxGuestConfig<'a> {
    /// Its name, for messages.
    pub name: &'a str,
    /// Sockets of its VFs; the first becomes `eth0`.
    pub vfs: &'a [&'a Path],
    /// Address and prefix length of `eth0`, such as `10.1.1.11/24`.
    pub ip: &'a str,
    /// Where other subnets are.
    pub gateway: Option<IpAddr>,
}

/// What the guest says once it is up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Up {
    /// Seconds since the kernel started.
    pub seconds: f64_text::Seconds,
    /// Release of the kernel.
    pub kernel: String,
    /// Its NIC, if it has one.
    pub nic: Option<Nic>,
}

/// The guest's NIC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nic {
    /// Its MAC address, as Linux writes it.
    pub mac: String,
    /// The driver that is bound to it.
    pub driver: String,
    /// Its MTU.
    pub mtu: u16,
}

/// A running guest. It is killed when this is dropped.
#[derive(Debug)]
pub struct LinuxGuest {
    name: String,
    child: Child,
    console: ChildStdin,
    log: PathBuf,
    /// Bytes of the log that have been read.
    read: usize,
}
