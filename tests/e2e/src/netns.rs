//! The provider network of a deployment: two subnets, each a bridge with both uplinks of a host, joined by a router that
//! is the kernel's own, all inside namespaces that go away with this process.

use std::process::{Child, Command, Stdio};

use crate::process::die_with_parent;

/// Enters a network namespace of our own (and, for an ordinary user, a user namespace in which we are root). To be called
/// before the first thread starts.
///
/// # Errors
/// The kernel refuses namespaces: what to do about it.
pub fn enter() -> Result<(), String> {
    use rustix::thread::UnshareFlags;
    let (uid, gid) = (rustix::process::getuid(), rustix::process::getgid());
    let mut flags = UnshareFlags::NEWNET;
    if !uid.is_root() {
        flags |= UnshareFlags::NEWUSER;
    }
    // SAFETY: no other thread runs yet, and no memory is unshared.
    #[expect(unsafe_code, reason = "unsharing some things is unsafe with threads; these are not among them")]
    let entered = unsafe { rustix::thread::unshare_unsafe(flags) };
    entered.map_err(|e| {
        format!(
            "cannot make a network namespace ({e}): run as root, or allow unprivileged user namespaces \
             (sysctl kernel.unprivileged_userns_clone=1)"
        )
    })?;
    if !uid.is_root() {
        let write = |file: &str, text: String| {
            std::fs::write(format!("/proc/self/{file}"), text).map_err(|e| format!("/proc/self/{file}: {e}"))
        };
        write("setgroups", "deny".to_owned())?;
        write("uid_map", format!("0 {} 1", uid.as_raw()))?;
        write("gid_map", format!("0 {} 1", gid.as_raw()))?;
    }
    ip(&["link", "set", "lo", "up"])
}

/// Runs `ip` in our namespace.
///
/// # Errors
/// What it printed.
pub fn ip(args: &[&str]) -> Result<(), String> {
    run(Command::new("ip").args(args))
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.stdin(Stdio::null()).output().map_err(|e| format!("{command:?}: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

/// The router's namespace and the links into it.
pub struct Network {
    holder: Child,
    hosts: usize,
}

impl Network {
    /// Bytes that a packet of the provider network may have.
    pub const MTU: u16 = 1600;

    /// Builds it for `hosts` hosts: host n has the interfaces `h<n>u0` and `h<n>u1` in our namespace and the subnet
    /// 192.168.n.0/24, whose router is 192.168.n.1.
    ///
    /// # Errors
    /// A step failed: the command and what it printed.
    pub fn new(hosts: usize) -> Result<Self, String> {
        let mut command = Command::new("unshare");
        command.args(["--net", "sleep", "infinity"]).stdin(Stdio::null());
        die_with_parent(&mut command);
        let holder = command.spawn().map_err(|e| format!("unshare: {e}"))?;
        let network = Network { holder, hosts };
        network.wait_for_namespace()?;
        network.router(&["sysctl", "-qw", "net.ipv4.ip_forward=1"])?;
        // No address configuration of its own: nothing but what is tested passes these links.
        network.router(&["sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1"])?;
        network.router(&["sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1"])?;
        run(Command::new("sysctl").args(["-qw", "net.ipv6.conf.default.disable_ipv6=1"]))?;
        let mtu = Self::MTU.to_string();
        for host in 1..=hosts {
            let bridge = format!("br{host}");
            network.router(&[
                "ip",
                "link",
                "add",
                &bridge,
                "mtu",
                &mtu,
                "type",
                "bridge",
                "forward_delay",
                "0",
            ])?;
            for uplink in 0..2 {
                let (ours, theirs) = (Self::interface(host, uplink), format!("r{host}u{uplink}"));
                let pid = network.holder.id().to_string();
                ip(&[
                    "link", "add", &ours, "mtu", &mtu, "type", "veth", "peer", "name", &theirs, "mtu", &mtu,
                ])?;
                ip(&["link", "set", &theirs, "netns", &pid])?;
                ip(&["link", "set", &ours, "up"])?;
                network.router(&["ip", "link", "set", &theirs, "master", &bridge, "up"])?;
            }
            let address = format!("192.168.{host}.1/24");
            network.router(&["ip", "addr", "add", &address, "dev", &bridge])?;
            network.router(&["ip", "link", "set", &bridge, "up"])?;
        }
        Ok(network)
    }

    /// Interface of a host's uplink.
    pub fn interface(host: usize, uplink: usize) -> String {
        format!("h{host}u{uplink}")
    }

    /// Number of hosts.
    pub fn hosts(&self) -> usize {
        self.hosts
    }

    /// Runs a command in the router's namespace.
    ///
    /// # Errors
    /// What it printed.
    pub fn router(&self, command: &[&str]) -> Result<(), String> {
        let pid = self.holder.id().to_string();
        run(Command::new("nsenter").args(["-t", &pid, "-n"]).args(command))
    }

    /// Takes the far end of a host's uplink down, or brings it up: the host loses its carrier.
    ///
    /// # Errors
    /// What `ip` printed.
    pub fn set_link(&self, host: usize, uplink: usize, up: bool) -> Result<(), String> {
        self.router(&["ip", "link", "set", &format!("r{host}u{uplink}"), if up { "up" } else { "down" }])
    }

    /// `unshare` has entered its namespace when it differs from ours.
    fn wait_for_namespace(&self) -> Result<(), String> {
        let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/net")).ok();
        let (ours, id) = (namespace("self"), self.holder.id().to_string());
        for _ in 0..500 {
            if namespace(&id).is_some_and(|n| Some(n) != ours) {
                return Ok(());
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        Err("the router's namespace was not made within 5 s".to_owned())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _gone = self.holder.kill();
        let _reaped = self.holder.wait();
    }
}
