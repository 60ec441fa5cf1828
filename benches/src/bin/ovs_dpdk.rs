//! The software switch and Open vSwitch with DPDK, interleaved: the same frames, the same core, between ports in memory.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use culvert_benches::clock::{disturbance, huge_pages};
use culvert_benches::cpu::Pinned;
use culvert_benches::generator::Generator;
use culvert_benches::mem_switch::MemSwitch;
use culvert_benches::ovs_dpdk::daemon::PAGES;
use culvert_benches::ovs_dpdk::rules::Rules;
use culvert_benches::ovs_dpdk::session::{Session, exit};
use culvert_benches::ovs_dpdk::tunnel::TunnelSwitch;
use culvert_benches::stats::median;
use culvert_benches::work::Kind;
use serde_json::{Value, json};

/// Measures the software switch and Open vSwitch with DPDK on this machine.
#[derive(Parser)]
struct Args {
    /// Print data instead of a table.
    #[arg(long)]
    json: bool,
    /// Numbers of flows.
    #[arg(long, value_delimiter = ',', default_value = "1,1000,100000,1000000")]
    flows: Vec<u32>,
    /// Lengths of inner frames, with Ethernet header.
    #[arg(long, value_delimiter = ',', default_value = "64,512,1500")]
    bytes: Vec<u16>,
    /// Measure each length with each number of flows, not only with the second number.
    #[arg(long)]
    cross: bool,
    /// Also measure NVGRE, which is GRE with a key in Open vSwitch.
    #[arg(long)]
    nvgre: bool,
    /// What Open vSwitch's rules match.
    #[arg(long, value_delimiter = ',', default_value = "port,destinations,connections")]
    rules: Vec<Rules>,
    /// Interleaved runs of each case; the medians count.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..=99))]
    runs: u16,
    /// Milliseconds of each run of Open vSwitch.
    #[arg(long, default_value_t = 250, value_parser = clap::value_parser!(u64).range(50..=10_000))]
    window: u64,
    /// Packets of each run of Culvert.
    #[arg(long, default_value_t = 2_000_000, value_parser = clap::value_parser!(u32).range(1000..))]
    packets: u32,
    /// The core of both; Open vSwitch's other threads run on another one.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(0..64))]
    core: u64,
    /// Let Open vSwitch use its signature-match cache, which is off by default.
    #[arg(long)]
    smc: bool,
    /// The library that generates frames in Open vSwitch's process.
    #[arg(long)]
    source: Option<PathBuf>,
}

/// One case.
#[derive(Clone, Copy)]
struct Case {
    kind: Kind,
    rules: Rules,
    bytes: u16,
    flows: u32,
}

/// Results of the runs of a case. Cycles are per packet.
#[derive(Default)]
struct Samples {
    culvert: Vec<f64>,
    /// Culvert's generator and rings alone.
    generator: Vec<f64>,
    ovs: Vec<f64>,
    /// Open vSwitch's port with our library, and freeing, alone.
    source: Vec<f64>,
    /// By Open vSwitch's own statistics, with its port and our library.
    own: Vec<f64>,
    emc: Vec<f64>,
    megaflow: Vec<f64>,
    /// The fraction of the time in which the measured thread ran.
    ran: Vec<f64>,
    steal: u64,
    load: f64,
}

fn main() -> ExitCode {
    exit(run(&Args::parse()))
}

fn run(args: &Args) -> Result<(), String> {
    let session = Session::begin("ovs-dpdk", args.source.as_deref())?;
    let version = &session.version;
    if !args.json {
        println!("{version}; core {}, {} interleaved runs, medians; cycles per packet", args.core, args.runs);
        println!(
            "{:12} {:>12} {:>5} {:>8} {:>8} {:>8} {:>6} {:>9} {:>9} {:>9} {:>5} {:>5} {:>6} {:>6}",
            "work",
            "OVS rules",
            "bytes",
            "flows",
            "culvert",
            "OVS",
            "ratio",
            "generator",
            "OVS gen",
            "OVS own",
            "EMC",
            "ran",
            "steal",
            "load"
        );
    }
    let mut switch = MemSwitch::new(args.flows.iter().copied().max().unwrap_or(1));
    let mut rows = Vec::new();
    for kind in Kind::ALL.into_iter().filter(|kind| args.nvgre || kind.encap == culvert_packet::Encap::Vxlan)
    {
        for &rules in &args.rules {
            let dir = session.dir.path().join(format!("{}-{}", kind.name().replace(' ', "-"), rules.name()));
            let ovs =
                TunnelSwitch::start(&dir, &session.source, args.core as usize, args.smc, (kind, rules))?;
            for (flows, bytes) in cases(args) {
                let case = Case { kind, rules, bytes, flows };
                let samples = measure(args, &mut switch, &ovs, case, &session)?;
                if !args.json {
                    show(case, &samples);
                }
                rows.push(data(case, &samples));
            }
        }
    }
    let pages =
        json!({"culvertTransparentKiB": huge_pages(), "ovsReservedKiB": PAGES * 2048, "pageKiB": 2048});
    if args.json {
        println!(
            "{}",
            json!({"openVswitch": version, "core": args.core, "runs": args.runs, "smc": args.smc, "hugePages": pages,
                "rows": rows})
        );
    } else {
        println!(
            "pages of 2 MiB: Culvert {} KiB (transparent), Open vSwitch {} KiB (reserved)",
            huge_pages(),
            PAGES * 2048
        );
    }
    Ok(())
}

