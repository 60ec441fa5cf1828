//! The provider network of a deployment: a subnet for each host, which is a bridge with both uplinks of the host; the kernel
//! routes between them. All of it is in namespaces that end with this process.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use culvert_device::wire::AfPacket;

use crate::netns::{Namespace, ip, run};
use crate::wait::poll;

/// The provider network. Hosts count from 1, as their interfaces and subnets do.
pub struct Network {
    router: Namespace,
    hosts: usize,
    /// Namespaces of the hosts that have one of their own.
    separate: BTreeMap<usize, Namespace>,
}

impl Network {
    /// Largest IP packet of the provider network.
    pub const MTU: u16 = 1600;

    /// Builds it for `hosts` hosts: host n has the interfaces `h<n>u0` and `h<n>u1` in our namespace and the subnet
    /// 192.168.n.0/24, whose router is 192.168.n.1.
    ///
    /// # Errors
    /// A step failed: the command and what it printed.
    pub fn new(hosts: usize) -> Result<Self, String> {
        let network = Network { router: Namespace::new()?, hosts, separate: BTreeMap::new() };
        network.router(&["sysctl", "-qw", "net.ipv4.ip_forward=1"])?;
        // Without IPv6 autoconfiguration, only the tests' packets pass these links.
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
                let (interface, port) = (Self::interface(host, uplink), Self::router_port(host, uplink));
                let pid = network.router.id().to_string();
                // A queue for each worker of the software switch.
                let queues = format!("mtu {mtu} numrxqueues 2 numtxqueues 2");
                let add = format!("link add {interface} {queues} type veth peer name {port} {queues}");
                ip(&add.split(' ').collect::<Vec<_>>())?;
                ip(&["link", "set", &port, "netns", &pid])?;
                ip(&["link", "set", &interface, "up"])?;
                network.router(&["ip", "link", "set", &port, "master", &bridge, "up"])?;
            }
            let address = format!("192.168.{host}.1/24");
            network.router(&["ip", "addr", "add", &address, "dev", &bridge])?;
            network.router(&["ip", "link", "set", &bridge, "up"])?;
            // Let the router queue packets without loss while it resolves a host's MAC.
            let held = format!("net.ipv4.neigh.{bridge}.unres_qlen_bytes=16777216");
            network.router(&["sysctl", "-qw", &held])?;
        }
        network.wait_for_forwarding()?;
        Ok(network)
    }

    /// Waits until the bridges forward on all ports, which takes the kernel up to a second after a carrier appears.
    fn wait_for_forwarding(&self) -> Result<(), String> {
        let ports = 2 * self.hosts;
        let mut forwarding = 0;
        let all = poll(Duration::from_secs(5), Duration::from_millis(10), || {
            let links = self.router(&["bridge", "link", "show"])?;
            forwarding = links.matches("state forwarding").count();
            Ok::<_, String>(forwarding == ports)
        })?;
        if all {
            return Ok(());
        }
        Err(format!("only {forwarding} of the router's {ports} ports forward after 5 s"))
    }

    /// Interface of a host's uplink.
    pub fn interface(host: usize, uplink: usize) -> String {
        format!("h{host}u{uplink}")
    }

    /// The router's end of a host's uplink, a port of the bridge of the host's subnet.
    pub fn router_port(host: usize, uplink: usize) -> String {
        format!("r{host}u{uplink}")
    }

    /// Gives a host a network namespace of its own, with its uplinks in it.
    ///
    /// # Errors
    /// A step failed: the command and what it printed.
    pub fn separate(&mut self, host: usize) -> Result<(), String> {
        let namespace = Namespace::new()?;
        let pid = namespace.id().to_string();
        self.separate.insert(host, namespace);
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

    /// A command, to be run on a host: in the host's own namespace if it has one.
    pub fn on_host(&self, host: usize, command: &Command) -> Command {
        if let Some(namespace) = self.separate.get(&host) {
            return namespace.command(command);
        }
        let mut same = Command::new(command.get_program());
        same.args(command.get_args());
        same
    }

    /// Runs a command on a host. Returns what it printed.
    ///
    /// # Errors
    /// What it printed.
    pub fn host(&self, host: usize, command: &[&str]) -> Result<String, String> {
        let [program, args @ ..] = command else { return Ok(String::new()) };
        run(&mut self.on_host(host, Command::new(program).args(args)))
    }

    /// The namespace of the router, which is also that of its end of the uplinks.
    pub fn router_namespace(&self) -> &Namespace {
        &self.router
    }

    /// The namespace of a host that has one of its own ([`separate`](Self::separate)).
    pub fn host_namespace(&self, host: usize) -> Option<&Namespace> {
        self.separate.get(&host)
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
        self.router.run(command)
    }

    /// Takes the far end of a host's uplink down, or brings it up: the host loses its carrier.
    ///
    /// # Errors
    /// What `ip` printed.
    pub fn set_link(&self, host: usize, uplink: usize, up: bool) -> Result<(), String> {
        let port = Self::router_port(host, uplink);
        self.router(&["ip", "link", "set", &port, if up { "up" } else { "down" }]).map(|_| ())
    }

    /// Sets whether the router answers ARP requests in a host's subnet.
    ///
    /// # Errors
    /// What `sysctl` printed.
    pub fn answer_arp(&self, host: usize, answer: bool) -> Result<(), String> {
        // arp_ignore 8: answer for no local address (the kernel's ip-sysctl.rst).
        let value = if answer { 0 } else { 8 };
        self.router(&["sysctl", "-qw", &format!("net.ipv4.conf.br{host}.arp_ignore={value}")]).map(|_| ())
    }

    /// A packet socket at the router's end of a host's uplink: the host's MAC port receives what it sends.
    ///
    /// # Errors
    /// The kernel refuses the packet socket.
    pub fn station(&self, host: usize, uplink: usize) -> Result<AfPacket, String> {
        let port = Self::router_port(host, uplink);
        let name = port.clone();
        self.router
            .within(move || AfPacket::open(&name))
            .map_err(|e| format!("a packet socket on {port}: {e}"))
    }
}
