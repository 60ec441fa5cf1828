//! TCP between two stock Linux VMs of one host, over our software path and over Open vSwitch with DPDK in turns. VMs are emulated
//! and share few cores with the switch: what the figures say of a switch is little, and said beside them.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use culvert_benches::clock::disturbance;
use culvert_benches::peers::machine::ran_of;
use culvert_benches::peers::ovs::{ip, mac};
use culvert_benches::peers::session::{Session, exit};
use culvert_benches::vhost::Way;
use culvert_benches::vhost::ours::Ours;
use culvert_benches::vhost::theirs::{Rules, Theirs};
use culvert_benches::work;
use culvert_e2e::linux_guest::{LinuxGuest, LinuxGuestConfig};
use serde_json::{Value, json};

/// Measures TCP between VMs on this machine.
#[derive(Parser)]
struct Args {
    /// Print data instead of a table.
    #[arg(long)]
    json: bool,
    /// Megabytes (2^20 bytes) that are sent in each turn.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=4096))]
    megabytes: u32,
    /// Turns, of which the medians count.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=99))]
    turns: u16,
    /// What Open vSwitch looks at.
    #[arg(long, default_value = "connections")]
    rules: Rules,
    /// Let Open vSwitch offer segmentation to VMs, which it calls experimental. Ours always does.
    #[arg(long)]
    their_tso: bool,
    /// The core that the switches run on; VMs run where the system likes.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(0..64))]
    core: u64,
    /// The library that is loaded into Open vSwitch's process.
    #[arg(long)]
    source: Option<PathBuf>,
}

/// Time for a VM to boot, and for all that is sent in a turn.
const BOOT: Duration = Duration::from_secs(120);
const LIMIT: Duration = Duration::from_secs(30);

/// Two VMs on one switch.
struct Pair([LinuxGuest; 2]);

/// What a turn showed.
struct Turn {
    mbits: f64,
    /// Milliseconds of the switch's thread for each megabyte.
    switch_ms: f64,
}

fn main() -> ExitCode {
    exit(run(&Args::parse()))
}

fn run(args: &Args) -> Result<(), String> {
    let session = Session::begin("vms", args.source.as_deref())?;
    let version = &session.version;
    let (here, there) = (session.dir.path().join("ours"), session.dir.path().join("theirs"));
    let (core, way) = (args.core as usize, Way::Guests);

    let ours = Ours::start(&here, way, core, 2)?;
    let mut guests = Pair::boot(&here)?;
    // Open vSwitch takes its core as soon as it runs: it stands still while ours is measured.
    let tso = if args.their_tso { "other_config:userspace-tso-enable=true" } else { "" };
    let theirs = Theirs::start(&there, &session.source, core, (way, args.rules), tso)?;
    let mut strangers = Pair::boot(&there)?;
    let steal = disturbance().0;
    let mut turns = [Vec::new(), Vec::new()];
    for n in 0..args.turns {
        session.goes_on()?;
        theirs.daemon.hold();
        turns[0].push(
            guests
                .send(args.megabytes, 5000 + n, &ours.thread)
                .map_err(|e| format!("over our switch: {e}"))?,
        );
        theirs.daemon.go_on();
        let turn = strangers.send(args.megabytes, 5000 + n, theirs.daemon.thread());
        turns[1].push(turn.map_err(|e| format!("over Open vSwitch: {e}"))?);
    }
    let (after, load) = disturbance();
    let rows: Vec<Value> =
        ["ours", "theirs"].into_iter().zip(&turns).map(|(name, turns)| row(name, turns)).collect();
    if args.json {
        println!(
            "{}",
            json!({"peer": version, "rules": args.rules.name(), "megabytes": args.megabytes, "turns": args.turns,
                "core": args.core, "stealTicks": after - steal, "load": load, "rows": rows})
        );
        return Ok(());
    }
    println!(
        "{version}, rules: {}; {} MiB in each of {} turns",
        args.rules.name(),
        args.megabytes,
        args.turns
    );
    println!("{:8} {:>10} {:>16} {:>10} {:>10}", "switch", "Mbit/s", "switch ms/MiB", "slowest", "fastest");
    for row in &rows {
        let number = |key: &str| row[key].as_f64().unwrap_or(f64::NAN);
        println!(
            "{:8} {:10.0} {:16.2} {:10.0} {:10.0}",
            row["switch"].as_str().unwrap_or_default(),
            number("mbits"),
            number("switchMs"),
            number("slowest"),
            number("fastest")
        );
    }
    println!("{} ticks stolen, load {load}", after - steal);
    Ok(())
}

