//! A whole deployment: the provider network, a board and a daemon for each host, guests on VFs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use culvert_packet::Encap;
use serde_json::Value;
use tempfile::TempDir;

use crate::netns::Network;
use crate::process::Service;
use crate::vm::{Vm, VmConfig};

/// Where the programs are.
#[derive(Clone, Debug)]
pub struct Programs {
    dir: PathBuf,
    /// The firmware's image.
    pub firmware: PathBuf,
}

impl Programs {
    /// Beside the program that runs now; the firmware where `cargo xtask firmware` puts it, or where
    /// `CULVERT_FIRMWARE` says.
    ///
    /// # Errors
    /// One is missing: which, and how to build it.
    pub fn find() -> Result<Self, String> {
        let exe = std::env::current_exe().map_err(|e| format!("this program's path: {e}"))?;
        let mut dir = exe.parent().unwrap_or(Path::new(".")).to_owned();
        if dir.ends_with("deps") {
            dir.pop();
        }
        let firmware = match std::env::var_os("CULVERT_FIRMWARE") {
            Some(path) => PathBuf::from(path),
            None => dir.join("../firmware/culvert-fw.bin"),
        };
        for name in ["culvert-emu", "culvertd", "culvert", "culvert-guest"] {
            if !dir.join(name).exists() {
                return Err(format!("{} is missing: run `cargo build` first", dir.join(name).display()));
            }
        }
        if !firmware.exists() {
            return Err(format!("{} is missing: run `cargo xtask firmware` first", firmware.display()));
        }
        Ok(Programs { dir, firmware })
    }

    /// Path of a program.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

/// One host: its board, unless software serves it, and its daemon.
pub struct Host {
    number: usize,
    name: String,
    software: bool,
    board: Option<Service>,
    daemon: Option<Service>,
    /// What captures the uplinks of a host without a board.
    captures: Vec<Service>,
}

/// What a deployment is started with.
pub struct Config {
    /// How many hosts.
    pub hosts: usize,
    /// Subnets of the provider network: at least one for each host.
    pub subnets: usize,
    /// The policy: a bundle of resources.
    pub policy: Value,
    /// Whether each uplink's packets are written to a file.
    pub capture: bool,
    /// Hosts, from 1, whose router keeps silent until [`Network::answer_arp`].
    pub silent_router: Vec<usize>,
    /// Hosts, from 0, without a NIC: the software path serves them.
    pub software: Vec<usize>,
    /// Whether those use the kernel's address, the first provider address, on uplink 0 alone.
    pub kernel_addresses: bool,
    /// How those take their uplinks' frames; none: as culvertd does by itself.
    pub driver: Option<&'static str>,
    /// Capabilities that the daemons of hosts without a NIC may have; none: all that we have.
    pub capabilities: Option<Vec<String>>,
    /// Other wires than the interfaces of the network: host from 0, uplink, and what `culvert-emu` is to be told.
    pub wires: Vec<(usize, usize, String)>,
}

impl Config {
    /// Two hosts with this policy, no captures.
    pub fn two_hosts(policy: Value) -> Self {
        let (silent_router, software, wires) = (Vec::new(), Vec::new(), Vec::new());
        let (capture, kernel_addresses) = (false, false);
        Config {
            hosts: 2,
            subnets: 2,
            policy,
            capture,
            silent_router,
            software,
            kernel_addresses,
            driver: None,
            capabilities: None,
            wires,
        }
    }
}

/// A running deployment. Everything ends when this is dropped.
pub struct Deployment {
    hosts: Vec<Host>,
    programs: Programs,
    network: Network,
    policy: PathBuf,
    capture: bool,
    kernel_addresses: bool,
    driver: Option<&'static str>,
    capabilities: Option<Vec<String>>,
    wires: Vec<(usize, usize, String)>,
    dir: TempDir,
}

/// A vport, as `culvert vport list` shows it.
#[derive(Clone, Debug)]
pub struct VportInfo {
    /// Its number on its host.
    pub id: u16,
    /// The network interface's resource id.
    pub name: String,
    /// The VF's socket.
    pub socket: Option<PathBuf>,
    /// The vhost-user socket of a vport without a VF.
    pub vhost_user: Option<PathBuf>,
    /// The TAP of a vport without a VF.
    pub tap: Option<String>,
    /// Largest IP packet.
    pub mtu: u16,
}

impl Deployment {
    /// Starts it and waits until every host has its policy. [`crate::netns::enter`] must have been called.
    ///
    /// # Errors
    /// Something does not start: which program, and the end of its log.
    pub fn start(config: &Config) -> Result<Self, String> {
        let programs = Programs::find()?;
        let dir =
            tempfile::Builder::new().prefix("culvert-").tempdir().map_err(|e| format!("a directory: {e}"))?;
        let policy = dir.path().join("policy.json");
        std::fs::write(&policy, config.policy.to_string())
            .map_err(|e| format!("{}: {e}", policy.display()))?;
        let mut network = Network::new(config.subnets.max(config.hosts))?;
        for host in &config.software {
            network.separate(host + 1)?;
            if config.kernel_addresses {
                network.address(host + 1, &provider_address(&config.policy, *host))?;
            }
        }
        config.silent_router.iter().try_for_each(|host| network.answer_arp(*host, false))?;
        let hosts = (1..=config.hosts)
            .map(|number| Host {
                number,
                name: format!("host{number}"),
                software: config.software.contains(&(number - 1)),
                board: None,
                daemon: None,
                captures: Vec::new(),
            })
            .collect();
        let Config { capture, kernel_addresses, driver, .. } = *config;
        let (capabilities, wires) = (config.capabilities.clone(), config.wires.clone());
        let mut deployment = Deployment {
            hosts,
            programs,
            network,
            policy,
            capture,
            kernel_addresses,
            driver,
            capabilities,
            wires,
            dir,
        };
        for host in 0..config.hosts {
            if !deployment.hosts[host].software {
                deployment.start_board(host)?;
            } else if capture {
                deployment.start_captures(host)?;
            }
        }
        for host in 0..config.hosts {
            deployment.start_daemon(host)?;
        }
        for host in 0..config.hosts {
            deployment.apply(host)?;
        }
        Ok(deployment)
    }

