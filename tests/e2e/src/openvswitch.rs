//! Open vSwitch as the switch of a host that is not ours: its daemons and its data path in user space, which needs nothing
//! of the kernel but packet sockets and TAPs. All that they write is in a folder of the deployment.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::netns::{Network, run};
use crate::process::Service;

/// What its database is made of, where Debian's package has it.
const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";
/// Time until something that was told is done.
const LIMIT: Duration = Duration::from_secs(20);

/// A running Open vSwitch. It ends when this is dropped, and its bridges and internal ports with it.
pub struct OpenVswitch {
    // Dropped in this order: the switch asks its database until its end.
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
        database.until(LIMIT, "its socket is there", || socket.exists())?;

        let server = format!("unix:{}", socket.display());
        let switch = inside(&dir, "ovs-vswitchd", &[&server, &control("switch.ctl")]);
        let mut switch = environment(network.on_host(host, &switch), &dir);
        let mut switch = Service::start("switch", &mut switch, &dir)?;
        switch.until(LIMIT, "it answers", || dir.join("switch.ctl").exists())?;
        let ovs = OpenVswitch { _switch: switch, _database: database, dir };
        ovs.configure("--no-wait init")?;
        Ok(ovs)
    }

    /// Runs `ovs-vsctl`, and waits until the switch is as it is told. The words have no spaces in them.
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

    /// Replaces a bridge's flows, in the words of `ovs-ofctl`. Every other packet is dropped.
    ///
    /// # Errors
    /// What it printed.
    pub fn set_flows(&self, bridge: &str, flows: &[&str]) -> Result<(), String> {
        self.ask("ovs-ofctl", &["del-flows", bridge])?;
        flows.iter().try_for_each(|flow| self.ask("ovs-ofctl", &["add-flow", bridge, flow]).map(drop))
    }

    /// Tells the running switch something, as `ovs-appctl` does.
    ///
    /// # Errors
    /// What it printed.
    pub fn tell(&self, words: &[&str]) -> Result<String, String> {
        let target = format!("--target={}", self.dir.join("switch.ctl").display());
        self.ask("ovs-appctl", &[&[target.as_str()], words].concat())
    }

    /// Waits until tunnels to an address leave through a bridge: the switch hears of the kernel's routes a little later.
    ///
    /// # Errors
    /// They do not: what it says of its routes.
    pub fn until_routed(&self, to: IpAddr, bridge: &str) -> Result<(), String> {
        let end = Instant::now() + LIMIT;
        loop {
            let route = self.tell(&["ovs/route/lookup", &to.to_string()]);
            if route.as_ref().is_ok_and(|said| said.contains(&format!("dev {bridge}"))) {
                return Ok(());
            }
            if Instant::now() > end {
                return Err(format!("no route to {to} through {bridge}: {route:?}"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
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

/// Its programs look for each other's sockets and write their files here, not in the system's folders.
fn environment(mut command: Command, dir: &Path) -> Command {
    for name in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR"] {
        command.env(name, dir);
    }
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin:/sbin"));
    command
}