fn row(name: &str, turns: &[Turn]) -> Value {
    let sorted = |of: fn(&Turn) -> f64| {
        let mut values: Vec<f64> = turns.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values
    };
    let (rates, times) = (sorted(|turn| turn.mbits), sorted(|turn| turn.switch_ms));
    json!({"switch": name, "mbits": rates.get(rates.len() / 2), "switchMs": times.get(times.len() / 2),
        "slowest": rates.first(), "fastest": rates.last()})
}

impl Pair {
    /// Boots both at their sockets.
    fn boot(dir: &Path) -> Result<Self, String> {
        let folder = LinuxGuest::folder()?;
        let start = |n: usize| {
            let (name, mac, ip) = (["a", "b"][n], mac(work::MACS[n]), format!("{}/24", ip(work::PAIR[n])));
            let socket = dir.join(name);
            let config = LinuxGuestConfig {
                name,
                vfs: &[],
                vhost_user: Some((&socket, &mac)),
                ip: &ip,
                gateway: None,
            };
            LinuxGuest::start(&folder, &config, &dir.join(format!("{name}.log")))
        };
        let mut pair = Pair([start(0)?, start(1)?]);
        for guest in &mut pair.0 {
            guest.wait_up(BOOT)?;
        }
        let [a, _] = &mut pair.0;
        check(a, &format!("ping -c 3 -i 0.2 -q {}", ip(work::PAIR[1])))?;
        Ok(pair)
    }

    /// Has the first send so much to the second.
    fn send(&mut self, megabytes: u32, port: u16, switch: &Path) -> Result<Turn, String> {
        let [a, b] = &mut self.0;
        // Its input never ends: else it would close, and the sender with it.
        check(
            b,
            &format!(
                "rm -f /tmp/count; [ -e /tmp/open ] || mkfifo /tmp/open; \
                 (nc -l -p {port} 0<>/tmp/open | wc -c > /tmp/new; mv /tmp/new /tmp/count) & \
                 until netstat -ltn | grep -q :{port}; do sleep 0.1; done"
            ),
        )?;
        let (start, before) = (Instant::now(), ran_of(switch)?);
        let to = ip(work::PAIR[1]);
        check(a, &format!("dd if=/dev/zero bs=65536 count={} 2>/dev/null | nc {to} {port}", megabytes * 16))?;
        let (time, ran) = (start.elapsed(), ran_of(switch)? - before);
        let count = check(b, "until [ -e /tmp/count ]; do sleep 0.1; done; cat /tmp/count")?;
        let bytes = u64::from(megabytes) << 20;
        if count.trim() != bytes.to_string() {
            return Err(format!("{bytes} bytes were sent, {} came", count.trim()));
        }
        let (mbits, megabytes) = (bytes as f64 * 8.0 / time.as_secs_f64() / 1e6, f64::from(megabytes));
        Ok(Turn { mbits, switch_ms: ran as f64 / 1e6 / megabytes })
    }
}

/// Runs a command in a VM, which must succeed.
fn check(guest: &mut LinuxGuest, command: &str) -> Result<String, String> {
    let done = guest.run(command, LIMIT)?;
    if done.status == 0 { Ok(done.text) } else { Err(format!("{command}: {}", done.text)) }
}
