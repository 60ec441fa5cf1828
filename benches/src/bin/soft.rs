//! Cycles per packet of the software path on one core: bursts between ports in memory, with everything that a hit
//! does, counters, generation and all.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use clap::Parser;
use culvert_benches::clock::{disturbance, huge_pages};
use culvert_benches::generator::Generator;
use culvert_benches::soft::{POOL, RING, Soft};
use culvert_benches::work::Kind;
use culvert_softpath::switch::BURST;
use serde_json::json;

/// Measures the software path on this machine.
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

/// Measurements of each case, of which the median counts.
const RUNS: usize = 5;

/// Counts what is allocated.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

#[expect(unsafe_code, reason = "an allocator is unsafe to write; this one counts and asks the system's")]
// SAFETY: every call is the system allocator's.
unsafe impl GlobalAlloc for Counting {
    // SAFETY: the caller's promise is handed on.
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: as above.
        unsafe { System.alloc(layout) }
    }

    // SAFETY: the caller's promise is handed on.
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What was measured of one case.
struct Row {
    kind: Kind,
    bytes: usize,
    flows: u32,
    /// Per packet: of the path, and of the generator with its rings alone.
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
    // The tables of the most flows serve all cases, as a running daemon's do.
    let most = args.flows.iter().copied().max().unwrap_or(1);
    let mut soft = Soft::new(most);
    for kind in Kind::ALL {
        for &flows in &args.flows {
            soft.fill(kind, flows);
            for &bytes in &args.bytes {
                let row = measure(&mut soft, kind, bytes, flows, args.packets);
                if !args.json {
                    show(&row);
                }
                rows.push(row);
            }
        }
    }
    let record = Soft::records(most) as usize * 194 / most as usize;
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

fn measure(soft: &mut Soft, kind: Kind, bytes: usize, flows: u32, packets: u32) -> Row {
    let generator = Generator::new(kind, bytes);
    soft.run(&generator, flows, packets, true);
    let (steal, allocations) = (disturbance().0, ALLOCATIONS.load(Relaxed));
    let mut results = [(0.0, 0.0, 0.0); RUNS];
    for result in &mut results {
        let alone = soft.run(&generator, flows, packets, false);
        let all = soft.run(&generator, flows, packets, true);
        *result = (all.cycles - alone.cycles, alone.cycles, all.ns - alone.ns);
    }
    let allocations = ALLOCATIONS.load(Relaxed) - allocations;
    results.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (cycles, generator, ns) = results[RUNS / 2];
    let (after, load) = disturbance();
    Row { kind, bytes, flows, cycles, generator, ns, allocations, steal: after - steal, load }
}