    /// Directory of logs, sockets and captures.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The provider network.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Keeps the directory when the deployment ends.
    pub fn keep_dir(&mut self) {
        self.dir.disable_cleanup(true);
    }

    /// Capture of an uplink of a host; hosts count from 0 here and below.
    pub fn capture(&self, host: usize, uplink: usize) -> PathBuf {
        self.dir.path().join(format!("host{}-uplink{uplink}.pcapng", host + 1))
    }

    fn start_board(&mut self, host: usize) -> Result<(), String> {
        let socket = self.board_socket(host);
        let mut command = Command::new(self.programs.path("culvert-emu"));
        command.arg("--socket").arg(&socket);
        for uplink in 0..2 {
            let other = self.wires.iter().find(|(h, u, _)| (*h, *u) == (host, uplink));
            let wire = match other {
                Some((_, _, wire)) => wire.clone(),
                None => format!("af_packet:{}", Network::interface(host + 1, uplink)),
            };
            command.arg(format!("--uplink{uplink}")).arg(wire);
            if self.capture {
                command.arg(format!("--capture{uplink}")).arg(self.capture(host, uplink));
            }
            if self.capture && uplink == 0 {
                // Whole frames of all that a demo sends: checksums cover them.
                command.args(["--capture-full", "1024"]);
            }
        }
        let host = &mut self.hosts[host];
        let mut board = Service::start(&format!("{}-board", host.name), &mut command, self.dir.path())?;
        board.until(Duration::from_secs(20), "its socket is there", || socket.exists())?;
        host.board = Some(board);
        Ok(())
    }

