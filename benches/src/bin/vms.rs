//! TCP between two stock Linux VMs of one host, over the software switch and over Open vSwitch with DPDK, interleaved. VMs are
//! emulated and share few cores with the switch, so the figures depend on the VMs more than on the switch.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use culvert_benches::clock::disturbance;
use culvert_benches::cpu::ran_of;
use culvert_benches::ovs_dpdk::session::{Session, exit};
use culvert_benches::ovs_dpdk::tunnel::{ip, mac};
use culvert_benches::vhost::culvert::CulvertSwitch;
use culvert_benches::vhost::ovs::{OvsSwitch, Rules};
use culvert_benches::vhost::traffic::Traffic;
use culvert_benches::work;
use culvert_e2e::linux_guest::{LinuxGuest, LinuxGuestConfig};
use serde_json::{Value, json};

/// Measures TCP between VMs on this machine.
#[derive(Parser)]
struct Args {
    /// Print data instead of a table.
    #[arg(long)]
    json: bool,
    /// Megabytes (2^20 bytes) of each run.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=4096))]
    megabytes: u32,
    /// Interleaved runs; the medians count.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=99))]
    runs: u16,
    /// What Open vSwitch's rules match.
    #[arg(long, default_value = "connections")]
    rules: Rules,
    /// Let Open vSwitch offer segmentation to VMs, which it calls experimental. Culvert always does.
    #[arg(long)]
    ovs_tso: bool,
    /// The core of the switches; VMs are not pinned.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(0..64))]
    core: u64,
    /// The library that is loaded into Open vSwitch's process.
    #[arg(long)]
    source: Option<PathBuf>,
}

/// Limits for the boot of a VM, and for a run.
const BOOT: Duration = Duration::from_secs(120);
const LIMIT: Duration = Duration::from_secs(30);

/// Two VMs on one switch.
struct Pair([LinuxGuest; 2]);

/// Result of a run.
struct Sample {
    mbits: f64,
    /// Processor time of the switch's thread in milliseconds per megabyte.
    switch_ms: f64,
}

fn main() -> ExitCode {
    exit(run(&Args::parse()))
}

fn run(args: &Args) -> Result<(), String> {
    let session = Session::begin("vms", args.source.as_deref())?;
    let version = &session.version;
    let (culvert_dir, ovs_dir) = (session.dir.path().join("culvert"), session.dir.path().join("ovs"));
    let (core, traffic) = (args.core as usize, Traffic::GuestToGuest);

    let culvert = CulvertSwitch::start(&culvert_dir, traffic, core, 2)?;
    let mut culvert_vms = Pair::boot(&culvert_dir)?;
    // Open vSwitch polls all the time: it is paused while Culvert is measured.
    let tso = if args.ovs_tso { "other_config:userspace-tso-enable=true" } else { "" };
    let ovs = OvsSwitch::start(&ovs_dir, &session.source, core, (traffic, args.rules), tso)?;
    let mut ovs_vms = Pair::boot(&ovs_dir)?;
    let steal = disturbance().0;
    let mut samples = [Vec::new(), Vec::new()];
    for n in 0..args.runs {
        session.check_interrupt()?;
        ovs.daemon.pause();
        let sample = culvert_vms.send(args.megabytes, 5000 + n, &culvert.thread);
        samples[0].push(sample.map_err(|e| format!("over Culvert: {e}"))?);
        ovs.daemon.resume();
        let sample = ovs_vms.send(args.megabytes, 5000 + n, ovs.daemon.thread());
        samples[1].push(sample.map_err(|e| format!("over Open vSwitch: {e}"))?);
    }
    let (after, load) = disturbance();
    let rows: Vec<Value> =
        ["culvert", "ovs"].into_iter().zip(&samples).map(|(name, samples)| row(name, samples)).collect();
    if args.json {
        println!(
            "{}",
            json!({"openVswitch": version, "rules": args.rules.name(), "megabytes": args.megabytes, "runs": args.runs,
                "core": args.core, "stealTicks": after - steal, "load": load, "rows": rows})
        );
        return Ok(());
    }
    println!("{version}, rules: {}; {} MiB in each of {} runs", args.rules.name(), args.megabytes, args.runs);
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

fn row(name: &str, samples: &[Sample]) -> Value {
    let sorted = |of: fn(&Sample) -> f64| {
        let mut values: Vec<f64> = samples.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values
    };
    let (rates, times) = (sorted(|sample| sample.mbits), sorted(|sample| sample.switch_ms));
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
        a.output(&format!("ping -c 3 -i 0.2 -q {}", ip(work::PAIR[1])), LIMIT)?;
        Ok(pair)
    }

    /// Sends data from the first VM to the second.
    fn send(&mut self, megabytes: u32, port: u16, switch: &Path) -> Result<Sample, String> {
        let [a, b] = &mut self.0;
        // The listener's own input never ends, so that the sender closes first.
        b.output(
            &format!(
                "rm -f /tmp/count; [ -e /tmp/open ] || mkfifo /tmp/open; \
                 (nc -l -p {port} 0<>/tmp/open | wc -c > /tmp/new; mv /tmp/new /tmp/count) & \
                 until netstat -ltn | grep -q :{port}; do sleep 0.1; done"
            ),
            LIMIT,
        )?;
        let (start, before) = (Instant::now(), ran_of(switch)?);
        let to = ip(work::PAIR[1]);
        let copy = format!("dd if=/dev/zero bs=65536 count={} 2>/dev/null | nc {to} {port}", megabytes * 16);
        a.output(&copy, LIMIT)?;
        let (time, ran) = (start.elapsed(), ran_of(switch)? - before);
        let count = b.output("until [ -e /tmp/count ]; do sleep 0.1; done; cat /tmp/count", LIMIT)?;
        let bytes = u64::from(megabytes) << 20;
        if count.trim() != bytes.to_string() {
            return Err(format!("{bytes} bytes were sent, {} received", count.trim()));
        }
        let (mbits, megabytes) = (bytes as f64 * 8.0 / time.as_secs_f64() / 1e6, f64::from(megabytes));
        Ok(Sample { mbits, switch_ms: ran as f64 / 1e6 / megabytes })
    }
}