/// Flows with the first length, lengths with the second number of flows; or all with all.
fn cases(args: &Args) -> impl Iterator<Item = (u32, u16)> + '_ {
    let usual = args.flows.get(1).or(args.flows.first()).copied();
    let shortest = args.bytes.first().copied();
    let all = args.flows.iter().flat_map(|&flows| args.bytes.iter().map(move |&bytes| (flows, bytes)));
    all.filter(move |&(flows, bytes)| args.cross || Some(flows) == usual || Some(bytes) == shortest)
}

fn measure(
    args: &Args,
    switch: &mut MemSwitch,
    ovs: &TunnelSwitch,
    case: Case,
    session: &Session,
) -> Result<Samples, String> {
    let Case { kind, bytes, flows, .. } = case;
    let (time, steal) = (Duration::from_millis(args.window), disturbance().0);
    let generator = Generator::new(kind, bytes.into());
    switch.fill(kind, flows);
    ovs.learn(bytes, flows)?;
    let mut samples = Samples::default();
    for _ in 0..args.runs {
        session.check_interrupt()?;
        let pinned = Pinned::to(args.core as usize).map_err(|e| format!("core {}: {e}", args.core))?;
        // The first run warms the caches, which Open vSwitch has used.
        switch.run(&generator, flows, args.packets / 4, true);
        let [alone, whole] = [false, true].map(|work| switch.run(&generator, flows, args.packets, work));
        samples.ran.push(alone.ran.min(whole.ran));
        drop(pinned);
        samples.generator.push(alone.cycles);
        samples.culvert.push(whole.cycles - alone.cycles);
        let alone = ovs.window(bytes, flows, time / 2, true)?;
        let whole = ovs.window(bytes, flows, time, false)?;
        samples.ran.push(alone.ran.min(whole.ran));
        samples.source.push(alone.cycles);
        samples.ovs.push(whole.cycles - alone.cycles);
        samples.own.push(whole.own);
        samples.emc.push(whole.hits[0]);
        samples.megaflow.push(whole.hits[1]);
    }
    let (after, load) = disturbance();
    (samples.steal, samples.load) = (after - steal, load);
    Ok(samples)
}

fn mid(values: &[f64]) -> f64 {
    median(values.iter().copied())
}

fn show(case: Case, samples: &Samples) {
    let (culvert, ovs) = (mid(&samples.culvert), mid(&samples.ovs));
    println!(
        "{:12} {:>12} {:5} {:8} {:8.1} {:8.1} {:6.2} {:9.1} {:9.1} {:9.1} {:4.0}% {:4.0}% {:6} {:6.2}",
        case.kind.name(),
        case.rules.name(),
        case.bytes,
        case.flows,
        culvert,
        ovs,
        ovs / culvert,
        mid(&samples.generator),
        mid(&samples.source),
        mid(&samples.own),
        100.0 * mid(&samples.emc),
        100.0 * mid(&samples.ran),
        samples.steal,
        samples.load
    );
}

fn data(case: Case, samples: &Samples) -> Value {
    let (culvert, ovs) = (mid(&samples.culvert), mid(&samples.ovs));
    json!({"work": case.kind.name(), "rules": case.rules.name(), "bytes": case.bytes, "flows": case.flows,
        "culvert": culvert, "ovs": ovs, "ratio": ovs / culvert, "culvertGenerator": mid(&samples.generator),
        "ovsGenerator": mid(&samples.source), "ovsOwnCycles": mid(&samples.own),
        "emcHits": mid(&samples.emc), "megaflowHits": mid(&samples.megaflow), "ran": mid(&samples.ran),
        "culvertRuns": samples.culvert, "ovsRuns": samples.ovs, "stealTicks": samples.steal, "load": samples.load})
}
