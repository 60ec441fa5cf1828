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
use crate::wait::poll;

/// Prefix of the console lines that the guest's scripts print for this module.
const MARK: &str = "culvert-guest: ";

/// What a guest is started with.
#[derive(Clone, Copy, Debug)]
pub struct LinuxGuestConfig<'a> {
    /// Its name, for messages.
    pub name: &'a str,
    /// Sockets of its VFs; the first is `eth0`.
    pub vfs: &'a [&'a Path],
    /// In place of a VF: the vhost-user socket that serves `eth0`, and its MAC.
    pub vhost_user: Option<(&'a Path, &'a str)>,
    /// Address and prefix length of `eth0`, such as `10.1.1.11/24`.
    pub ip: &'a str,
    /// Where other subnets are.
    pub gateway: Option<IpAddr>,
}

/// What the guest says once it is up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Up {
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

/// What a command of the guest printed, and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Exit status; 0 is success.
    pub status: i32,
    /// What it printed on both streams.
    pub text: String,
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

/// What is unusual about a VM's machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct Machine<'a> {
    /// QEMU keeps the guest's memory to itself: the board has to ask for it by messages.
    pub unshared: bool,
    /// More of the kernel's command line.
    pub kernel_line: &'a str,
}

impl LinuxGuest {
    /// The folder that `cargo xtask linux-guest` prepared: `$CULVERT_LINUX_GUEST`, or the one in the output folder of the
    /// program that runs now.
    ///
    /// # Errors
    /// It is not there.
    pub fn folder() -> Result<PathBuf, String> {
        let beside_us = || {
            std::env::current_exe()
                .ok()?
                .ancestors()
                .map(|dir| dir.join("linux-guest"))
                .find(|dir| dir.is_dir())
        };
        let folder = std::env::var_os("CULVERT_LINUX_GUEST").map(PathBuf::from).or_else(beside_us);
        folder
            .filter(|dir| dir.is_dir())
            .ok_or_else(|| "no Linux guest: run `cargo xtask linux-guest`".to_owned())
    }

    /// Starts a VM on an unusual machine and waits until it has booted.
    ///
    /// # Errors
    /// As for [`boot`](Self::boot).
    pub fn boot_on(
        machine: &Machine<'_>,
        config: &LinuxGuestConfig<'_>,
        log: &Path,
        limit: Duration,
    ) -> Result<(Self, Up), String> {
        let mut guest = LinuxGuest::start_on(machine, &LinuxGuest::folder()?, config, log)?;
        let up = guest.wait_up(limit)?;
        Ok((guest, up))
    }

    /// Starts a VM and waits until it has booted.
    ///
    /// # Errors
    /// As for [`folder`](Self::folder), [`start`](Self::start) and [`wait_up`](Self::wait_up).
    pub fn boot(config: &LinuxGuestConfig<'_>, log: &Path, limit: Duration) -> Result<(Self, Up), String> {
        let mut guest = LinuxGuest::start(&LinuxGuest::folder()?, config, log)?;
        let up = guest.wait_up(limit)?;
        Ok((guest, up))
    }

    /// Starts the VM; `folder` is what `cargo xtask linux-guest` prepared, the console goes to `log`.
    ///
    /// # Errors
    /// The folder is incomplete or QEMU does not start.
    pub fn start(folder: &Path, config: &LinuxGuestConfig<'_>, log: &Path) -> Result<Self, String> {
        LinuxGuest::start_on(&Machine::default(), folder, config, log)
    }

    /// Starts the VM on an unusual machine.
    ///
    /// # Errors
    /// As for [`start`](Self::start).
    pub fn start_on(
        machine: &Machine<'_>,
        folder: &Path,
        config: &LinuxGuestConfig<'_>,
        log: &Path,
    ) -> Result<Self, String> {
        let program = folder.join("qemu");
        if !program.exists() {
            return Err(format!("no Linux guest in {}: run `cargo xtask linux-guest`", folder.display()));
        }
        let mut command = Command::new(&program);
        // QEMU shares the guest's memory with the board, which copies frames from and to it.
        command.args(["-machine", "q35,memory-backend=memory", "-accel", "tcg", "-cpu", "max", "-m", "256"]);
        let memory = if machine.unshared { "ram,id=memory" } else { "memfd,id=memory,share=on" };
        command.args(["-object", &format!("memory-backend-{memory},size=256M")]);
        command.args(["-nodefaults", "-display", "none", "-serial", "stdio"]);
        command.arg("-kernel").arg(folder.join("vmlinuz")).arg("-initrd").arg(folder.join("initramfs"));
        let mut line =
            format!("console=ttyS0 quiet panic=-1 culvert.ip={} {}", config.ip, machine.kernel_line);
        if let Some(gateway) = config.gateway {
            line += &format!(" culvert.gateway={gateway}");
        }
        command.args(["-append", &line]);
        for (index, vf) in config.vfs.iter().enumerate() {
            let device = serde_json::json!({
                "driver": "vfio-user-pci",
                "id": format!("vf{index}"),
                "socket": { "type": "unix", "path": vf },
            });
            command.args(["-device", &device.to_string()]);
        }
        if let Some((socket, mac)) = config.vhost_user {
            let socket = format!("socket,id=port,path={},reconnect-ms=200", socket.display());
            command.args(["-chardev", &socket, "-netdev", "vhost-user,id=net,chardev=port,queues=2"]);
            // QEMU's default of 256 descriptors is too small for a sender that segments into 45 frames at a time.
            let options = "virtio-net-pci,netdev=net,mq=on,vectors=6,rx_queue_size=1024,romfile=";
            command.args(["-device", &format!("{options},mac={mac}")]);
        }
        let open = |e: std::io::Error| format!("{}: {e}", log.display());
        let output = File::create(log).map_err(open)?;
        command.stdin(Stdio::piped()).stderr(output.try_clone().map_err(open)?).stdout(output);
        die_with_parent(&mut command);
        let mut child = command.spawn().map_err(|e| format!("{}: {e}", program.display()))?;
        let console = child.stdin.take().ok_or("the VM has no console")?;
        Ok(LinuxGuest { name: config.name.to_owned(), child, console, log: log.to_owned(), read: 0 })
    }

