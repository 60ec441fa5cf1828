//! A whole deployment: the provider network, a board and a daemon for each host, guests on its vports.

mod builder;
mod host;
mod vport;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::address::prefix;
use crate::kernel_vm::KernelVm;
use crate::network::Network;
use crate::policies::provider_address;
use crate::process::{Service, children_of};
use crate::programs::Programs;
use crate::vm::{Vm, VmConfig};
use crate::wait::poll;

use host::{Host, SwitchOptions};

pub use builder::Builder;
pub use vport::VportInfo;

/// A running deployment. Its programs end when this is dropped. Hosts count from 0.
pub struct Deployment {
    hosts: Vec<Host>,
    programs: Programs,
    network: Network,
    policy: PathBuf,
    switch: SwitchOptions,
    dir: TempDir,
}

impl Builder {
    /// Starts the deployment and waits until every host has its policy. [`crate::netns::enter`] must have been called.
    ///
    /// # Errors
    /// A program does not start: its name, and the end of its log.
    pub fn start(self) -> Result<Deployment, String> {
        let programs = Programs::find()?;
        let dir = tempfile::Builder::new()
            .prefix("culvert-")
            .tempdir()
            .map_err(|e| format!("cannot create a directory: {e}"))?;
        let policy = dir.path().join("policy.json");
        let mut network = Network::new(self.subnets())?;
        for host in self.software.iter().chain(&self.foreign) {
            network.separate(host + 1)?;
        }
        if self.switch.kernel_address {
            for host in &self.software {
                network.address(host + 1, &provider_address(&self.policy, *host))?;
            }
        }
        self.silent_routers.iter().try_for_each(|host| network.answer_arp(host + 1, false))?;
        let hosts = (0..self.hosts)
            .map(|host| Host::new(host + 1, dir.path(), self.software.contains(&host)))
            .collect();
        let mut deployment = Deployment { hosts, programs, network, policy, switch: self.switch, dir };
        let Deployment { hosts, programs, network, switch, .. } = &mut deployment;
        for (host, state) in hosts.iter_mut().enumerate() {
            if !state.software {
                let wires = [0, 1].map(|uplink| {
                    let wire = self.wires.iter().find(|(h, u, _)| (*h, *u) == (host, uplink));
                    let veth = || format!("af_packet:{}", Network::interface(host + 1, uplink));
                    wire.map_or_else(veth, |(_, _, wire)| wire.clone())
                });
                state.set_board(wires, self.capture, self.emulator.as_deref());
                state.start_board(programs)?;
            } else if self.capture {
                state.start_captures(network)?;
            }
        }
        for host in hosts {
            host.start_daemon(programs, network, switch)?;
        }
        deployment.change_policy(&self.policy)?;
        Ok(deployment)
    }
}

impl Deployment {
    /// Describes a deployment with this policy, a bundle of resources.
    pub fn builder(policy: Value) -> Builder {
        Builder::new(policy)
    }

    /// Directory of logs, sockets and captures.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The provider network.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The capture of an uplink of a host.
    pub fn capture(&self, host: usize, uplink: usize) -> PathBuf {
        self.hosts[host].capture_file(uplink)
    }

    /// Stops the captures of software hosts, so that their files are complete.
    ///
    /// # Errors
    /// A capture process does not end.
    pub fn end_captures(&mut self) -> Result<(), String> {
        self.hosts.iter_mut().try_for_each(Host::end_captures)
    }

    /// Starts a host's daemon and waits until it answers.
    ///
    /// # Errors
    /// It does not: the end of its log.
    pub fn start_daemon(&mut self, host: usize) -> Result<(), String> {
        self.hosts[host].start_daemon(&self.programs, &self.network, &self.switch)
    }

    /// Stops a host's daemon as an operator would.
    ///
    /// # Errors
    /// It does not end.
    pub fn stop_daemon(&mut self, host: usize) -> Result<(), String> {
        self.hosts[host].daemon.take().map_or(Ok(()), |d| d.stop(Duration::from_secs(10)))
    }

    /// Stops all programs as an operator would, daemons first.
    ///
    /// # Errors
    /// One does not end within the limit, or says by its exit code that it failed.
    pub fn stop(mut self, limit: Duration) -> Result<(), String> {
        self.end_captures()?;
        let daemons: Vec<Service> = self.hosts.iter_mut().filter_map(|host| host.daemon.take()).collect();
        let boards: Vec<Service> = self.hosts.iter_mut().filter_map(|host| host.board.take()).collect();
        daemons.into_iter().chain(boards).try_for_each(|service| service.stop(limit))
    }

