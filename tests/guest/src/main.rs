//! `culvert-guest`: stands in for a VM on one VF. Prints events as JSON lines.

#![forbid(unsafe_code)]

use std::io::{BufRead, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use culvert_guest::virtio::NetOptions;
use culvert_guest::{Command, Event, Guest, GuestConfig, Interface, NetStack};
use serde_json::{Value, json};

/// A small guest on a VF: virtio-net driver and TCP/IP stack.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// The VF's vfio-user socket.
    #[arg(long, value_name = "SOCKET", required_unless_present = "interface")]
    vf: Option<PathBuf>,
    /// Instead of a VF: an interface of the kernel, such as the TAP of a host without a NIC.
    #[arg(long, value_name = "INTERFACE", conflicts_with = "vf")]
    interface: Option<String>,
    /// The largest IP packet on that interface.
    #[arg(long, default_value_t = 1500)]
    mtu: u16,
    /// The guest's address and prefix, such as 10.1.1.11/24.
    #[arg(long, value_name = "ADDRESS/PREFIX")]
    ip: Network,
    /// The router to other subnets.
    #[arg(long)]
    gateway: Option<IpAddr>,
    /// Refuse to start unless the VF has this MAC address.
    #[arg(long, value_name = "MAC")]
    mac_check: Option<Mac>,
    /// A name for messages.
    #[arg(long, default_value = "guest")]
    name: String,
    /// Leave TCP checksums to the VF.
    #[arg(long)]
    offload: bool,
    /// Log this number of frames in each direction.
    #[arg(long, value_name = "FRAMES")]
    log_frames: Option<usize>,
    /// End after this number of seconds.
    #[arg(long, default_value_t = 600)]
    timeout: u64,
    /// Print JSON lines, which is the only format.
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Answer pings and UDP echo until the timeout.
    Serve,
    /// Answer pings and UDP echo, and take commands as JSON lines from standard input until its end.
    Control,
    /// Ping a host.
    Ping {
        /// The destination.
        dst: IpAddr,
        /// Number of requests.
        #[arg(long, default_value_t = 3)]
        count: u16,
    },
    /// Send a stream over TCP.
    Send {
        /// The destination.
        dst: IpAddr,
        /// The port.
        #[arg(long, default_value_t = 5001)]
        port: u16,
        /// Number of MiB.
        #[arg(long, default_value_t = 64)]
        mib: u64,
        /// Seed of the stream.
        #[arg(long, default_value_t = 0)]
        seed: u64,
    },
    /// Receive a stream over TCP.
    Receive {
        /// The port.
        #[arg(long, default_value_t = 5001)]
        port: u16,
    },
    /// Probe a guest's UDP echo.
    Probe {
        /// The destination.
        dst: IpAddr,
        /// Time between two datagrams, in milliseconds.
        #[arg(long, default_value_t = 10)]
        interval_ms: u64,
        /// Duration in milliseconds.
        #[arg(long, default_value_t = 5000)]
        duration_ms: u64,
    },
}

#[derive(Clone)]
struct Network(IpAddr, u8);

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("\"{text}\" is not ADDRESS/PREFIX, such as 10.1.1.11/24");
        let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.parse().ok().filter(|p| *p <= longest).ok_or_else(wrong)?;
        Ok(Self(address, prefix))
    }
}

#[derive(Clone)]
struct Mac([u8; 6]);

impl FromStr for Mac {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Option<Vec<u8>> = text.split([':', '-']).map(|p| u8::from_str_radix(p, 16).ok()).collect();
        let mac = parts.and_then(|p| p.try_into().ok());
        mac.map(Self).ok_or_else(|| format!("\"{text}\" is no MAC address"))
    }
}

/// Prints a line, with the command's `id` if it had one. Ignores a closed output.
fn print(event: &Event, id: &Value) {
    let mut line = serde_json::to_value(event).unwrap_or_default();
    if let (Value::Object(fields), false) = (&mut line, id.is_null()) {
        fields.insert("id".into(), id.clone());
    }
    print_line(&line);
}

fn print_line(line: &Value) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

