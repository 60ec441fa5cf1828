//! Open vSwitch as the switch of a foreign host, with its userspace datapath, which needs only packet sockets and TAPs of the
//! kernel. Its daemons write only to a folder of the deployment.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::netns::run;
use crate::network::Network;
use crate::process::Service;
use crate::wait::poll;

/// Schema of the database, in Debian's package.
const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";
/// Limit for one request to the daemons.
const LIMIT: Duration = Duration::from_secs(20);

/// A running Open vSwitch. It ends when this is dropped, and its bridges and internal ports with it.
pub struct OpenVswitch {
    // Dropped in this order: the switch uses its database until its end.
    _switch: Service,
    _database: Service,
    dir: PathBuf,
}

impl OpenVswitch {
    /// Starts it on a host (from 1) that has a namespace of its own ([`Network::separate`]), with what it writes in
    /// `<dir>/openvswitch`.
    ///
    /// # Errors
    /// It is not installed, or a daemon does not start: the end of its log.
    pub fn start(network: &Network, host: usize, dir: &Path) -> Result<Self, String> {
        let dir = dir.join("openvswitch");
        fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        let (file, socket) = (dir.join("conf.db"), dir.join("db.sock"));
        run(&mut inside(&dir, "ovsdb-tool", &["create", &text(&file), SCHEMA]))
            .map_err(|e| format!("{e} (`cargo xtask setup` installs Open vSwitch)"))?;

        let remote = format!("--remote=punix:{}", socket.display());
        let control = |of: &str| format!("--unixctl={}", dir.join(of).display());
        let mut database = inside(&dir, "ovsdb-server", &[&text(&file), &remote, &control("database.ctl")]);
        let mut database = Service::start("database", &mut database, &dir)?;
        database.until(LIMIT, "its socket exists", || socket.exists())?;

        let server = format!("unix:{}", socket.display());
        let switch = inside(&dir, "ovs-vswitchd", &[&server, &control("switch.ctl")]);
        let mut switch = environment(network.on_host(host, &switch), &dir);
        let mut switch = Service::start("switch", &mut switch, &dir)?;
        switch.until(LIMIT, "it answers", || dir.join("switch.ctl").exists())?;
        let ovs = OpenVswitch { _switch: switch, _database: database, dir };
        ovs.configure("--no-wait init")?;
        Ok(ovs)
    }

    /// Runs `ovs-vsctl`, which waits until the switch has applied the change. Arguments cannot contain spaces.
    ///
    /// # Errors
    /// What it printed.
    pub fn configure(&self, words: &str) -> Result<String, String> {
        let database = format!("--db=unix:{}", self.dir.join("db.sock").display());
        self.ask(
            "ovs-vsctl",
            &[&[database.as_str()], &words.split_whitespace().collect::<Vec<_>>()[..]].concat(),
        )
    }

    /// Replaces a bridge's flows, in the syntax of `ovs-ofctl`. The bridge drops packets that match none.
    ///
    /// # Errors
    /// What it printed.
    pub fn set_flows(&self, bridge: &str, flows: &[&str]) -> Result<(), String> {
        self.ask("ovs-ofctl", &["del-flows", bridge])?;
        flows.iter().try_for_each(|flow| self.ask("ovs-ofctl", &["add-flow", bridge, flow]).map(drop))
    }

    /// Runs `ovs-appctl` against the running switch.
    ///
    /// # Errors
    /// What it printed.
    pub fn appctl(&self, words: &[&str]) -> Result<String, String> {
        let target = format!("--target={}", self.dir.join("switch.ctl").display());
        self.ask("ovs-appctl", &[&[target.as_str()], words].concat())
    }

    /// Waits until tunnels to an address leave through a bridge: the switch learns the kernel's routes with some delay.
    ///
    /// # Errors
    /// They do not: its answer to the route lookup.
    pub fn until_routed(&self, to: IpAddr, bridge: &str) -> Result<(), String> {
        let mut route = Ok(String::new());
        let routed = poll(LIMIT, Duration::from_millis(20), || {
            route = self.appctl(&["ovs/route/lookup", &to.to_string()]);
            Ok::<_, String>(route.as_ref().is_ok_and(|said| said.contains(&format!("dev {bridge}"))))
        })?;
        if routed { Ok(()) } else { Err(format!("no route to {to} through {bridge}: {route:?}")) }
    }

    fn ask(&self, program: &str, words: &[&str]) -> Result<String, String> {
        let limit = format!("--timeout={}", LIMIT.as_secs());
        run(&mut inside(&self.dir, program, &[&[limit.as_str()], words].concat()))
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn inside(dir: &Path, program: &str, words: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(words);
    environment(command, dir)
}

/// Sets the folder in which Open vSwitch's programs find each other's sockets and write their files.
fn environment(mut command: Command, dir: &Path) -> Command {
    for name in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR"] {
        command.env(name, dir);
    }
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin:/sbin"));
    command
}