    /// Kills a host's daemon without warning.
    pub fn kill_daemon(&mut self, host: usize) {
        if let Some(daemon) = self.hosts[host].daemon.take() {
            daemon.kill();
        }
    }

    /// A host's daemon.
    pub fn daemon(&self, host: usize) -> Option<&Service> {
        self.hosts[host].daemon.as_ref()
    }

    /// Kills a host's board without warning, and its firmware with it.
    pub fn kill_board(&mut self, host: usize) {
        if let Some(board) = self.hosts[host].board.take() {
            board.kill();
        }
    }

    /// Starts a host's board again and waits for its socket.
    ///
    /// # Errors
    /// It does not start: the end of its log.
    pub fn start_board(&mut self, host: usize) -> Result<(), String> {
        self.hosts[host].start_board(&self.programs)
    }

    /// A host's board.
    pub fn board(&self, host: usize) -> Option<&Service> {
        self.hosts[host].board.as_ref()
    }

    /// Process id of the firmware on a host's board.
    ///
    /// # Errors
    /// The host has no board, or the board does not run exactly one firmware.
    pub fn firmware(&self, host: usize) -> Result<u32, String> {
        let board = self.board(host).ok_or("the host has no board")?;
        match children_of(board.id())[..] {
            [firmware] => Ok(firmware),
            ref other => Err(format!("a board runs one firmware, not {other:?}")),
        }
    }

    /// Kills the firmware on a host's board; returns its process id.
    ///
    /// # Errors
    /// It does not run.
    pub fn kill_firmware(&self, host: usize) -> Result<u32, String> {
        let firmware = self.firmware(host)?;
        let killed = Command::new("kill").args(["-s", "KILL", &firmware.to_string()]).status();
        if killed.is_ok_and(|status| status.success()) {
            Ok(firmware)
        } else {
            Err("the firmware cannot be killed".to_owned())
        }
    }

    /// Changes the policy on all hosts.
    ///
    /// # Errors
    /// A daemon refuses it.
    pub fn change_policy(&self, policy: &Value) -> Result<(), String> {
        let path = self.policy.display().to_string();
        std::fs::write(&self.policy, policy.to_string()).map_err(|e| format!("{path}: {e}"))?;
        (0..self.hosts.len())
            .try_for_each(|host| self.cli(host, &["policy", "apply", "--no-wait", &path]).map(drop))
    }

    /// Where a host's daemon has its sockets and its state.
    pub fn run_dir(&self, host: usize) -> PathBuf {
        self.hosts[host].run_dir()
    }

    /// Runs `culvert --json` against a host's daemon.
    ///
    /// # Errors
    /// What it printed.
    pub fn cli(&self, host: usize, args: &[&str]) -> Result<Value, String> {
        self.hosts[host].cli(&self.programs, args)
    }

