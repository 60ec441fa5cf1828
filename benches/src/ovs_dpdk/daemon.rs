//! A running Open vSwitch with DPDK and one core for its datapath.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use culvert_e2e::netns::run;
use culvert_e2e::openvswitch::{SCHEMA, Tools};
use culvert_e2e::process::Service;

use super::control::{Control, VARIABLE};
use super::huge_pages::HugePages;
use crate::cpu::Watch;

/// Debian's build with DPDK, beside the one without.
const SWITCH: &str = "/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk";
/// Huge pages of 2 MiB for DPDK: buffers of two ports, and its own tables.
pub const PAGES: u64 = 256;
/// Limit for its start, and until it knows all flows.
pub const LIMIT: Duration = Duration::from_secs(30);

/// The switch and its database.
pub struct Daemon {
    // Dropped in this order: the switch must not use the pages any more when they are released.
    switch: Service,
    _database: Service,
    _pages: HugePages,
    tools: Tools,
    core: usize,
    /// The datapath's thread, in proc.
    thread: PathBuf,
    /// The control file of the frame source.
    pub frames: Control,
}

impl Daemon {
    /// Starts it with its files in `dir`, its datapath on core `core`, `source` as the library that generates frames, and
    /// further settings of the database's table.
    ///
    /// # Errors
    /// Something is missing or fails; the message says what, and the remedy.
    pub fn start(dir: &Path, source: &Path, core: usize, settings: &str) -> Result<Self, String> {
        for file in [Path::new(SWITCH), Path::new(SCHEMA), source] {
            if !file.exists() {
                let file = file.display();
                return Err(format!("{file} is missing: start this with `cargo xtask bench ovs-dpdk`"));
            }
        }
        let pages = HugePages::reserve(PAGES)?;
        fs::create_dir_all(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        let control = dir.join("control");
        let frames = Control::create(&control).map_err(|e| format!("{}: {e}", control.display()))?;
        let tools = Tools::new(dir);
        let database = tools.start_database()?;
        // All its other threads run on another core, if there is one.
        let others = if core == 0 { 2 } else { 1 };
        let set = format!(
            "other_config:dpdk-init=true other_config:pmd-cpu-mask={:#x} other_config:per-port-memory=true \
             other_config:max-idle=600000 {settings} other_config:dpdk-lcore-mask={others:#x}",
            1u64 << core
        );
        let extra = format!("other_config:dpdk-extra=--in-memory --no-pci --no-telemetry -m {}", PAGES * 2);
        let first = ["--no-wait", "init", "--", "set", "Open_vSwitch", "."];
        tools.vsctl(first.into_iter().chain(set.split_whitespace()).chain([extra.as_str()]))?;
        // A network namespace of its own: `unshare` becomes the switch, so the process id is the switch's.
        let mut command = tools.command("unshare");
        command.args(["--net", "--", SWITCH, &tools.database_socket(), &tools.switch_control()]);
        command.env("LD_PRELOAD", source).env(VARIABLE, &control);
        let mut switch = Service::start("switch", &mut command, dir)?;
        let log = switch.log().to_owned();
        let ready = || fs::read_to_string(&log).is_ok_and(|text| text.contains("DPDK Enabled - initialized"));
        switch.until(LIMIT, "DPDK is initialized", ready)?;
        let thread = PathBuf::new();
        Ok(Daemon { switch, _database: database, _pages: pages, tools, core, thread, frames })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.switch.id()
    }

    /// Stops all its threads until [`resume`](Self::resume).
    pub fn pause(&self) {
        self.switch.pause();
    }

    /// Lets it run again.
    pub fn resume(&self) {
        self.switch.resume();
    }

    /// Finds the thread that polls, which starts with the first port.
    ///
    /// # Errors
    /// There is none: Open vSwitch does not use the core.
    pub fn find_thread(&mut self) -> Result<(), String> {
        self.thread = thread(self.switch.id(), self.core)?;
        Ok(())
    }

    /// The datapath's thread, in proc.
    pub fn thread(&self) -> &Path {
        &self.thread
    }

    /// Starts to measure the time of the datapath's thread.
    ///
    /// # Errors
    /// There is no such thread.
    pub fn watch(&self) -> Result<Watch<'_>, String> {
        Watch::of(&self.thread)
    }

    /// Runs `ovs-vsctl`, which waits until the change is applied.
    ///
    /// # Errors
    /// What it printed.
    pub fn configure(&self, words: &str) -> Result<(), String> {
        self.tools.vsctl(words.split_whitespace()).map(drop)
    }

    /// Runs `ip` in the switch's network namespace.
    ///
    /// # Errors
    /// What it printed.
    pub fn ip(&self, words: &str) -> Result<(), String> {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.switch.id().to_string(), "-n", "ip"]).args(words.split_whitespace());
        run(&mut command).map(drop)
    }

    /// Adds rules to a bridge, which has none by default.
    ///
    /// # Errors
    /// What `ovs-ofctl` printed.
    pub fn add_rules(&self, bridge: &str, rules: &str) -> Result<(), String> {
        self.tools.add_flows(bridge, rules)
    }

    /// Runs `ovs-appctl` against the switch.
    ///
    /// # Errors
    /// What it printed.
    pub fn control(&self, words: &[&str]) -> Result<String, String> {
        self.tools.appctl(words)
    }

    /// Statistics of the datapath's thread: the lines `name: value`.
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

    /// Packets sent through a port.
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

impl Drop for Daemon {
    fn drop(&mut self) {
        // A stopped process does not end by itself.
        self.switch.resume();
    }
}

/// The program's version, as it prints it.
///
/// # Errors
/// It is not installed.
pub fn version() -> Result<String, String> {
    let text = run(Command::new(SWITCH).arg("--version"))?;
    Ok(text.lines().map(|l| l.trim_start_matches("ovs-vswitchd-dpdk ")).collect::<Vec<_>>().join(", "))
}

/// The thread that polls on core `core`, found by its name.
fn thread(process: u32, core: usize) -> Result<PathBuf, String> {
    let tasks = PathBuf::from(format!("/proc/{process}/task"));
    let name = format!("pmd-c{core:02}");
    let all = fs::read_dir(&tasks).map_err(|e| format!("{}: {e}", tasks.display()))?;
    let named = |task: &PathBuf| fs::read_to_string(task.join("comm")).is_ok_and(|t| t.starts_with(&name));
    let found = all.flatten().map(|task| task.path()).find(named);
    found.ok_or_else(|| format!("{}: no thread {name}: does Open vSwitch use core {core}?", tasks.display()))
}

/// A value of [`Daemon::stats`].
pub fn number(stats: &HashMap<String, f64>, name: &str) -> f64 {
    stats.get(name).copied().unwrap_or(0.0)
}
