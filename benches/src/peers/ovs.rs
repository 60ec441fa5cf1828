//! A running Open vSwitch with two bridges, a tunnel between them, and one core for its data path.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use culvert_packet::Encap;

use super::control::{Control, Mode, SINK, SOURCE, Shape, VARIABLE};
use super::frame;
use super::machine::HugePages;
use super::rules::Rules;
use super::service::{Service, ask};
use crate::clock::cycles;
use crate::work::{self, Kind};

/// Debian's build with DPDK, beside the one without.
const SWITCH: &str = "/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk";
/// What its database is made of.
const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";
/// Huge pages of 2 MiB that DPDK gets: buffers of two ports, and its own tables.
pub const PAGES: u64 = 256;

/// Time until something that was told is done.
const LIMIT: Duration = Duration::from_secs(30);

/// The switch, set up for one kind of work.
pub struct Ovs {
    // Dropped in this order: nothing may use the pages when they are given back.
    switch: Service,
    _database: Service,
    _pages: HugePages,
    dir: PathBuf,
    /// Where the kernel tells of the data path's thread.
    thread: PathBuf,
    control: Control,
    kind: Kind,
    rules: Rules,
}

/// What a window of time showed of the data path.
#[derive(Clone, Debug, Default)]
pub struct Window {
    /// Cycles per frame of the data path's thread, by our own clock and count.
    pub cycles: f64,
    /// The part of the time in which the thread ran: the others, when something else had its core, are not counted.
    pub ran: f64,
    /// Cycles per packet of processing, by its own clock and count.
    pub own: f64,
    /// Its look-ups by where they ended, as a part of all packets' passes: exact-match cache, megaflows.
    pub hits: [f64; 2],
}

impl Ovs {
    /// Starts it, with everything that it writes in `dir`, its data path on core `core`, and `source` as the library
    /// that makes frames.
    ///
    /// # Errors
    /// Something is missing or fails; the message says what, and what to do.
    pub fn start(
        dir: &Path,
        source: &Path,
        core: usize,
        smc: bool,
        (kind, rules): (Kind, Rules),
    ) -> Result<Self, String> {
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
             other_config:smc-enable={smc} other_config:max-idle=600000",
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
        let mut ovs = Ovs {
            switch,
            _database: database,
            _pages: pages,
            dir: dir.to_owned(),
            thread: PathBuf::new(),
            control: told,
            kind,
            rules,
        };
        ovs.tell(Mode::Silent, 64, 1)?;
        ovs.bridges(&db)?;
        ovs.rules()?;
        ovs.thread = thread(ovs.switch.id(), core)?;
        Ok(ovs)
    }

    /// Two bridges: `inner` with the guests' side and the tunnel, `outer` with the wire and the tunnel's address.
    fn bridges(&self, db: &str) -> Result<(), String> {
        let (source, sink) = if self.kind.decap { ("outer", "inner") } else { ("inner", "outer") };
        let (kind, key) = match self.kind.encap {
            Encap::Vxlan => ("vxlan", work::VSID),
            // NVGRE is GRE with the VSID in the key's upper bits. To Open vSwitch the FlowID below is a part of the key.
            Encap::Nvgre => ("gre", work::VSID << 8 | u32::from(work::FLOW_ID)),
        };
        let text = format!(
            "-- add-br inner -- set bridge inner datapath_type=netdev fail_mode=secure \
             -- add-br outer -- set bridge outer datapath_type=netdev fail_mode=secure \
             other-config:hwaddr={} \
             -- add-port {source} source -- set Interface source type=dpdk options:dpdk-devargs={SOURCE} mtu_request=1600 \
             -- add-port {sink} sink -- set Interface sink type=dpdk options:dpdk-devargs={SINK},no-rx=1 mtu_request=1600 \
             -- add-port inner tunnel -- set Interface tunnel type={kind} options:remote_ip={} options:key={key}",
            mac(work::WIRE_MAC),
            ip(work::REMOTE),
        );
        ask(Command::new("ovs-vsctl").args([db, "--timeout=20"]).args(text.split_whitespace()))?;
        // The tunnel's address lies in the switch's own network namespace.
        for text in [format!("addr add {}/16 dev outer", ip(work::LOCAL)), "link set outer up".to_owned()] {
            let mut command = Command::new("nsenter");
            command.args(["-t", &self.switch.id().to_string(), "-n", "ip"]).args(text.split_whitespace());
            ask(&mut command)?;
        }
        self.control(&["tnl/arp/set", "outer", &ip(work::REMOTE), &mac(work::REMOTE_MAC)])?;
        let wire =
            if self.kind.decap { "in_port=source,actions=LOCAL" } else { "in_port=LOCAL,actions=sink" };
        self.openflow("outer", "add-flow", wire)
    }

