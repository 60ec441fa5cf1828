//! One host of a deployment: its board, unless the software switch serves it, its daemon, and captures of its uplinks.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::network::Network;
use crate::process::{Service, output_within};
use crate::programs::Programs;

/// How long the daemon may take to answer.
const API_LIMIT: Duration = Duration::from_secs(30);

/// How `culvertd` runs on hosts without a NIC.
#[derive(Clone, Debug, Default)]
pub(super) struct SwitchOptions {
    /// Whether the provider address is the kernel's, on uplink 0 alone.
    pub(super) kernel_address: bool,
    /// `--driver`; none: the daemon chooses.
    pub(super) driver: Option<&'static str>,
    /// Capabilities of the daemon; none: all that this process has.
    pub(super) capabilities: Option<Vec<String>>,
}

/// A host. Its programs end when this is dropped.
pub(super) struct Host {
    /// Its number, from 1.
    pub(super) number: usize,
    /// Its name in the policy.
    name: String,
    /// Where the deployment's files are.
    dir: PathBuf,
    pub(super) software: bool,
    pub(super) board: Option<Service>,
    /// What the board is started with.
    board_args: Vec<String>,
    pub(super) daemon: Option<Service>,
    /// Capture processes of a host without a board.
    captures: Vec<Service>,
}

impl Host {
    /// A host whose programs are not started yet.
    pub(super) fn new(number: usize, dir: &Path, software: bool) -> Self {
        Host {
            number,
            name: format!("host{number}"),
            dir: dir.to_owned(),
            software,
            board: None,
            board_args: Vec::new(),
            daemon: None,
            captures: Vec::new(),
        }
    }

    /// The capture of an uplink.
    pub(super) fn capture_file(&self, uplink: usize) -> PathBuf {
        self.dir.join(format!("{}-uplink{uplink}.pcapng", self.name))
    }

    /// Where the daemon has its sockets and its state.
    pub(super) fn run_dir(&self) -> PathBuf {
        self.dir.join(&self.name)
    }

    fn board_socket(&self) -> PathBuf {
        self.dir.join(format!("{}.sock", self.name))
    }

    fn api_socket(&self) -> PathBuf {
        self.run_dir().join("api.sock")
    }

    /// Gives the board these wires, and the emulator of its processor if it is another than the usual one.
    pub(super) fn set_board(&mut self, wires: [String; 2], capture: bool, emulator: Option<&Path>) {
        let mut args = Vec::new();
        for (uplink, wire) in wires.into_iter().enumerate() {
            args.extend([format!("--uplink{uplink}"), wire]);
            if capture {
                args.extend([format!("--capture{uplink}"), self.capture_file(uplink).display().to_string()]);
            }
        }
        if capture {
            // MiB of whole frames: enough for all that a demo sends, so that checksums can be verified.
            args.extend(["--capture-full", "1024"].map(String::from));
        }
        args.extend(emulator.iter().flat_map(|path| ["--qemu".to_owned(), path.display().to_string()]));
        self.board_args = args;
    }

    /// Starts the board and waits for its socket.
    pub(super) fn start_board(&mut self, programs: &Programs) -> Result<(), String> {
        let socket = self.board_socket();
        // One that was killed leaves it behind.
        let _stale = std::fs::remove_file(&socket);
        let mut command = Command::new(programs.path("culvert-emu"));
        command.arg("--socket").arg(&socket).args(&self.board_args);
        let mut board = Service::start(&format!("{}-board", self.name), &mut command, &self.dir)?;
        board.until(Duration::from_secs(20), "its socket exists", || socket.exists())?;
        self.board = Some(board);
        Ok(())
    }

    /// Captures a software host's uplinks at the router's end.
    pub(super) fn start_captures(&mut self, network: &Network) -> Result<(), String> {
        for uplink in 0..2 {
            let (file, port) = (self.capture_file(uplink), Network::router_port(self.number, uplink));
            let mut command = Command::new("dumpcap");
            // A kernel buffer (MiB) that holds all of a demo's frames until dumpcap writes them.
            command.args(["-q", "-B", "128", "-i", &port, "-w"]).arg(&file);
            let mut command = network.router_namespace().command(&command);
            let name = format!("{}-capture{uplink}", self.name);
            let mut capture = Service::start(&name, &mut command, &self.dir)?;
            capture.until(Duration::from_secs(20), "its file exists", || file.exists())?;
            self.captures.push(capture);
        }
        Ok(())
    }

