//! Our software path and Open vSwitch with DPDK in turns: the same frames, the same core, between ports in memory.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use culvert_benches::clock::{disturbance, huge_pages};
use culvert_benches::generator::Generator;
use culvert_benches::peers::daemon::PAGES;
use culvert_benches::peers::machine::Pinned;
use culvert_benches::peers::ovs::Ovs;
use culvert_benches::peers::rules::Rules;
use culvert_benches::peers::session::{Session, exit};
use culvert_benches::soft::Soft;
use culvert_benches::work::Kind;
use serde_json::{Value, json};

/// Measures our software path and Open vSwitch with DPDK on this machine.
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
    /// Measure NVGRE too, which Open vSwitch knows as GRE with a key.
    #[arg(long)]
    nvgre: bool,
    /// What Open vSwitch looks at.
    #[arg(long, value_delimiter = ',', default_value = "port,destinations,connections")]
    rules: Vec<Rules>,
    /// Turns of each case, of which the medians count.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..=99))]
    turns: u16,
    /// Milliseconds that Open vSwitch is measured in each turn.
    #[arg(long, default_value_t = 250, value_parser = clap::value_parser!(u64).range(50..=10_000))]
    window: u64,
    /// Packets that our path is measured with in each turn.
    #[arg(long, default_value_t = 2_000_000, value_parser = clap::value_parser!(u32).range(1000..))]
    packets: u32,
    /// The core that both run on; Open vSwitch's other threads run on another.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(0..64))]
    core: u64,
    /// Let Open vSwitch use its signature-match cache, which is off by default.
    #[arg(long)]
    smc: bool,
    /// The library that makes frames in Open vSwitch's process.
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

/// What the turns of a case showed, per packet: cycles of the path, of the generator alone.
#[derive(Default)]
struct Turns {
    ours: Vec<f64>,
    generator: Vec<f64>,
    theirs: Vec<f64>,
    /// Open vSwitch's port, our library in it, and freeing.
    source: Vec<f64>,
    /// What Open vSwitch itself says, with its port and our library.
    own: Vec<f64>,
    emc: Vec<f64>,
    megaflow: Vec<f64>,
    /// The part of the time in which the measured thread had its core.
    ran: Vec<f64>,
    steal: u64,
    load: f64,
}

fn main() -> ExitCode {
    exit(run(&Args::parse()))
}

fn run(args: &Args) -> Result<(), String> {
    let session = Session::begin("peers", args.source.as_deref())?;
    let version = &session.version;
    if !args.json {
        println!("{version}; core {}, {} turns, medians; cycles per packet", args.core, args.turns);
        println!(
            "{:12} {:>12} {:>5} {:>8} {:>8} {:>8} {:>6} {:>9} {:>9} {:>9} {:>5} {:>5} {:>6} {:>6}",
            "work",
            "their rules",
            "bytes",
            "flows",
            "ours",
            "theirs",
            "ratio",
            "generator",
            "their gen",
            "their own",
            "EMC",
            "ran",
            "steal",
            "load"
        );
    }
    let mut soft = Soft::new(args.flows.iter().copied().max().unwrap_or(1));
    let mut rows = Vec::new();
    for kind in Kind::ALL.into_iter().filter(|kind| args.nvgre || kind.encap == culvert_packet::Encap::Vxlan)
    {
        for &rules in &args.rules {
            let dir = session.dir.path().join(format!("{}-{}", kind.name().replace(' ', "-"), rules.name()));
            let peer = Ovs::start(&dir, &session.source, args.core as usize, args.smc, (kind, rules))?;
            for (flows, bytes) in cases(args) {
                let case = Case { kind, rules, bytes, flows };
                let turns = measure(args, &mut soft, &peer, case, &session)?;
                if !args.json {
                    show(case, &turns);
                }
                rows.push(data(case, &turns));
            }
        }
    }
    let pages = json!({"oursTransparentKiB": huge_pages(), "theirsKiB": PAGES * 2048, "pageKiB": 2048});
    if args.json {
        println!(
            "{}",
            json!({"peer": version, "core": args.core, "turns": args.turns, "smc": args.smc, "hugePages": pages,
                "rows": rows})
        );
    } else {
        println!("pages of 2 MiB: ours {} KiB (transparent), theirs {} KiB", huge_pages(), PAGES * 2048);
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

fn measure(args: &Args, soft: &mut Soft, peer: &Ovs, case: Case, session: &Session) -> Result<Turns, String> {
    let Case { kind, bytes, flows, .. } = case;
    let (time, steal) = (Duration::from_millis(args.window), disturbance().0);
    let generator = Generator::new(kind, bytes.into());
    soft.fill(kind, flows);
    peer.learn(bytes, flows)?;
    let mut turns = Turns::default();
    for _ in 0..args.turns {
        session.goes_on()?;
        let pinned = Pinned::to(args.core as usize).map_err(|e| format!("core {}: {e}", args.core))?;
        // The first one brings the tables into the caches that Open vSwitch has used.
        soft.run(&generator, flows, args.packets / 4, true);
        let [alone, whole] = [false, true].map(|work| soft.run(&generator, flows, args.packets, work));
        turns.ran.push(alone.ran.min(whole.ran));
        drop(pinned);
        turns.generator.push(alone.cycles);
        turns.ours.push(whole.cycles - alone.cycles);
        let alone = peer.window(bytes, flows, time / 2, true)?;
        let whole = peer.window(bytes, flows, time, false)?;
        turns.ran.push(alone.ran.min(whole.ran));
        turns.source.push(alone.cycles);
        turns.theirs.push(whole.cycles - alone.cycles);
        turns.own.push(whole.own);
        turns.emc.push(whole.hits[0]);
        turns.megaflow.push(whole.hits[1]);
    }
    let (after, load) = disturbance();
    (turns.steal, turns.load) = (after - steal, load);
    Ok(turns)
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

fn show(case: Case, turns: &Turns) {
    let (ours, theirs) = (median(&turns.ours), median(&turns.theirs));
    println!(
        "{:12} {:>12} {:5} {:8} {:8.1} {:8.1} {:6.2} {:9.1} {:9.1} {:9.1} {:4.0}% {:4.0}% {:6} {:6.2}",
        case.kind.name(),
        case.rules.name(),
        case.bytes,
        case.flows,
        ours,
        theirs,
        theirs / ours,
        median(&turns.generator),
        median(&turns.source),
        median(&turns.own),
        100.0 * median(&turns.emc),
        100.0 * median(&turns.ran),
        turns.steal,
        turns.load
    );
}

fn data(case: Case, turns: &Turns) -> Value {
    let (ours, theirs) = (median(&turns.ours), median(&turns.theirs));
    json!({"work": case.kind.name(), "rules": case.rules.name(), "bytes": case.bytes, "flows": case.flows,
        "ours": ours, "theirs": theirs, "ratio": theirs / ours, "oursGenerator": median(&turns.generator),
        "theirsGenerator": median(&turns.source), "theirsByItself": median(&turns.own),
        "emcHits": median(&turns.emc), "megaflowHits": median(&turns.megaflow), "ran": median(&turns.ran),
        "oursTurns": turns.ours, "theirsTurns": turns.theirs, "stealTicks": turns.steal, "load": turns.load})
}