    fn rules(&self) -> Result<(), String> {
        let file = self.dir.join("rules");
        fs::write(&file, self.rules.text(self.kind)).map_err(|e| format!("{}: {e}", file.display()))?;
        self.openflow("inner", "add-flows", &file.display().to_string())
    }

    fn openflow(&self, bridge: &str, what: &str, argument: &str) -> Result<(), String> {
        let socket = format!("unix:{}", self.dir.join(format!("{bridge}.mgmt")).display());
        ask(Command::new("ovs-ofctl").args(["--timeout=20", what, &socket, argument])).map(drop)
    }

    fn control(&self, words: &[&str]) -> Result<String, String> {
        let target = at("--target", &self.dir.join("switch.ctl"));
        ask(Command::new("ovs-appctl").args([&target, "--timeout=20"]).args(words))
    }

    fn tell(&self, mode: Mode, bytes: u16, flows: u32) -> Result<(), String> {
        let shape = Shape { mode, kind: self.kind, bytes, flows };
        self.control.tell(shape).map_err(|e| format!("frame source: {e}"))
    }

    /// Gives it these flows until it knows all of them.
    ///
    /// # Errors
    /// It does not come to know them, or drops packets.
    pub fn learn(&self, bytes: u16, flows: u32) -> Result<(), String> {
        self.switch.go_on();
        self.tell(Mode::Silent, bytes, flows)?;
        if self.rules == Rules::Connections {
            self.control(&["dpctl/flush-conntrack"])?;
        }
        self.tell(Mode::Given, bytes, flows)?;
        let end = Instant::now() + LIMIT;
        let mut state = String::new();
        while Instant::now() < end {
            self.control(&["dpif-netdev/pmd-stats-clear"])?;
            sleep(Duration::from_millis(200));
            let stats = self.stats()?;
            let missed =
                number(&stats, "miss with success upcall") + number(&stats, "miss with failed upcall");
            let connections = self.control(&["dpctl/ct-get-nconns"])?;
            let connections: f64 = connections.trim().parse().unwrap_or(0.0);
            let known = self.rules != Rules::Connections || connections >= 0.998 * f64::from(flows);
            state = format!("{connections} connections, {missed} misses in 0.2 s");
            if known && missed == 0.0 && number(&stats, "packets received") > 0.0 {
                return self.forwards(bytes, flows);
            }
        }
        Err(format!("Open vSwitch did not learn {flows} flows within {} s: {state}", LIMIT.as_secs()))
    }

    /// Whether each packet leaves through the sink, by the tunnel's action, and as it should.
    fn forwards(&self, bytes: u16, flows: u32) -> Result<(), String> {
        self.tell(Mode::Silent, bytes, flows)?;
        sleep(Duration::from_millis(20));
        let before = self.sent()?;
        self.control(&["dpif-netdev/pmd-stats-clear"])?;
        let failed = |e| format!("frame source: {e}");
        self.control.ask().map_err(failed)?;
        self.tell(Mode::Given, bytes, flows)?;
        sleep(Duration::from_millis(50));
        self.tell(Mode::Silent, bytes, flows)?;
        sleep(Duration::from_millis(20));
        let (sent, received) = (self.sent()? - before, number(&self.stats()?, "packets received"));
        let dump = self.control(&["dpctl/dump-flows"])?;
        let acts = dump.contains(if self.kind.decap { "tnl_pop" } else { "tnl_push" });
        if acts && received > 0.0 && sent >= 0.999 * received {
            return frame::check(self.kind, bytes.into(), &self.control.taken().map_err(failed)?);
        }
        let dump: Vec<_> = dump.lines().take(10).collect();
        let dump = dump.join("\n");
        Err(format!("Open vSwitch forwards {sent} packets of {received}; its first flows:\n{dump}"))
    }