fn main() -> ExitCode {
    let args = Args::parse();
    let deadline = Instant::now() + Duration::from_secs(args.timeout);
    let done = run(args, deadline);
    match done {
        Ok(true) => {
            print(&Event::Done, &Value::Null);
            ExitCode::SUCCESS
        }
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            print(&Event::Error { message: e.to_string() }, &Value::Null);
            ExitCode::FAILURE
        }
    }
}

/// Whether the command succeeded; errors are printed already.
fn run(args: Args, deadline: Instant) -> culvert_guest::Result<bool> {
    let mut config = GuestConfig::new(&args.name, args.ip.0, args.ip.1);
    config.gateway = args.gateway;
    config.net = NetOptions { checksum_offload: args.offload, ..NetOptions::default() };
    config.log_frames = args.log_frames;
    config.expect_mac = args.mac_check.map(|mac| mac.0);
    let stack = match (&args.vf, &args.interface) {
        (Some(vf), _) => Guest::connect(vf, config)?.start()?,
        (None, name) => config.start_on(Interface::open(name.as_deref().unwrap_or_default(), args.mtu)?)?,
    };
    print(&stack.up(), &Value::Null);
    stack.udp_echo(7)?;
    let timeout_ms = deadline.saturating_duration_since(Instant::now()).as_millis() as u64;
    let command = match args.task {
        Task::Serve => {
            std::thread::sleep(deadline.saturating_duration_since(Instant::now()));
            return Ok(true);
        }
        Task::Control => return Ok(control(&stack, deadline)),
        Task::Ping { dst, count } => Command::Ping { dst, count, interval_ms: 200, timeout_ms: 3_000 },
        Task::Send { dst, port, mib, seed } => {
            Command::Send { dst, port, bytes: mib << 20, seed, timeout_ms }
        }
        Task::Receive { port } => Command::Receive { port, timeout_ms },
        Task::Probe { dst, interval_ms, duration_ms } => {
            Command::Probe { dst, port: 7, interval_ms, duration_ms }
        }
    };
    let running = stack.submit(command)?;
    loop {
        let event = running.next(deadline.saturating_duration_since(Instant::now()))?;
        print(&event, &Value::Null);
        if event.is_last() {
            return Ok(match event {
                Event::Error { .. } => false,
                Event::Ping(report) => report.received == report.sent,
                _ => true,
            });
        }
    }
}

/// Input lines.
enum Input {
    Line(String),
    End,
}

fn read_lines(sender: &Sender<Input>) {
    for line in std::io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        if sender.send(Input::Line(line)).is_err() {
            return;
        }
    }
    let _ = sender.send(Input::End);
}

/// Executes commands until the end of the input, `quit` or the deadline. A thread for each command prints its events.
fn control(stack: &NetStack, deadline: Instant) -> bool {
    let (sender, input) = channel();
    std::thread::spawn(move || read_lines(&sender));
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let line = match input.recv_timeout(left) {
            Ok(Input::Line(line)) => line,
            Ok(Input::End) | Err(RecvTimeoutError::Disconnected) => return true,
            Err(RecvTimeoutError::Timeout) => {
                print(
                    &Event::Error { message: "the time limit (--timeout) is reached".into() },
                    &Value::Null,
                );
                return false;
            }
        };
        if line.trim().is_empty() {
            continue;
        }
        // A command may have an `id` of any type, which its events repeat.
        let value: serde_json::Result<Value> = serde_json::from_str(&line);
        let id = value.as_ref().ok().and_then(|v| v.get("id")).cloned().unwrap_or_default();
        let command: Command = match value.and_then(serde_json::from_value) {
            Ok(command) => command,
            Err(e) => {
                print_line(&json!({"event": "error", "id": id, "message": format!("command {line}: {e}")}));
                continue;
            }
        };
        if command == Command::Quit {
            return true;
        }
        let running = match stack.submit(command) {
            Ok(running) => running,
            Err(e) => {
                print(&Event::Error { message: e.to_string() }, &id);
                return false;
            }
        };
        std::thread::spawn(move || {
            let mut last = false;
            while !last {
                let event = running.next(deadline.saturating_duration_since(Instant::now()));
                let event = event.unwrap_or_else(|e| Event::Error { message: e.to_string() });
                last = event.is_last();
                print(&event, &id);
            }
        });
    }
}
