//! `culvert-emu`: the emulated SmartNIC as a process.

#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Parser;
use culvert_device::board::{Engine, State, Uplink};
use culvert_device::function::{Pf, PfConfig, PfPort};
use culvert_device::soc::{Options, Soc};
use culvert_device::virtio::Notifier;
use culvert_device::wire::{Capture, WireSpec};
use culvert_program::{escaped, log, manual};

/// What `--help` and the man page say last.
const AFTER_HELP: &str = "\
Environment:
  RUST_LOG  which lines are logged: a level, and MODULE=LEVEL for modules, separated by commas [default: info]

Exit codes:
  0   stopped by SIGTERM or SIGINT
  1   cannot start; the reason is printed
  2   the command line is wrong
  70  the engine has failed; the last line of the log says why";

/// An emulated SmartNIC: a PF with SR-IOV behind a vfio-user socket, two MAC ports, and a RISC-V processor for the
/// firmware that the driver loads.
#[derive(Parser)]
#[command(name = "culvert-emu", version, after_help = AFTER_HELP)]
struct Args {
    /// Socket of the PF. VF n gets this path with ".vfN" appended.
    #[arg(long, value_name = "PATH")]
    socket: PathBuf,
    /// What MAC port 0 is connected to: af_packet:INTERFACE, tap:INTERFACE, unix:OWN,OTHER or pcap:IN,OUT. A TAP interface
    /// is made if it is not there. Of the capture files either may be left empty; frames come in at 1000 a second, or at
    /// another pace with pcap:IN,OUT,PACE, once the file IN is there.
    #[arg(long, value_name = "WIRE")]
    uplink0: WireSpec,
    /// What MAC port 1 is connected to.
    #[arg(long, value_name = "WIRE")]
    uplink1: WireSpec,
    /// Write what passes MAC port 0 to this pcapng file.
    #[arg(long, value_name = "FILE")]
    capture0: Option<PathBuf>,
    /// Write what passes MAC port 1 to this pcapng file.
    #[arg(long, value_name = "FILE")]
    capture1: Option<PathBuf>,
    /// Keep frames of a capture whole for so many MiB; then only their first 160 bytes.
    #[arg(long, value_name = "MIB", default_value_t = 16)]
    capture_full: u64,
    /// End a capture after so many MiB.
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    capture_limit: u64,
    /// Flow records as a power of two, 6 to 19.
    #[arg(long, value_name = "N", default_value_t = 17)]
    flows_log2: u32,
    /// Emulator of the SoC's processor.
    #[arg(long, value_name = "PROGRAM", default_value = "qemu-system-riscv64")]
    qemu: PathBuf,
    /// Reset PF and VFs when the driver's connection closes, as VFIO does. Left out, VFs and flows keep running while
    /// the daemon restarts.
    #[arg(long)]
    reset_on_disconnect: bool,
    /// Print one line of JSON once the socket is there.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let args: Args = manual::parse("1");
    log::init("RUST_LOG", false);
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("culvert-emu: {}", escaped(&error));
            ExitCode::FAILURE
        }
    }
}

/// Raises the limit of open files to the most that the system allows: each VF's VMM brings its own.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // Below its own maximum a process may always raise its limit.
    let _ = setrlimit(Resource::Nofile, rustix::process::Rlimit { current: limit.maximum, ..limit });
}

fn run(args: &Args) -> Result<(), String> {
    raise_file_limit();
    let system = |what: &'static str| move |e: std::io::Error| format!("{what}: {e}");
    let options = Options {
        qemu: args.qemu.clone(),
        flows_log2: args.flows_log2.clamp(6, 19),
        count_instructions: false,
    };
    let soc = Soc::new(options).map_err(|e| e.to_string())?;
    let notifier = Notifier::new().map_err(system("the notifier's eventfd"))?;
    let state = State::new(notifier.clone());
    let mut uplinks = Vec::new();
    for (n, (wire, capture)) in
        [(&args.uplink0, &args.capture0), (&args.uplink1, &args.capture1)].into_iter().enumerate()
    {
        let capture = match capture {
            Some(path) => {
                let (full, limit) = (args.capture_full << 20, args.capture_limit << 20);
                let made = Capture::create(path, &format!("uplink{n}"), full, limit);
                Some(made.map_err(|e| format!("{}: {e}", path.display()))?)
            }
            None => None,
        };
        uplinks.push(Uplink { wire: wire.open()?, capture });
    }
    let port = PfPort::new();
    let config = PfConfig { socket: args.socket.clone(), reset_on_disconnect: args.reset_on_disconnect };
    let registers: Arc<State> = Arc::clone(&state);
    let pf = Pf::start(config, Arc::clone(&port), registers, notifier.clone());
    let pf = pf.map_err(|e| format!("{}: {e}", args.socket.display()))?;
    let stop = Arc::new(AtomicBool::new(false));
    let mut engine = Engine::new(soc, state, port, uplinks, Arc::clone(&stop));
    // Sockets without an engine behind them would hang every VM: its panic ends the process.
    let thread =
        culvert_threads::spawn("engine", move || engine.run()).map_err(system("the engine's thread"))?;
    if args.json {
        println!("{}", serde_json::json!({"event": "ready", "socket": args.socket}));
    }
    wait_for_end().map_err(system("signals"))?;
    stop.store(true, Ordering::Release);
    notifier.notify();
    let ended = thread.join();
    pf.stop();
    ended.map_err(|_| "the engine has failed: see the message above".to_owned())
}

/// Waits for SIGTERM or SIGINT.
fn wait_for_end() -> std::io::Result<()> {
    let mut signals =
        signal_hook::iterator::Signals::new([signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT])?;
    signals.forever().next();
    Ok(())
}