    /// Captures what a host without a board sends and receives, at the router's end of its uplinks.
    fn start_captures(&mut self, host: usize) -> Result<(), String> {
        for uplink in 0..2 {
            let (name, file) = (self.hosts[host].name.clone(), self.capture(host, uplink));
            let port = format!("r{}u{uplink}", host + 1);
            let mut command = Command::new("nsenter");
            command.args(["-t", &self.network.holder(None).to_string(), "-n", "--", "dumpcap", "-q"]);
            // Large enough for all of a demo: what is not written yet waits in the kernel.
            command.args(["-B", "128", "-i", &port, "-w"]).arg(&file);
            let mut capture =
                Service::start(&format!("{name}-capture{uplink}"), &mut command, self.dir.path())?;
            capture.until(Duration::from_secs(20), "its file is there", || file.exists())?;
            self.hosts[host].captures.push(capture);
        }
        Ok(())
    }

    /// Ends the captures of hosts without a board: their files are complete then.
    ///
    /// # Errors
    /// One does not end.
    pub fn end_captures(&mut self) -> Result<(), String> {
        let mut captures = self.hosts.iter_mut().flat_map(|host| host.captures.drain(..));
        captures.try_for_each(|capture| capture.stop(Duration::from_secs(10)))
    }

    /// Starts a host's daemon and waits until it answers.
    ///
    /// # Errors
    /// It does not: the end of its log.
    pub fn start_daemon(&mut self, host: usize) -> Result<(), String> {
        let (socket, api) = (self.board_socket(host), self.api_socket(host));
        let _stale = std::fs::remove_file(&api);
        let name = self.hosts[host].name.clone();
        let mut command = Command::new(self.programs.path("culvertd"));
        if let Some(all) = self.capabilities.as_ref().filter(|_| self.hosts[host].software) {
            let sets: String = all.iter().map(|one| format!(",+{one}")).collect();
            command = Command::new("setpriv");
            command.arg(format!("--bounding-set=-all{sets}")).arg(format!("--inh-caps=-all{sets}"));
            command.arg("--").arg(self.programs.path("culvertd"));
        }
        command.args(["--host", &name]);
        if self.hosts[host].software {
            command.args(["--flows", "131072", "--uplink", &Network::interface(host + 1, 0)]);
            // Teams of one and of two.
            command.arg("--workers").arg((host % 2 + 1).to_string());
            if let Some(driver) = self.driver {
                command.args(["--driver", driver]);
            }
            if !self.kernel_addresses {
                // Two addresses in one subnet, each on an interface of its own: more than a kernel keeps apart.
                command.args(["--uplink", &Network::interface(host + 1, 1), "--provider-address", "own"]);
            }
        } else {
            command.arg("--nic").arg(format!("vfio-user:{}", socket.display()));
            command.arg("--firmware").arg(&self.programs.firmware);
        }
        command.arg("--state").arg(self.run_dir(host).join("state")).arg("--socket").arg(&api);
        let mut command = self.network.on_host(host + 1, &command);
        let mut daemon = Service::start(&format!("{name}-daemon"), &mut command, self.dir.path())?;
        daemon.until(Duration::from_secs(30), "it answers", || {
            api.exists() && self.cli(host, &["nic", "show"]).is_ok()
        })?;
        self.hosts[host].daemon = Some(daemon);
        Ok(())
    }

    /// Applies the policy to a host.
    ///
    /// # Errors
    /// The daemon refuses it.
    pub fn apply(&self, host: usize) -> Result<(), String> {
        let policy = self.policy.display().to_string();
        self.cli(host, &["policy", "apply", &policy]).map(|_| ())
    }

    /// Changes the policy on all hosts.
    ///
    /// # Errors
    /// A daemon refuses it.
    pub fn change_policy(&self, policy: &Value) -> Result<(), String> {
        std::fs::write(&self.policy, policy.to_string())
            .map_err(|e| format!("{}: {e}", self.policy.display()))?;
        (0..self.hosts.len()).try_for_each(|host| self.apply(host))
    }

    fn board_socket(&self, host: usize) -> PathBuf {
        self.dir.path().join(format!("{}.sock", self.hosts[host].name))
    }

