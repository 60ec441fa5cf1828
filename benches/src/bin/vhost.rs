//! Guests of this process on vhost-user ports: our software path and Open vSwitch with DPDK in turns, each on one core, with
//! the guests on another.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use culvert_benches::clock::disturbance;
use culvert_benches::peers::machine::Pinned;
use culvert_benches::peers::session::{Session, exit};
use culvert_benches::vhost::Way;
use culvert_benches::vhost::client::Client;
use culvert_benches::vhost::theirs::Rules;
use culvert_benches::vhost::turns::{Case, Peers, Places, Turn};
use serde_json::{Value, json};

/// Measures both with guests on vhost-user ports, on this machine.
#[derive(Parser)]
struct Args {
    /// Print data instead of a table.
    #[arg(long)]
    json: bool,
    /// From where to where frames go.
    #[arg(long, value_delimiter = ',', default_value = "guests,out,in")]
    ways: Vec<Way>,
    /// What Open vSwitch looks at.
    #[arg(long, value_delimiter = ',', default_value = "destinations,connections")]
    rules: Vec<Rules>,
    /// Numbers of flows.
    #[arg(long, value_delimiter = ',', default_value = "1,1000", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    flows: Vec<u32>,
    /// Lengths of inner frames, with Ethernet header.
    #[arg(long, value_delimiter = ',', default_value = "64,1500", value_parser = clap::value_parser!(u16).range(64..=1500))]
    bytes: Vec<u16>,
    /// Turns of each case, of which the medians count.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..=99))]
    turns: u16,
    /// Milliseconds that each is measured in each turn.
    #[arg(long, default_value_t = 250, value_parser = clap::value_parser!(u64).range(50..=10_000))]
    window: u64,
    /// The core that the switches run on.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(0..64))]
    core: u64,
    /// The core that the guests run on.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..64))]
    guests: u64,
    /// Let no other thread of the machine interrupt those that are measured, as root: for a machine where others work. They wait
    /// meanwhile.
    #[arg(long)]
    undisturbed: bool,
    /// The library that makes frames in Open vSwitch's process.
    #[arg(long)]
    source: Option<PathBuf>,
}

/// Columns of the table: names, and the numbers of each row's data.
const COLUMNS: [(&str, &str); 13] = [
    ("ours Mpps", "oursMpps"),
    ("theirs", "theirsMpps"),
    ("ratio", "ratio"),
    ("ours cyc", "oursCycles"),
    ("theirs", "theirsCycles"),
    ("ratio", "cyclesRatio"),
    ("their own", "theirsByItself"),
    ("lost %", "oursLost"),
    ("lost %", "theirsLost"),
    ("waits %", "oursClientWaits"),
    ("waits %", "theirsClientWaits"),
    ("ran %", "ran"),
    ("client", "clientBusy"),
];

fn main() -> ExitCode {
    exit(run(&Args::parse()))
}

fn run(args: &Args) -> Result<(), String> {
    let session = Session::begin("vhost", args.source.as_deref())?;
    let version = &session.version;
    let alone = args.ways.iter().map(|way| alone(args, *way)).collect::<Result<Vec<_>, _>>()?;
    if !args.json {
        println!(
            "{version}; switches on core {}, guests on core {}, {} turns, medians; cycles per packet",
            args.core, args.guests, args.turns
        );
        for client in &alone {
            println!("guests alone, {client}");
        }
        let names: String = COLUMNS.iter().map(|(name, _)| format!(" {name:>9}")).collect();
        println!(
            "{:14} {:>12} {:>5} {:>6}{names} {:>5} {:>5}",
            "way", "their rules", "bytes", "flows", "steal", "load"
        );
    }
    let mut rows = Vec::new();
    for (way, rules) in args.ways.iter().flat_map(|way| args.rules.iter().map(move |rules| (*way, *rules))) {
        let places = Places {
            dir: session.dir.path().join(format!("{way:?}-{rules:?}")),
            source: session.source.clone(),
            core: args.core as usize,
            guests: args.guests as usize,
            undisturbed: args.undisturbed,
        };
        rows.extend(pair(args, &places, way, rules, &session)?);
    }
    if args.json {
        let clients: Vec<Value> = alone;
        println!(
            "{}",
            json!({"peer": version, "vhost": true, "core": args.core, "guestsCore": args.guests,
                "turns": args.turns, "clientsAlone": clients, "rows": rows})
        );
    }
    Ok(())
}