    /// Packets that left through the sink.
    fn sent(&self) -> Result<f64, String> {
        let ports = self.control(&["dpctl/show", "--statistics"])?;
        let sink = ports.split("  port ").find(|port| port.contains(": sink ")).unwrap_or_default();
        let packets = sink.split("TX packets:").nth(1).and_then(|text| text.split_whitespace().next());
        packets.and_then(|n| n.parse().ok()).ok_or_else(|| format!("no packets of the sink in:\n{ports}"))
    }

    /// Measures for `time`, with the path or the frames alone.
    ///
    /// # Errors
    /// It does not answer, or a packet was lost.
    pub fn window(&self, bytes: u16, flows: u32, time: Duration, alone: bool) -> Result<Window, String> {
        self.switch.go_on();
        self.tell(if alone { Mode::Alone } else { Mode::Given }, bytes, flows)?;
        // What was in the caches of the core before, ours or the other mode's, is not counted.
        sleep(Duration::from_millis(30));
        self.control(&["dpif-netdev/pmd-stats-clear"])?;
        let written = || self.control.written().map_err(|e| format!("frame source: {e}"));
        let (frames, begin, start, before) = (written()?, cycles(), Instant::now(), self.ran()?);
        sleep(time);
        let (frames, spent) = (written()? - frames, cycles() - begin);
        let ran = ((self.ran()? - before) as f64 / start.elapsed().as_nanos() as f64).min(1.0);
        let stats = self.stats()?;
        self.switch.hold();
        let received = number(&stats, "packets received");
        if frames == 0 || (received == 0.0) != alone {
            return Err(format!("{frames} frames were written, Open vSwitch received {received}"));
        }
        let lost = number(&stats, "miss with failed upcall");
        if lost > 0.0 {
            return Err(format!("Open vSwitch lost {lost} packets: too many flows for its table"));
        }
        let passes = received + number(&stats, "packet recirculations");
        let hits = ["emc hits", "megaflow hits"].map(|name| number(&stats, name) / passes.max(1.0));
        let own = number(&stats, "processing cycles") / received.max(1.0);
        Ok(Window { cycles: ran * spent as f64 / frames as f64, ran, own, hits })
    }

    /// Nanoseconds that the data path's thread has run (proc(5), `schedstat`), to the last tick.
    fn ran(&self) -> Result<u64, String> {
        let text = fs::read_to_string(self.thread.join("schedstat"));
        let text = text.map_err(|e| format!("{}: {e}", self.thread.display()))?;
        let field = text.split_whitespace().next().and_then(|n| n.parse().ok());
        field.ok_or_else(|| format!("{}: no scheduler statistics", self.thread.display()))
    }

    /// Lines of `name: value` of the data path's thread.
    fn stats(&self) -> Result<HashMap<String, f64>, String> {
        let text = self.control(&["dpif-netdev/pmd-stats-show"])?;
        let thread = text.split("main thread").next().unwrap_or_default();
        let line = |line: &str| {
            let (name, value) = line.split_once(':')?;
            Some((name.trim().to_owned(), value.split_whitespace().next()?.parse().ok()?))
        };
        Ok(thread.lines().filter_map(line).collect())
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

fn number(stats: &HashMap<String, f64>, name: &str) -> f64 {
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

fn mac(bytes: [u8; 6]) -> String {
    bytes.map(|b| format!("{b:02x}")).join(":")
}

fn ip(bytes: [u8; 4]) -> String {
    bytes.map(|b| b.to_string()).join(".")
}