    /// Where a host's daemon has its sockets.
    pub fn run_dir(&self, host: usize) -> PathBuf {
        self.dir.path().join(&self.hosts[host].name)
    }

    fn api_socket(&self, host: usize) -> PathBuf {
        self.run_dir(host).join("api.sock")
    }

    /// Runs `culvert --json` against a host's daemon.
    ///
    /// # Errors
    /// What it printed.
    pub fn cli(&self, host: usize, args: &[&str]) -> Result<Value, String> {
        let mut command = Command::new(self.programs.path("culvert"));
        command.arg("--json").arg("--host-socket").arg(self.api_socket(host)).args(args).stdin(Stdio::null());
        let output = command.output().map_err(|e| format!("culvert: {e}"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            let errors = String::from_utf8_lossy(&output.stderr);
            return Err(format!("culvert {}: {text}{errors}", args.join(" ")));
        }
        serde_json::from_str(&text).map_err(|e| format!("culvert {}: {e}: {text}", args.join(" ")))
    }

    /// Starts a guest on the VF or the TAP of a vport.
    ///
    /// # Errors
    /// There is no such vport, or the guest does not come up.
    pub fn guest(&self, host: usize, vport: &str, ip: &str, log_frames: usize) -> Result<Vm, String> {
        let info = self.vport(host, vport)?;
        let mut command = Command::new(self.programs.path("culvert-guest"));
        match (&info.socket, &info.tap) {
            (Some(vf), _) => command.arg("--vf").arg(vf).arg("--offload"),
            (None, Some(tap)) => command.args(["--interface", tap, "--mtu", &info.mtu.to_string()]),
            (None, None) => return Err(format!("{vport} has no VF and no TAP on host {}", host + 1)),
        };
        let network: culvert_packet::Prefix = prefix_of(ip)?;
        let config = VmConfig { name: vport, ip, gateway: Some(network.lowest_host()), log_frames };
        let log = self.dir.path().join(format!("guest-{vport}.log"));
        Vm::start(self.network.on_host(host + 1, &command), &config, &log)
    }

    /// A vport of a host.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn vport(&self, host: usize, name: &str) -> Result<VportInfo, String> {
        let found = self.vports(host)?.into_iter().find(|v| v.name == name);
        found.ok_or_else(|| format!("host {} has no vport {name}", host + 1))
    }

    /// The vports of a host.
    ///
    /// # Errors
    /// The daemon does not answer.
    pub fn vports(&self, host: usize) -> Result<Vec<VportInfo>, String> {
        let list = self.cli(host, &["vport", "list"])?;
        let vports = list.as_array().cloned().unwrap_or_default();
        let info = |v: &Value| {
            let by = |kind: &str| v["attachment"].as_str()?.strip_prefix(kind).map(str::to_owned);
            let (tap, vhost_user) = (by("tap:"), by("vhost-user:").map(PathBuf::from));
            let socket = v["attachment"].as_str().filter(|a| v["vf"].is_u64() && !a.is_empty());
            let socket = socket.map(PathBuf::from);
            let name = v["name"].as_str().unwrap_or_default().to_owned();
            let number = |field: &str| v[field].as_u64().unwrap_or_default() as u16;
            VportInfo { id: number("id"), name, socket, vhost_user, tap, mtu: number("mtu") }
        };
        Ok(vports.iter().map(info).collect())
    }

    /// Packets that a host has dropped, by reason.
    ///
    /// # Errors
    /// The daemon does not answer.
    pub fn drops(&self, host: usize) -> Result<BTreeMap<String, u64>, String> {
        let view = self.cli(host, &["drops"])?;
        let entries = view["drops"].as_array().cloned().unwrap_or_default();
        let mut drops = BTreeMap::new();
        for entry in &entries {
            let reason = entry["reason"].as_str().unwrap_or_default().to_owned();
            *drops.entry(reason).or_default() += entry["packets"].as_u64().unwrap_or_default();
        }
        Ok(drops)
    }

