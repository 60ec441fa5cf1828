//! A running Open vSwitch with DPDK and one core for its data path.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::control::{Control, VARIABLE};
use super::machine::{HugePages, Watch};
use super::service::{Service, ask};

/// Debian's build with DPDK, beside the one without.
const SWITCH: &str = "/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk";
/// What its database is made of.
const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";
/// Huge pages of 2 MiB that DPDK gets: buffers of two ports, and its own tables.
pub const PAGES: u64 = 256;
/// Time until something that was told is done.
pub const LIMIT: Duration = Duration::from_secs(30);

/// The switch and its database.
pub struct Daemon {
    // Dropped in this order: nothing may use the pages when they are given back.
    switch: Service,
    _database: Service,
    _pages: HugePages,
    dir: PathBuf,
    database: String,
    core: usize,
    /// Where the kernel tells of the data path's thread.
    thread: PathBuf,
    /// What is told to the library that makes frames.
    pub frames: Control,
}

impl Daemon {
    /// Starts it, with everything that it writes in `dir`, its data path on core `core`, `source` as the library
    /// that makes frames, and settings beside its defaults.
    ///
    /// # Errors
    /// Something is missing or fails; the message says what, and what to do.
    pub fn start(dir: &Path, source: &Path, core: usize, settings: &str) -> Result<Self, String> {
        for file in [Path::new(SWITCH), Path::new(SCHEMA), source] {
            if !file.exists() {
                return Err(format!(
                    "{} is missing: start this with `cargo xtask bench peers`",
                    file.display()
                ));
            }
        }
        let pages = HugePages::reserve(PAGES)?;
        fs::create_dir_all(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        let control = dir.join("control");
        let told = Control::create(&control).map_err(|e| format!("{}: {e}", control.display()))?;
        let file = dir.join("conf.db");
        ask(Command::new("ovsdb-tool").arg("create").arg(&file).arg(SCHEMA))?;
        let socket = dir.join("db.sock");
        let mut database = Service::start("ovsdb-server", false, &dir.join("database.log"), |command| {
            let remote = format!("--remote=punix:{}", socket.display());
            command.arg(&file).arg(remote).arg(at("--unixctl", &dir.join("database.ctl")));
            environment(command, dir);
        })?;
        database.until(LIMIT, || socket.exists())?;
        let db = at("--db", &PathBuf::from(format!("unix:{}", socket.display())));
        let set = format!(
            "other_config:dpdk-init=true other_config:pmd-cpu-mask={:#x} other_config:per-port-memory=true \
             other_config:max-idle=600000 {settings}",
            1u64 << core
        );
        // All its other threads go where the data path is not, if there is such a place.
        let others = if core == 0 { 2 } else { 1 };
        ask(Command::new("ovs-vsctl")
            .args([&db, "--no-wait", "--timeout=10", "init", "--", "set", "Open_vSwitch", "."])
            .args(set.split_whitespace())
            .arg(format!("other_config:dpdk-lcore-mask={others:#x}"))
            .arg(format!("other_config:dpdk-extra=--in-memory --no-pci --no-telemetry -m {}", PAGES * 2)))?;
        let log = dir.join("switch.log");
        let mut switch = Service::start(SWITCH, true, &log, |command| {
            command.arg(format!("unix:{}", socket.display())).arg(at("--unixctl", &dir.join("switch.ctl")));
            environment(command, dir);
            command.env("LD_PRELOAD", source).env(VARIABLE, &control);
        })?;
        let ready = || fs::read_to_string(&log).is_ok_and(|text| text.contains("DPDK Enabled - initialized"));
        switch.until(LIMIT, ready)?;
        Ok(Daemon {
            switch,
            _database: database,
            _pages: pages,
            dir: dir.to_owned(),
            database: db,
            core,
            thread: PathBuf::new(),
            frames: told,
        })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.switch.id()
    }

    /// Stops all its threads until [`go_on`](Self::go_on).
    pub fn hold(&self) {
        self.switch.hold();
    }

    /// Lets it run again.
    pub fn go_on(&self) {
        self.switch.go_on();
    }

    /// Finds the thread that polls, which begins with the first port.
    ///
    /// # Errors
    /// There is none: Open vSwitch does not take the core.
    pub fn find_thread(&mut self) -> Result<(), String> {
        self.thread = thread(self.switch.id(), self.core)?;
        Ok(())
    }

    /// The data path's thread, in proc.
    pub fn thread(&self) -> &Path {
        &self.thread
    }

    /// Looks at the clocks of the data path's thread.
    ///
    /// # Errors
    /// There is no such thread.
    pub fn watch(&self) -> Result<Watch<'_>, String> {
        Watch::of(&self.thread)
    }