    /// Stops the capture processes, so that their files are complete.
    pub(super) fn end_captures(&mut self) -> Result<(), String> {
        self.captures.drain(..).try_for_each(|capture| capture.stop(Duration::from_secs(10)))
    }

    /// Starts the daemon and waits until it answers.
    pub(super) fn start_daemon(
        &mut self,
        programs: &Programs,
        network: &Network,
        options: &SwitchOptions,
    ) -> Result<(), String> {
        let api = self.api_socket();
        let _stale = std::fs::remove_file(&api);
        let mut command = self.daemon_command(programs, options);
        command.args(["--host", &self.name]);
        if self.software {
            command.args(["--flows", "131072", "--uplink", &Network::interface(self.number, 0)]);
            // Hosts with an odd number have one worker, the others two.
            command.arg("--workers").arg(((self.number - 1) % 2 + 1).to_string());
            if let Some(driver) = options.driver {
                command.args(["--driver", driver]);
            }
            if !options.kernel_address {
                // Two addresses of one subnet on two interfaces: the kernel would not keep them apart.
                let second = Network::interface(self.number, 1);
                command.args(["--uplink", &second, "--provider-address", "own"]);
            }
        } else {
            command.arg("--nic").arg(format!("vfio-user:{}", self.board_socket().display()));
            command.arg("--firmware").arg(&programs.firmware);
        }
        command.arg("--state").arg(self.run_dir().join("state")).arg("--socket").arg(&api);
        let mut command = network.on_host(self.number, &command);
        let mut daemon = Service::start(&format!("{}-daemon", self.name), &mut command, &self.dir)?;
        daemon.until(Duration::from_secs(30), "it answers", || {
            api.exists() && self.cli(programs, &["nic", "show"]).is_ok()
        })?;
        self.daemon = Some(daemon);
        Ok(())
    }

    /// The daemon's program, run by `setpriv` if its capabilities are limited.
    fn daemon_command(&self, programs: &Programs, options: &SwitchOptions) -> Command {
        let program = programs.path("culvertd");
        let Some(all) = options.capabilities.as_ref().filter(|_| self.software) else {
            return Command::new(program);
        };
        let sets: String = all.iter().map(|one| format!(",+{one}")).collect();
        let mut command = Command::new("setpriv");
        command.arg(format!("--bounding-set=-all{sets}")).arg(format!("--inh-caps=-all{sets}"));
        command.arg("--").arg(program);
        command
    }

    /// Runs `culvert` against the daemon. Returns its exit code and what it printed.
    pub(super) fn run(&self, programs: &Programs, args: &[&str]) -> Result<(Option<i32>, String), String> {
        let mut command = Command::new(programs.path("culvert"));
        command.arg("--host-socket").arg(self.api_socket()).args(args);
        let output = output_within(&mut command, API_LIMIT)?;
        let [out, errors] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
        Ok((output.status.code(), format!("{out}{errors}")))
    }

    /// Runs `culvert --json` against the daemon.
    pub(super) fn cli(&self, programs: &Programs, args: &[&str]) -> Result<Value, String> {
        let mut command = Command::new(programs.path("culvert"));
        command.arg("--json").arg("--host-socket").arg(self.api_socket()).args(args);
        let output = output_within(&mut command, API_LIMIT)?;
        let text = String::from_utf8_lossy(&output.stdout);
        // Health that is not ok is an answer, too.
        let is_answer = args == ["health"] && text.contains("\"problems\"");
        if !output.status.success() && !is_answer {
            let errors = String::from_utf8_lossy(&output.stderr);
            return Err(format!("culvert {}: {text}{errors}", args.join(" ")));
        }
        serde_json::from_str(&text).map_err(|e| format!("culvert {}: {e}: {text}", args.join(" ")))
    }
}