    /// The VM's process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Stops QEMU until [`resume`](Self::resume).
    ///
    /// # Errors
    /// It has ended.
    pub fn pause(&self) -> Result<(), String> {
        self.signal("STOP")
    }

    /// Lets QEMU run again.
    ///
    /// # Errors
    /// It has ended.
    pub fn resume(&self) -> Result<(), String> {
        self.signal("CONT")
    }

    fn signal(&self, name: &str) -> Result<(), String> {
        let status = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status();
        if status.is_ok_and(|s| s.success()) { Ok(()) } else { Err(format!("{} has ended", self.name)) }
    }

    /// The console's log.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Waits until the guest has booted.
    ///
    /// # Errors
    /// It does not within the limit, or QEMU ends: with the last lines of the console.
    pub fn wait_up(&mut self, limit: Duration) -> Result<Up, String> {
        let (_, line) = self.marked("up ", limit)?;
        Ok(parse_up(&line))
    }

    /// Runs a shell command in the guest.
    ///
    /// # Errors
    /// It does not end within the limit, or QEMU ends: with the last lines of the console. A command that fails is no error:
    /// see [`Finished::status`].
    pub fn run(&mut self, command: &str, limit: Duration) -> Result<Finished, String> {
        self.tell(&format!("({}) 2>&1", command.replace('\n', " ")))?;
        let (text, line) = self.marked("status ", limit)?;
        let status = line.trim().parse().map_err(|_| format!("{}: invalid status {line:?}", self.name))?;
        Ok(Finished { status, text })
    }

    /// Runs a shell command in the guest, which must succeed. Returns what it printed, without white space at the ends.
    ///
    /// # Errors
    /// As for [`run`](Self::run), or the command fails.
    pub fn output(&mut self, command: &str, limit: Duration) -> Result<String, String> {
        let finished = self.run(command, limit)?;
        match finished.status {
            0 => Ok(finished.text.trim().to_owned()),
            status => Err(format!("{command}: status {status}: {}", finished.text)),
        }
    }

    /// Reboots the guest and waits until it is up again.
    ///
    /// # Errors
    /// As for [`wait_up`](Self::wait_up).
    pub fn reboot(&mut self, limit: Duration) -> Result<Up, String> {
        self.tell("reboot")?;
        self.wait_up(limit)
    }

    /// Powers the guest off and waits until QEMU has ended.
    ///
    /// # Errors
    /// It does not within the limit.
    pub fn power_off(mut self, limit: Duration) -> Result<(), String> {
        self.tell("poweroff")?;
        let ended = || Ok::<_, String>(matches!(self.child.try_wait(), Ok(Some(_))));
        if poll(limit, Duration::from_millis(20), ended)? {
            return Ok(());
        }
        Err(format!("{}: does not power off within {} s:\n{}", self.name, limit.as_secs(), self.tail()))
    }

    fn tell(&mut self, line: &str) -> Result<(), String> {
        let written = writeln!(self.console, "{line}").and_then(|()| self.console.flush());
        written.map_err(|e| format!("{}: the console is closed ({e}):\n{}", self.name, self.tail()))
    }

    /// Waits for a complete marked line of this kind. Returns the text before it, and the rest of the line.
    fn marked(&mut self, kind: &str, limit: Duration) -> Result<(String, String), String> {
        let end = Instant::now() + limit;
        loop {
            let ended = !matches!(self.child.try_wait(), Ok(None));
            let bytes = fs::read(&self.log).unwrap_or_default();
            let new = String::from_utf8_lossy(bytes.get(self.read..).unwrap_or_default()).replace('\r', "");
            let found = new.split_once(&format!("{MARK}{kind}")).and_then(|(text, rest)| {
                let (line, _) = rest.split_once('\n')?;
                Some((text.to_owned(), line.to_owned()))
            });
            if let Some(found) = found {
                // After a marked line the guest prints nothing until it gets a command.
                self.read = bytes.len();
                return Ok(found);
            }
            if ended {
                return Err(format!("{}: the VM has ended:\n{}", self.name, self.tail()));
            }
            if Instant::now() > end {
                let seconds = limit.as_secs();
                return Err(format!("{}: no {kind:?} within {seconds} s:\n{}", self.name, self.tail()));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The last lines of the console, for messages.
    fn tail(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }
}

impl Drop for LinuxGuest {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Reads `at SECONDS kernel RELEASE [nic NAME MAC driver NAME mtu N]`.
fn parse_up(line: &str) -> Up {
    let words: Vec<&str> = line.split_whitespace().collect();
    let after = |word: &str, n: usize| {
        let at = words.iter().position(|w| *w == word)?;
        words.get(at + n).map(|w| (*w).to_owned())
    };
    let nic = after("nic", 2).map(|mac| Nic {
        mac,
        driver: after("driver", 1).unwrap_or_default(),
        mtu: after("mtu", 1).and_then(|mtu| mtu.parse().ok()).unwrap_or(0),
    });
    Up { kernel: after("kernel", 1).unwrap_or_default(), nic }
}
