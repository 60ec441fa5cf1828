//! Cycles per packet of the software switch on one core: bursts between ports in memory, with all work of a hit, also counters
//! and generations.
#![forbid(unsafe_code)]

use clap::Parser;
use culvert_benches::allocations::{Counting, allocations};
use culvert_benches::clock::{disturbance, huge_pages};
use culvert_benches::generator::Generator;
use culvert_benches::mem_switch::{MemSwitch, POOL, RING};
use culvert_benches::work::Kind;
use culvert_switch::BURST;
use serde_json::json;

/// Measures the software switch on this machine.
#[derive(Parser)]
struct Args {
    /// Print data instead of a table.
    #[arg(long)]
    json: bool,
    /// Packets in each measurement.
    #[arg(long, default_value_t = 4_000_000)]
    packets: u32,
    /// Numbers of flows.
    #[arg(long, value_delimiter = ',', default_value = "1,1000,100000,1000000")]
    flows: Vec<u32>,
    /// Lengths of inner frames, with Ethernet header.
    #[arg(long, value_delimiter = ',', default_value = "64,512,1500")]
    bytes: Vec<usize>,
}

/// Runs of each case; the median counts.
const RUNS: usize = 5;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The result of one case.
struct Row {
    kind: Kind,
    bytes: usize,
    flows: u32,
    /// Per packet: of the switch, and of the generator with its rings alone.
    cycles: f64,
    generator: f64,
    ns: f64,
    allocations: u64,
    steal: u64,
    load: f64,
}

fn main() {
    let args = Args::parse();
    let mut rows = Vec::new();
    if !args.json {
        println!(
            "one core, bursts of {BURST}, rings of {RING}, {POOL} buffers of 2 KiB, {RUNS} runs, median"
        );
        println!(
            "{:14} {:>6} {:>8} {:>14} {:>11} {:>10} {:>8} {:>7} {:>6} {:>6}",
            "work",
            "bytes",
            "flows",
            "cycles/packet",
            "generator",
            "ns/packet",
            "Mpps",
            "allocs",
            "steal",
            "load"
        );
    }
    // One set of tables for all cases, sized for the largest.
    let most = args.flows.iter().copied().max().unwrap_or(1);
    let mut switch = MemSwitch::new(most);
    for kind in Kind::ALL {
        for &flows in &args.flows {
            switch.fill(kind, flows);
            for &bytes in &args.bytes {
                let row = measure(&mut switch, kind, bytes, flows, args.packets);
                if !args.json {
                    show(&row);
                }
                rows.push(row);
            }
        }
    }
    let record = MemSwitch::records(most) as usize * 194 / most as usize;
    if args.json {
        let rows: Vec<_> = rows.iter().map(data).collect();
        println!(
            "{}",
            json!({"burst": BURST, "ring": RING, "buffers": POOL, "hugePagesKiB": huge_pages(),
                "bytesPerFlow": record, "rows": rows})
        );
    } else {
        println!(
            "{} KiB on huge pages; {record} bytes a flow with {most} of them (in each direction 192 a record and 2 in the index, and room to spare)",
            huge_pages()
        );
    }
}

fn show(row: &Row) {
    println!(
        "{:14} {:6} {:8} {:14.1} {:11.1} {:10.1} {:8.2} {:7} {:6} {:6.2}",
        row.kind.name(),
        row.bytes,
        row.flows,
        row.cycles,
        row.generator,
        row.ns,
        1e3 / row.ns,
        row.allocations,
        row.steal,
        row.load
    );
}

fn data(row: &Row) -> serde_json::Value {
    json!({"work": row.kind.name(), "bytes": row.bytes, "flows": row.flows, "cycles": row.cycles,
        "generatorCycles": row.generator, "ns": row.ns, "mpps": 1e3 / row.ns, "allocations": row.allocations,
        "stealTicks": row.steal, "load": row.load})
}

fn measure(switch: &mut MemSwitch, kind: Kind, bytes: usize, flows: u32, packets: u32) -> Row {
    let generator = Generator::new(kind, bytes);
    switch.run(&generator, flows, packets, true);
    let (steal, before) = (disturbance().0, allocations());
    let mut results = [(0.0, 0.0, 0.0); RUNS];
    for result in &mut results {
        let alone = switch.run(&generator, flows, packets, false);
        let all = switch.run(&generator, flows, packets, true);
        *result = (all.cycles - alone.cycles, alone.cycles, all.ns - alone.ns);
    }
    let allocations = allocations() - before;
    results.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (cycles, generator, ns) = results[RUNS / 2];
    let (after, load) = disturbance();
    Row { kind, bytes, flows, cycles, generator, ns, allocations, steal: after - steal, load }
}