    /// Runs `culvert` against a host's daemon, for people. Returns its exit code and what it printed.
    ///
    /// # Errors
    /// It cannot be started, or does not end.
    pub fn run(&self, host: usize, args: &[&str]) -> Result<(Option<i32>, String), String> {
        self.hosts[host].run(&self.programs, args)
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
            (None, Some(tap)) => {
                // The TAP itself is the VM's interface.
                self.network.host(host + 1, &["ip", "link", "set", tap, "address", &info.mac])?;
                command.args(["--interface", tap, "--mtu", &info.mtu.to_string()])
            }
            (None, None) => return Err(format!("{vport} has no VF and no TAP on host {}", host + 1)),
        };
        let gateway = Some(prefix(ip)?.lowest_host());
        let config = VmConfig { name: vport, ip, gateway, log_frames };
        let log = self.dir.path().join(format!("guest-{vport}.log"));
        Vm::start(self.network.on_host(host + 1, &command), &config, &log)
    }

    /// Gives the TAP of a vport to a VM that is Linux's own TCP/IP stack.
    ///
    /// # Errors
    /// The vport has no TAP, or a command fails.
    pub fn kernel_vm(&self, host: usize, vport: &str, ip: &str) -> Result<KernelVm, String> {
        let vm = KernelVm::new(prefix(ip)?.addr().is_ipv6())?;
        self.plug(host, vport, &vm, ip)?;
        Ok(vm)
    }

    /// Moves the TAP of a vport into a VM's namespace and gives it the VM's addresses.
    ///
    /// # Errors
    /// The vport has no TAP, or a command fails.
    pub fn plug(&self, host: usize, vport: &str, vm: &KernelVm, ip: &str) -> Result<(), String> {
        let info = self.vport(host, vport)?;
        let tap = info.tap.ok_or_else(|| format!("{vport} has no TAP"))?;
        self.network.host(host + 1, &["ip", "link", "set", &tap, "netns", &vm.id()])?;
        vm.run(&["ip", "link", "set", &tap, "address", &info.mac])?;
        vm.configure(&tap, info.mtu, &[ip])
    }

    /// Bridges the TAP of a vport: creates a bridge `bridge` on the host, with the TAP and a veth whose other end is the VM's
    /// interface `eth0`, with the VM's addresses.
    ///
    /// # Errors
    /// The vport has no TAP, or a command fails.
    pub fn bridge(&self, host: usize, vport: &str, bridge: &str, ip: &str) -> Result<KernelVm, String> {
        let vm = KernelVm::new(prefix(ip)?.addr().is_ipv6())?;
        let info = self.vport(host, vport)?;
        let tap = info.tap.ok_or_else(|| format!("{vport} has no TAP"))?;
        let (port, mtu) = (format!("{bridge}p"), info.mtu.to_string());
        for line in [
            format!("link add {bridge} mtu {mtu} type bridge forward_delay 0"),
            format!("link set {tap} master {bridge}"),
            format!(
                "link add {port} mtu {mtu} type veth peer name eth0 address {} netns {}",
                info.mac,
                vm.id()
            ),
            format!("link set {port} master {bridge} up"),
            format!("link set {bridge} up"),
        ] {
            let words: Vec<&str> = std::iter::once("ip").chain(line.split(' ')).collect();
            self.network.host(host + 1, &words)?;
        }
        vm.configure("eth0", info.mtu, &[ip])?;
        Ok(vm)
    }

    /// Moves a VM's TAP back to its host, where a new daemon finds it.
    ///
    /// # Errors
    /// What `ip` printed.
    pub fn unplug(&self, host: usize, tap: &str, vm: &KernelVm) -> Result<(), String> {
        let namespace =
            self.network.host_namespace(host + 1).ok_or("the host has no namespace of its own")?;
        vm.run(&["ip", "link", "set", tap, "netns", &namespace.id().to_string()]).map(drop)
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
        Ok(list.as_array().into_iter().flatten().map(VportInfo::from_json).collect())
    }

    /// Packets that a host has dropped, by reason.
    ///
    /// # Errors
    /// The daemon does not answer.
    pub fn drops(&self, host: usize) -> Result<BTreeMap<String, u64>, String> {
        let view = self.cli(host, &["drops"])?;
        let mut drops = BTreeMap::new();
        for entry in view["drops"].as_array().into_iter().flatten() {
            let reason = entry["reason"].as_str().unwrap_or_default().to_owned();
            *drops.entry(reason).or_default() += entry["packets"].as_u64().unwrap_or_default();
        }
        Ok(drops)
    }

    /// Waits until `ready`, which asks a host, ten times a second.
    ///
    /// # Errors
    /// `ready` does not hold within `limit`, or fails.
    pub fn until(
        &self,
        limit: Duration,
        what: &str,
        mut ready: impl FnMut(&Self) -> Result<bool, String>,
    ) -> Result<(), String> {
        let held = poll(limit, Duration::from_millis(100), || ready(self))?;
        if held { Ok(()) } else { Err(format!("not {what} within {} s", limit.as_secs())) }
    }

    /// Waits until a vport has this state, `up` or `down`.
    ///
    /// # Errors
    /// It does not within `limit`, or the daemon does not answer.
    pub fn until_vport(&self, host: usize, vport: &str, state: &str, limit: Duration) -> Result<(), String> {
        self.until(limit, state, |d| Ok(d.vport(host, vport)?.state == state))
    }

    /// Number of a host, from 1.
    pub fn number(&self, host: usize) -> usize {
        self.hosts[host].number
    }
}

impl Drop for Deployment {
    /// Keeps the logs of a failed test.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.dir.disable_cleanup(true);
            eprintln!("logs are in {}", self.dir.path().display());
        }
    }
}
