//! Guests of this process on vhost-user ports: the software switch and Open vSwitch with DPDK, interleaved, on one core, with the
//! guests on another.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use culvert_benches::clock::disturbance;
use culvert_benches::cpu::Pinned;
use culvert_benches::ovs_dpdk::session::{Session, exit};
use culvert_benches::stats::median;
use culvert_benches::vhost::client::Client;
use culvert_benches::vhost::interleave::{Case, Interleave, Sample, Setup};
use culvert_benches::vhost::ovs::Rules;
use culvert_benches::vhost::traffic::Traffic;
use serde_json::{Value, json};

/// Measures both switches with guests on vhost-user ports, on this machine.
#[derive(Parser)]
struct Args {
    /// Print data instead of a table.
    #[arg(long)]
    json: bool,
    /// Source and destination of frames.
    #[arg(long, value_delimiter = ',', default_value = "guest-to-guest,guest-to-wire,wire-to-guest")]
    traffic: Vec<Traffic>,
    /// What Open vSwitch's rules match.
    #[arg(long, value_delimiter = ',', default_value = "destinations,connections")]
    rules: Vec<Rules>,
    /// Numbers of flows.
    #[arg(long, value_delimiter = ',', default_value = "1,1000", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    flows: Vec<u32>,
    /// Lengths of inner frames, with Ethernet header.
    #[arg(long, value_delimiter = ',', default_value = "64,1500", value_parser = clap::value_parser!(u16).range(64..=1500))]
    bytes: Vec<u16>,
    /// Interleaved runs of each case; the medians count.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..=99))]
    runs: u16,
    /// Milliseconds of each run of a switch.
    #[arg(long, default_value_t = 250, value_parser = clap::value_parser!(u64).range(50..=10_000))]
    window: u64,
    /// The core of the switches.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(0..64))]
    core: u64,
    /// The core of the guests.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..64))]
    guests: u64,
    /// Give the measured threads real-time priority, for a machine with other work, which waits. Needs root.
    #[arg(long)]
    undisturbed: bool,
    /// The library that generates frames in Open vSwitch's process.
    #[arg(long)]
    source: Option<PathBuf>,
}

/// Columns of the table: their names, and the keys in each row's data.
const COLUMNS: [(&str, &str); 13] = [
    ("cvt Mpps", "culvertMpps"),
    ("OVS Mpps", "ovsMpps"),
    ("ratio", "ratio"),
    ("cvt cyc", "culvertCycles"),
    ("OVS cyc", "ovsCycles"),
    ("ratio", "cyclesRatio"),
    ("OVS own", "ovsOwnCycles"),
    ("cvt lost%", "culvertLost"),
    ("OVS lost%", "ovsLost"),
    ("cvt wait%", "culvertClientWaits"),
    ("OVS wait%", "ovsClientWaits"),
    ("ran %", "ran"),
    ("client", "clientBusy"),
];

fn main() -> ExitCode {
    exit(run(&Args::parse()))
}

fn run(args: &Args) -> Result<(), String> {
    let session = Session::begin("vhost", args.source.as_deref())?;
    let version = &session.version;
    let alone = args.traffic.iter().map(|traffic| alone(args, *traffic)).collect::<Result<Vec<_>, _>>()?;
    if !args.json {
        println!(
            "{version}; switches on core {}, guests on core {}, {} interleaved runs, medians; cycles per packet",
            args.core, args.guests, args.runs
        );
        for client in &alone {
            println!("guests alone, {client}");
        }
        let names: String = COLUMNS.iter().map(|(name, _)| format!(" {name:>9}")).collect();
        println!(
            "{:14} {:>12} {:>5} {:>6}{names} {:>5} {:>5}",
            "traffic", "OVS rules", "bytes", "flows", "steal", "load"
        );
    }
    let mut rows = Vec::new();
    let cases =
        args.traffic.iter().flat_map(|traffic| args.rules.iter().map(move |rules| (*traffic, *rules)));
    for (traffic, rules) in cases {
        let setup = Setup {
            dir: session.dir.path().join(format!("{traffic:?}-{rules:?}")),
            source: session.source.clone(),
            core: args.core as usize,
            guests: args.guests as usize,
            undisturbed: args.undisturbed,
        };
        rows.extend(pair(args, &setup, traffic, rules, &session)?);
    }
    if args.json {
        let clients: Vec<Value> = alone;
        println!(
            "{}",
            json!({"openVswitch": version, "vhost": true, "core": args.core, "guestsCore": args.guests,
                "runs": args.runs, "clientsAlone": clients, "rows": rows})
        );
    }
    Ok(())
}

