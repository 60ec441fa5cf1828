//! Open vSwitch's control programs and its database, with all sockets and files in one folder.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::netns::run;
use crate::process::Service;

/// Schema of the database, in Debian's package.
pub const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";
/// Limit for one request to the daemons.
pub const LIMIT: Duration = Duration::from_secs(20);

/// The control programs.
#[derive(Clone, Debug)]
pub struct Tools {
    dir: PathBuf,
}

impl Tools {
    /// Programs whose files are in `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Tools { dir: dir.into() }
    }

    /// The folder of all files.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The database's socket, as the programs name it.
    pub fn database_socket(&self) -> String {
        format!("unix:{}", self.dir.join("db.sock").display())
    }

    /// The option for the control socket of the switch.
    pub fn switch_control(&self) -> String {
        format!("--unixctl={}", self.switch_socket().display())
    }

    /// The control socket of the switch.
    pub fn switch_socket(&self) -> PathBuf {
        self.dir.join("switch.ctl")
    }

    /// Sets the folder in which the program of a command finds the others' sockets and writes its files.
    pub fn set_environment(&self, command: &mut Command) {
        for name in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR"] {
            command.env(name, &self.dir);
        }
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{path}:/usr/sbin:/sbin"));
    }

    /// A command of one of the programs.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        self.set_environment(&mut command);
        command
    }

    /// Creates the database and starts its server.
    ///
    /// # Errors
    /// Open vSwitch is not installed, or the server does not start: the end of its log.
    pub fn start_database(&self) -> Result<Service, String> {
        let (file, socket) = (self.dir.join("conf.db"), self.dir.join("db.sock"));
        run(self.command("ovsdb-tool").arg("create").arg(&file).arg(SCHEMA))
            .map_err(|e| format!("{e} (`cargo xtask setup` installs Open vSwitch)"))?;
        let mut command = self.command("ovsdb-server");
        command.arg(&file).arg(format!("--remote=punix:{}", socket.display()));
        command.arg(format!("--unixctl={}", self.dir.join("database.ctl").display()));
        let mut database = Service::start("database", &mut command, &self.dir)?;
        database.until(LIMIT, "its socket exists", || socket.exists())?;
        Ok(database)
    }

    /// Runs `ovs-vsctl`, which waits until the switch has applied the change.
    ///
    /// # Errors
    /// What it printed.
    pub fn vsctl<'a>(&self, words: impl IntoIterator<Item = &'a str>) -> Result<String, String> {
        self.run("ovs-vsctl", &format!("--db={}", self.database_socket()), words)
    }

    /// Runs `ovs-appctl` against the running switch.
    ///
    /// # Errors
    /// What it printed.
    pub fn appctl(&self, words: &[&str]) -> Result<String, String> {
        let target = format!("--target={}", self.switch_socket().display());
        self.run("ovs-appctl", &target, words.iter().copied())
    }

    /// Adds flows to a bridge, a line each in the syntax of `ovs-ofctl`.
    ///
    /// # Errors
    /// What it printed.
    pub fn add_flows(&self, bridge: &str, flows: &str) -> Result<(), String> {
        let file = self.dir.join(format!("{bridge}.flows"));
        std::fs::write(&file, flows).map_err(|e| format!("{}: {e}", file.display()))?;
        let file = file.display().to_string();
        self.run("ovs-ofctl", "add-flows", [self.bridge_socket(bridge).as_str(), &file]).map(drop)
    }

    /// Removes all flows of a bridge.
    ///
    /// # Errors
    /// What `ovs-ofctl` printed.
    pub fn delete_flows(&self, bridge: &str) -> Result<(), String> {
        self.run("ovs-ofctl", "del-flows", [self.bridge_socket(bridge).as_str()]).map(drop)
    }

    fn bridge_socket(&self, bridge: &str) -> String {
        format!("unix:{}", self.dir.join(format!("{bridge}.mgmt")).display())
    }

    fn run<'a>(
        &self,
        program: &str,
        first: &str,
        words: impl IntoIterator<Item = &'a str>,
    ) -> Result<String, String> {
        let limit = format!("--timeout={}", LIMIT.as_secs());
        run(self.command(program).args([limit.as_str(), first]).args(words))
    }
}