/// What the guests of a case cost when nobody else serves their rings.
fn alone(args: &Args, way: Way) -> Result<Value, String> {
    let _pinned = pinned(args.guests as usize)?;
    let mut cycles = Vec::new();
    for &bytes in &args.bytes {
        let mut client = Client::alone(way)?;
        client.prepare(bytes.into(), args.flows.iter().copied().max().unwrap_or(1));
        client.run(Duration::from_millis(20), false);
        let seen = client.run(Duration::from_millis(200), false);
        cycles.push(
            json!({"bytes": bytes, "cycles": seen.busy.round(), "mpps": mpps(seen.packets, seen.seconds)}),
        );
    }
    Ok(json!({"way": way.name(), "cycles": cycles}))
}

fn pinned(core: usize) -> Result<Pinned, String> {
    Pinned::to(core).map_err(|e| format!("core {core}: {e}"))
}

fn mpps(packets: u64, seconds: f64) -> f64 {
    (packets as f64 / seconds / 1e4).round() / 100.0
}

/// All cases between the same ports, with the same rules.
fn pair(
    args: &Args,
    places: &Places,
    way: Way,
    rules: Rules,
    session: &Session,
) -> Result<Vec<Value>, String> {
    let mut peers = Peers::start(places, way, rules)?;
    let mut rows = Vec::new();
    for (flows, bytes) in args.flows.iter().flat_map(|flows| args.bytes.iter().map(move |b| (*flows, *b))) {
        let case = Case { way, bytes, flows, window: Duration::from_millis(args.window) };
        let steal = disturbance().0;
        peers.prepare(&case)?;
        let mut turns = [Vec::new(), Vec::new()];
        for _ in 0..args.turns {
            session.goes_on()?;
            turns[0].push(peers.ours(&case)?);
            turns[1].push(peers.theirs(&case)?);
        }
        let mut row = data(&case, rules, &turns);
        let (after, load) = disturbance();
        (row["stealTicks"], row["load"]) = (json!(after - steal), json!(load));
        row["oursDrops"] = json!(peers.drops()?);
        if !args.json {
            show(&row);
        }
        rows.push(row);
    }
    Ok(rows)
}

fn median(turns: &[Turn], of: impl Fn(&Turn) -> f64) -> f64 {
    let mut values: Vec<f64> = turns.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// A number of a turn.
type Number = fn(&Turn) -> f64;

fn data(case: &Case, rules: Rules, [ours, theirs]: &[Vec<Turn>; 2]) -> Value {
    let mut row =
        json!({"work": case.way.name(), "rules": rules.name(), "bytes": case.bytes, "flows": case.flows});
    let numbers: [(&str, Number); 6] = [
        ("Mpps", |turn| turn.mpps),
        ("Cycles", |turn| turn.cycles),
        ("Wire", |turn| turn.wire),
        ("Lost", |turn| turn.lost),
        ("ClientWaits", |turn| turn.waits),
        ("ClientBusy", |turn| turn.busy),
    ];
    for (name, of) in numbers {
        row[format!("ours{name}")] = json!(median(ours, of));
        row[format!("theirs{name}")] = json!(median(theirs, of));
    }
    for (name, turns) in [("ours", ours), ("theirs", theirs)] {
        row[format!("{name}Turns")] = turns.iter().map(|turn| json!([turn.mpps, turn.cycles])).collect();
    }
    let number = |name: &str| row[name].as_f64().unwrap_or(f64::NAN);
    let (ratio, cycles) =
        (number("oursMpps") / number("theirsMpps"), number("theirsCycles") / number("oursCycles"));
    row["ratio"] = json!(ratio);
    row["cyclesRatio"] = json!(cycles);
    row["theirsByItself"] = json!(median(theirs, |turn| turn.own));
    row["clientBusy"] = row["oursClientBusy"].clone();
    row["ran"] = json!(median(ours, |turn| turn.ran).min(median(theirs, |turn| turn.ran)));
    row
}

fn show(row: &Value) {
    let columns: String = COLUMNS
        .iter()
        .map(|(_, key)| {
            let number = row[*key].as_f64().unwrap_or(f64::NAN);
            if key.contains("Cycles") || key.contains("By") {
                format!(" {number:9.0}")
            } else {
                format!(" {number:9.2}")
            }
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