    /// Waits until a condition holds that a host reports, asking ten times a second.
    ///
    /// # Errors
    /// It does not within `limit`, or the asking fails.
    pub fn until(
        &self,
        limit: Duration,
        what: &str,
        mut ready: impl FnMut(&Self) -> Result<bool, String>,
    ) -> Result<(), String> {
        let end = Instant::now() + limit;
        while !ready(self)? {
            if Instant::now() > end {
                return Err(format!("not {what} within {} s", limit.as_secs()));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// A host's daemon.
    pub fn daemon(&self, host: usize) -> Option<&Service> {
        self.hosts[host].daemon.as_ref()
    }

    /// A host's board.
    pub fn board(&self, host: usize) -> Option<&Service> {
        self.hosts[host].board.as_ref()
    }

    /// Stops a host's daemon as an operator would.
    ///
    /// # Errors
    /// It does not end.
    pub fn stop_daemon(&mut self, host: usize) -> Result<(), String> {
        self.hosts[host].daemon.take().map_or(Ok(()), |d| d.stop(Duration::from_secs(10)))
    }

    /// Kills a host's daemon without warning.
    pub fn kill_daemon(&mut self, host: usize) {
        if let Some(daemon) = self.hosts[host].daemon.take() {
            daemon.kill();
        }
    }

    /// Number of a host, from 1.
    pub fn number(&self, host: usize) -> usize {
        self.hosts[host].number
    }
}

/// The wider example: Contoso also has VSID 5002, a second VM on host 1, and a vport without a VF.
///
/// # Errors
/// The example is not readable.
pub fn routed() -> Result<Value, String> {
    let text = include_str!("../../../docs/examples/routed.json");
    serde_json::from_str(text).map_err(|e| format!("routed.json: {e}"))
}

impl Drop for Deployment {
    /// The logs of a test that has failed stay.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.dir.disable_cleanup(true);
            eprintln!("logs are in {}", self.dir.path().display());
        }
    }
}

/// The first provider address of a host.
fn provider_address(policy: &Value, host: usize) -> String {
    let uplinks = &policy["servers"][host]["properties"]["networkInterfaces"];
    uplinks[0]["properties"]["providerAddress"].as_str().unwrap_or_default().to_owned()
}

fn prefix_of(ip: &str) -> Result<culvert_packet::Prefix, String> {
    let wrong = || format!("{ip} is not an address with its prefix's length");
    let (addr, len) = ip.split_once('/').ok_or_else(wrong)?;
    let addr = addr.parse().map_err(|_| wrong())?;
    Ok(culvert_packet::Prefix::of(addr, len.parse().map_err(|_| wrong())?))
}

/// The deployment of figure 8, as the documentation has it, carried in `encap`.
///
/// # Errors
/// The example is not readable.
pub fn figure8(encap: Encap) -> Result<Value, String> {
    let text = include_str!("../../../docs/examples/figure8.json");
    let mut bundle: Value = serde_json::from_str(text).map_err(|e| format!("figure8.json: {e}"))?;
    let configuration = &mut bundle["virtualNetworkManager"][0]["properties"];
    configuration["networkVirtualizationProtocol"] = Value::from(encap.to_string());
    Ok(bundle)
}

/// Changes a policy of two hosts: the uplinks of both are in one subnet of the provider network, which is this VLAN. Host 2
/// has 192.168.1.20 and 192.168.1.21.
pub fn on_one_vlan(policy: &mut Value, vlan: u16) {
    policy["logicalNetworks"][0]["properties"]["subnets"][0]["properties"]["vlanID"] = vlan.into();
    let uplinks = policy["servers"][1]["properties"]["networkInterfaces"].as_array_mut();
    for (n, uplink) in uplinks.into_iter().flatten().enumerate() {
        uplink["properties"]["logicalSubnet"]["resourceRef"] =
            "/logicalNetworks/provider/subnets/east".into();
        uplink["properties"]["providerAddress"] = format!("192.168.1.{}", 20 + n).into();
    }
}
