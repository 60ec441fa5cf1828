//! Open vSwitch as the switch of a foreign host, with its userspace datapath, which needs only packet sockets and TAPs of the
//! kernel. Its daemons write only to a folder of the deployment.

mod tools;

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use crate::network::Network;
use crate::process::Service;
use crate::wait::poll;

pub use tools::{LIMIT, SCHEMA, Tools};

/// A running Open vSwitch. It ends when this is dropped, and its bridges and internal ports with it.
pub struct OpenVswitch {
    // Dropped in this order: the switch uses its database until its end.
    _switch: Service,
    _database: Service,
    tools: Tools,
}

impl OpenVswitch {
    /// Starts it on a host (from 1) that has a namespace of its own ([`Network::separate`]), with its files in
    /// `<dir>/openvswitch`.
    ///
    /// # Errors
    /// It is not installed, or a daemon does not start: the end of its log.
    pub fn start(network: &Network, host: usize, dir: &Path) -> Result<Self, String> {
        let tools = Tools::new(dir.join("openvswitch"));
        fs::create_dir_all(tools.dir()).map_err(|e| format!("{}: {e}", tools.dir().display()))?;
        let database = tools.start_database()?;
        let mut command = tools.command("ovs-vswitchd");
        command.args([tools.database_socket(), tools.switch_control()]);
        let mut command = network.on_host(host, &command);
        tools.set_environment(&mut command);
        let mut switch = Service::start("switch", &mut command, tools.dir())?;
        switch.until(LIMIT, "it answers", || tools.switch_socket().exists())?;
        tools.vsctl(["--no-wait", "init"])?;
        Ok(OpenVswitch { _switch: switch, _database: database, tools })
    }

    /// Runs `ovs-vsctl`, which waits until the switch has applied the change. Arguments cannot contain spaces.
    ///
    /// # Errors
    /// What it printed.
    pub fn configure(&self, words: &str) -> Result<String, String> {
        self.tools.vsctl(words.split_whitespace())
    }

    /// Replaces a bridge's flows, in the syntax of `ovs-ofctl`. The bridge drops packets that match none.
    ///
    /// # Errors
    /// What it printed.
    pub fn set_flows(&self, bridge: &str, flows: &[&str]) -> Result<(), String> {
        self.tools.delete_flows(bridge)?;
        self.tools.add_flows(bridge, &flows.join("\n"))
    }

    /// Waits until tunnels to an address leave through a bridge: the switch learns the kernel's routes with some delay.
    ///
    /// # Errors
    /// They do not: its answer to the route lookup.
    pub fn until_routed(&self, to: IpAddr, bridge: &str) -> Result<(), String> {
        let mut route = Ok(String::new());
        let routed = poll(LIMIT, Duration::from_millis(20), || {
            route = self.tools.appctl(&["ovs/route/lookup", &to.to_string()]);
            Ok::<_, String>(route.as_ref().is_ok_and(|said| said.contains(&format!("dev {bridge}"))))
        })?;
        if routed { Ok(()) } else { Err(format!("no route to {to} through {bridge}: {route:?}")) }
    }
}