/// The cost of a case's guests without a switch.
fn alone(args: &Args, traffic: Traffic) -> Result<Value, String> {
    let _pinned = pinned(args.guests as usize)?;
    let mut cycles = Vec::new();
    for &bytes in &args.bytes {
        let mut client = Client::alone(traffic)?;
        client.prepare(bytes.into(), args.flows.iter().copied().max().unwrap_or(1));
        client.run(Duration::from_millis(20), false);
        let seen = client.run(Duration::from_millis(200), false);
        cycles.push(
            json!({"bytes": bytes, "cycles": seen.busy.round(), "mpps": mpps(seen.packets, seen.seconds)}),
        );
    }
    Ok(json!({"traffic": traffic.name(), "cycles": cycles}))
}

fn pinned(core: usize) -> Result<Pinned, String> {
    Pinned::to(core).map_err(|e| format!("core {core}: {e}"))
}

fn mpps(packets: u64, seconds: f64) -> f64 {
    (packets as f64 / seconds / 1e4).round() / 100.0
}

/// Measures all cases with the same traffic and the same rules.
fn pair(
    args: &Args,
    setup: &Setup,
    traffic: Traffic,
    rules: Rules,
    session: &Session,
) -> Result<Vec<Value>, String> {
    let mut switches = Interleave::start(setup, traffic, rules)?;
    let mut rows = Vec::new();
    for (flows, bytes) in args.flows.iter().flat_map(|flows| args.bytes.iter().map(move |b| (*flows, *b))) {
        let case = Case { traffic, bytes, flows, window: Duration::from_millis(args.window) };
        let steal = disturbance().0;
        switches.prepare(&case)?;
        let mut samples = [Vec::new(), Vec::new()];
        for _ in 0..args.runs {
            session.check_interrupt()?;
            samples[0].push(switches.measure_culvert(&case)?);
            samples[1].push(switches.measure_ovs(&case)?);
        }
        let mut row = data(&case, rules, &samples);
        let (after, load) = disturbance();
        (row["stealTicks"], row["load"]) = (json!(after - steal), json!(load));
        row["culvertDrops"] = json!(switches.drops()?);
        if !args.json {
            show(&row);
        }
        rows.push(row);
    }
    Ok(rows)
}

fn mid(samples: &[Sample], of: impl Fn(&Sample) -> f64) -> f64 {
    median(samples.iter().map(of))
}

/// A number of a sample.
type Number = fn(&Sample) -> f64;

fn data(case: &Case, rules: Rules, [culvert, ovs]: &[Vec<Sample>; 2]) -> Value {
    let mut row =
        json!({"work": case.traffic.name(), "rules": rules.name(), "bytes": case.bytes, "flows": case.flows});
    let numbers: [(&str, Number); 6] = [
        ("Mpps", |sample| sample.mpps),
        ("Cycles", |sample| sample.cycles),
        ("Wire", |sample| sample.wire),
        ("Lost", |sample| sample.lost),
        ("ClientWaits", |sample| sample.waits),
        ("ClientBusy", |sample| sample.busy),
    ];
    for (name, of) in numbers {
        row[format!("culvert{name}")] = json!(mid(culvert, of));
        row[format!("ovs{name}")] = json!(mid(ovs, of));
    }
    for (name, samples) in [("culvert", culvert), ("ovs", ovs)] {
        row[format!("{name}Runs")] =
            samples.iter().map(|sample| json!([sample.mpps, sample.cycles])).collect();
    }
    let number = |name: &str| row[name].as_f64().unwrap_or(f64::NAN);
    let (ratio, cycles) =
        (number("culvertMpps") / number("ovsMpps"), number("ovsCycles") / number("culvertCycles"));
    row["ratio"] = json!(ratio);
    row["cyclesRatio"] = json!(cycles);
    row["ovsOwnCycles"] = json!(mid(ovs, |sample| sample.own));
    row["clientBusy"] = row["culvertClientBusy"].clone();
    row["ran"] = json!(mid(culvert, |sample| sample.ran).min(mid(ovs, |sample| sample.ran)));
    row
}

fn show(row: &Value) {
    let columns: String = COLUMNS
        .iter()
        .map(|(_, key)| {
            let number = row[*key].as_f64().unwrap_or(f64::NAN);
            if key.contains("Cycles") { format!(" {number:9.0}") } else { format!(" {number:9.2}") }
        })
        .collect();
    let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
    println!(
        "{:14} {:>12} {:>5} {:>6}{columns} {:>5} {:>5.2}",
        text("work"),
        text("rules"),
        row["bytes"],
        row["flows"],
        row["stealTicks"],
        row["load"].as_f64().unwrap_or(f64::NAN)
    );
}