    /// Tells the database, in the words of `ovs-vsctl`, and waits until it is done.
    ///
    /// # Errors
    /// What it said.
    pub fn configure(&self, words: &str) -> Result<(), String> {
        let mut command = Command::new("ovs-vsctl");
        ask(command.args([&self.database, "--timeout=20"]).args(words.split_whitespace())).map(drop)
    }

    /// Runs `ip` in the switch's own network namespace.
    ///
    /// # Errors
    /// What it said.
    pub fn ip(&self, words: &str) -> Result<(), String> {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.switch.id().to_string(), "-n", "ip"]).args(words.split_whitespace());
        ask(&mut command).map(drop)
    }

    /// Adds rules to a bridge, which has none of its own.
    ///
    /// # Errors
    /// What it said.
    pub fn add_rules(&self, bridge: &str, rules: &str) -> Result<(), String> {
        let file = self.dir.join(format!("{bridge}.rules"));
        fs::write(&file, rules).map_err(|e| format!("{}: {e}", file.display()))?;
        let socket = format!("unix:{}", self.dir.join(format!("{bridge}.mgmt")).display());
        let file = file.display().to_string();
        ask(Command::new("ovs-ofctl").args(["--timeout=20", "add-flows", &socket, &file])).map(drop)
    }

    /// Tells or asks the switch, as `ovs-appctl` does.
    ///
    /// # Errors
    /// What it said.
    pub fn control(&self, words: &[&str]) -> Result<String, String> {
        let target = at("--target", &self.dir.join("switch.ctl"));
        ask(Command::new("ovs-appctl").args([&target, "--timeout=20"]).args(words))
    }

    /// Lines of `name: value` of the data path's thread.
    ///
    /// # Errors
    /// It does not answer.
    pub fn stats(&self) -> Result<HashMap<String, f64>, String> {
        let text = self.control(&["dpif-netdev/pmd-stats-show"])?;
        let thread = text.split("main thread").next().unwrap_or_default();
        let line = |line: &str| {
            let (name, value) = line.split_once(':')?;
            Some((name.trim().to_owned(), value.split_whitespace().next()?.parse().ok()?))
        };
        Ok(thread.lines().filter_map(line).collect())
    }

    /// Packets that left through a port.
    ///
    /// # Errors
    /// It does not answer, or has no such port.
    pub fn sent(&self, port: &str) -> Result<f64, String> {
        let ports = self.control(&["dpctl/show", "--statistics"])?;
        let name = format!(": {port} ");
        let sink = ports.split("  port ").find(|port| port.contains(&name)).unwrap_or_default();
        let packets = sink.split("TX packets:").nth(1).and_then(|text| text.split_whitespace().next());
        packets.and_then(|n| n.parse().ok()).ok_or_else(|| format!("no packets of {port} in:\n{ports}"))
    }
}

/// What the program says of its own version.
///
/// # Errors
/// It is not installed.
pub fn version() -> Result<String, String> {
    let text = ask(Command::new(SWITCH).arg("--version"))?;
    Ok(text.lines().map(|l| l.trim_start_matches("ovs-vswitchd-dpdk ")).collect::<Vec<_>>().join(", "))
}

/// The thread that polls on core `core`: its name says so.
fn thread(process: u32, core: usize) -> Result<PathBuf, String> {
    let tasks = PathBuf::from(format!("/proc/{process}/task"));
    let name = format!("pmd-c{core:02}");
    let all = fs::read_dir(&tasks).map_err(|e| format!("{}: {e}", tasks.display()))?;
    let named = |task: &PathBuf| fs::read_to_string(task.join("comm")).is_ok_and(|t| t.starts_with(&name));
    let found = all.flatten().map(|task| task.path()).find(named);
    found.ok_or_else(|| format!("{}: no thread {name}: does Open vSwitch take core {core}?", tasks.display()))
}

/// A value of [`Daemon::stats`].
pub fn number(stats: &HashMap<String, f64>, name: &str) -> f64 {
    stats.get(name).copied().unwrap_or(0.0)
}

fn at(option: &str, path: &Path) -> String {
    format!("{option}={}", path.display())
}

fn environment(command: &mut Command, dir: &Path) {
    for name in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR"] {
        command.env(name, dir);
    }
}
