//! The provider network of a deployment: two subnets, each a bridge with both uplinks of a host, joined by a router that
//! is the kernel's own, all inside namespaces that go away with this process.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use culvert_device::wire::AfPacket;
use rustix::thread::LinkNameSpaceType;

use crate::process::die_with_parent;

/// Enters a network namespace of our own (and, for an ordinary user, a user namespace in which we are root). It holds for
/// this thread and what it starts; as an ordinary user it is to be called before the first thread starts.
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
    // SAFETY: a network namespace belongs to a thread, and no memory is unshared.
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
    run(Command::new("ip").args(args)).map(|_| ())
}

pub(crate) fn run(command: &mut Command) -> Result<String, String> {
    // An ordinary user's path does not lead to the system's programs.
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin:/sbin"));
    let output = command.stdin(Stdio::null()).output().map_err(|e| format!("{command:?}: {e}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

/// The router's namespace and the links into it.
pub struct Network {
    holder: Child,
    hosts: usize,
    /// Hosts that have a namespace of their own.
    separate: BTreeMap<usize, Child>,
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
        let network = Network { holder: hold_namespace()?, hosts, separate: BTreeMap::new() };
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
                // As many queues as a host of these tests has threads.
                let queues = format!("mtu {mtu} numrxqueues 2 numtxqueues 2");
                let add = format!("link add {ours} {queues} type veth peer name {theirs} {queues}");
                ip(&add.split(' ').collect::<Vec<_>>())?;
                ip(&["link", "set", &theirs, "netns", &pid])?;
                ip(&["link", "set", &ours, "up"])?;
                network.router(&["ip", "link", "set", &theirs, "master", &bridge, "up"])?;
            }
            let address = format!("192.168.{host}.1/24");
            network.router(&["ip", "addr", "add", &address, "dev", &bridge])?;
            network.router(&["ip", "link", "set", &bridge, "up"])?;
            // A router, too, holds packets while it asks for a host's MAC: here so many that none is lost by it.
            let held = format!("net.ipv4.neigh.{bridge}.unres_qlen_bytes=16777216");
            network.router(&["sysctl", "-qw", &held])?;
        }
        network.wait_for_forwarding()?;
        Ok(network)
    }

    /// The kernel takes up to a second from a carrier to a bridge's port that forwards; hosts are not racked up while the
    /// switch boots.
    fn wait_for_forwarding(&self) -> Result<(), String> {
        let ports = 2 * self.hosts;
        let mut forwarding = 0;
        for _ in 0..500 {
            let links = self.router(&["bridge", "link", "show"])?;
            forwarding = links.matches("state forwarding").count();
            if forwarding == ports {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Err(format!("only {forwarding} of the router's {ports} ports forward after 5 s"))
    }

    /// Interface of a host's uplink.
    pub fn interface(host: usize, uplink: usize) -> String {
        format!("h{host}u{uplink}")
    }

    /// Gives a host a network namespace of its own, with its uplinks in it: its kernel is nobody else's.
    ///
    /// # Errors
    /// A step failed: the command and what it printed.
    pub fn separate(&mut self, host: usize) -> Result<(), String> {
        let holder = hold_namespace()?;
        let pid = holder.id().to_string();
        self.separate.insert(host, holder);
        self.host(host, &["sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1"])?;
        self.host(host, &["sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1"])?;
        self.host(host, &["ip", "link", "set", "lo", "up"])?;
        for uplink in 0..2 {
            let name = Self::interface(host, uplink);
            ip(&["link", "set", &name, "netns", &pid])?;
            self.host(host, &["ip", "link", "set", &name, "up"])?;
        }
        self.wait_for_forwarding()
    }

    /// Gives a host with a namespace of its own an address of its subnet, on uplink 0, and the router as its gateway.
    ///
    /// # Errors
    /// What `ip` printed.
    pub fn address(&self, host: usize, address: &str) -> Result<(), String> {
        let interface = Self::interface(host, 0);
        self.host(host, &["ip", "addr", "add", &format!("{address}/24"), "dev", &interface])?;
        self.host(host, &["ip", "route", "add", "default", "via", &format!("192.168.{host}.1")]).map(|_| ())
    }

    /// The command as it is to be run on a host: in its own namespace, if it has one.
    pub fn on_host(&self, host: usize, command: &Command) -> Command {
        let Some(holder) = self.separate.get(&host) else {
            let mut same = Command::new(command.get_program());
            same.args(command.get_args());
            return same;
        };
        let mut inside = Command::new("nsenter");
        inside.args(["-t", &holder.id().to_string(), "-n", "--"]).arg(command.get_program());
        inside.args(command.get_args());
        inside
    }

    /// Runs a command on a host. Returns what it printed.
    ///
    /// # Errors
    /// What it printed.
    pub fn host(&self, host: usize, command: &[&str]) -> Result<String, String> {
        let [program, args @ ..] = command else { return Ok(String::new()) };
        run(&mut self.on_host(host, Command::new(program).args(args)))
    }

    /// The process that holds the namespace of a host, or the router's.
    pub fn holder(&self, host: Option<usize>) -> u32 {
        let own = host.and_then(|host| self.separate.get(&host));
        own.map_or(self.holder.id(), Child::id)
    }

    /// Number of hosts.
    pub fn hosts(&self) -> usize {
        self.hosts
    }

    /// Runs a command in the router's namespace. Returns what it printed.
    ///
    /// # Errors
    /// What it printed.
    pub fn router(&self, command: &[&str]) -> Result<String, String> {
        let pid = self.holder.id().to_string();
        run(Command::new("nsenter").args(["-t", &pid, "-n"]).args(command))
    }

    /// Takes the far end of a host's uplink down, or brings it up: the host loses its carrier.
    ///
    /// # Errors
    /// What `ip` printed.
    pub fn set_link(&self, host: usize, uplink: usize, up: bool) -> Result<(), String> {
        let port = format!("r{host}u{uplink}");
        self.router(&["ip", "link", "set", &port, if up { "up" } else { "down" }]).map(|_| ())
    }

    /// Has the router keep silent when a host asks for its MAC, or answer again.
    ///
    /// # Errors
    /// What `sysctl` printed.
    pub fn answer_arp(&self, host: usize, answer: bool) -> Result<(), String> {
        // 8: no local address is answered for (the kernel's ip-sysctl.rst).
        let value = if answer { 0 } else { 8 };
        self.router(&["sysctl", "-qw", &format!("net.ipv4.conf.br{host}.arp_ignore={value}")]).map(|_| ())
    }

    /// A station on the wire of a host's uplink: what it sends, the host's MAC port receives.
    ///
    /// # Errors
    /// The kernel refuses the packet socket.
    pub fn station(&self, host: usize, uplink: usize) -> Result<AfPacket, String> {
        let namespace = format!("/proc/{}/ns/net", self.holder.id());
        let open = move || {
            let file = File::open(&namespace)?;
            rustix::thread::move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
            AfPacket::open(&format!("r{host}u{uplink}"))
        };
        // A socket stays in the namespace that its thread was in when it was made.
        let made = std::thread::spawn(open).join().map_err(|_| "the station's thread panicked")?;
        made.map_err(|e: std::io::Error| format!("a packet socket on r{host}u{uplink}: {e}"))
    }
}

/// A process in a new network namespace, which lasts as long as it does.
pub(crate) fn hold_namespace() -> Result<Child, String> {
    let mut command = Command::new("unshare");
    command.args(["--net", "sleep", "infinity"]).stdin(Stdio::null());
    die_with_parent(&mut command);
    let mut holder = command.spawn().map_err(|e| format!("unshare: {e}"))?;
    // It has entered its namespace when that differs from ours.
    let namespace = |of: &str| std::fs::read_link(format!("/proc/{of}/ns/net")).ok();
    let (ours, id) = (namespace("thread-self"), holder.id().to_string());
    for _ in 0..500 {
        if namespace(&id).is_some_and(|n| Some(n) != ours) {
            return Ok(holder);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let _gone = holder.kill();
    let _reaped = holder.wait();
    Err("a network namespace was not made within 5 s".to_owned())
}

impl Drop for Network {
    fn drop(&mut self) {
        for holder in self.separate.values_mut().chain([&mut self.holder]) {
            let _gone = holder.kill();
            let _reaped = holder.wait();
        }
    }
}
