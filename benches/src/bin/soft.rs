//! Cycles per packet of the software path on one core: bursts between ports in memory, with everything that a hit
//! does, counters, generation and all.

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use clap::Parser;
use culvert_abi::soc::Sizes;
use culvert_benches::clock::{cycles, disturbance, huge_pages};
use culvert_benches::generator::Generator;
use culvert_benches::work::{self, Kind};
use culvert_flow::{Datapath, Verdict};
use culvert_softpath::switch::{BURST, Packet, Pool, Verdicts, tables};
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

/// Buffers of 2 KiB.
const POOL: usize = 32_768;
/// Descriptors that are in each ring.
const RING: usize = 256;
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
    let mut pool = Pool::new(POOL, 0).expect("memory for packets");
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
    let sizes = Sizes { flows: (most * 3 / 2).next_power_of_two().max(1 << 10), ..Sizes::new(0) };
    let mut dp = tables::datapath(&sizes, pool.count(), work::secret()).expect("memory for tables");
    for kind in Kind::ALL {
        for &flows in &args.flows {
            fill(&mut dp, kind, flows);
            for &bytes in &args.bytes {
                let row = measure(&mut dp, &mut pool, kind, bytes, flows, args.packets);
                if !args.json {
                    show(&row);
                }
                rows.push(row);
            }
        }
    }
    let record = sizes.flows as usize * 194 / most as usize;
    if args.json {
        let rows: Vec<_> = rows.iter().map(data).collect();
        println!(
            "{}",
            json!({"burst": BURST, "ring": RING, "buffers": POOL, "hugePagesKiB": huge_pages(),
                "bytesPerFlow": record, "rows": rows})
        );
    } else {
        println!(
            "{} KiB on huge pages; {record} bytes a flow with {most} of them (192 a record, 2 a place in the index)",
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

fn fill(dp: &mut Datapath<'_>, kind: Kind, flows: u32) {
    dp.clear();
    dp.vports[0] = work::vport();
    dp.tunnels[0] = work::tunnel(kind.encap);
    let (local, peer) = work::addresses();
    dp.peers.set_local(0, local);
    dp.peers.set(peer);
    for cell in dp.map_cells.iter_mut() {
        *cell = 1;
    }
    for n in 0..flows {
        let mut record = work::record(kind, n);
        // As many mappings as there are cells, so that each flow reads another.
        (record.hot.map_cell, record.hot.gen_map) = (work::host(n) as u16, 1);
        dp.install(&record, 0).expect("there is room");
    }
}

/// Packets under way: what the generator has written, and what is ready to leave.
struct Rings {
    receive: VecDeque<Packet>,
    transmit: VecDeque<Packet>,
}

fn measure(
    dp: &mut Datapath<'_>,
    pool: &mut Pool,
    kind: Kind,
    bytes: usize,
    flows: u32,
    packets: u32,
) -> Row {
    let generator = Generator::new(kind, bytes);
    let mut rings = Rings { receive: VecDeque::with_capacity(RING), transmit: VecDeque::with_capacity(RING) };
    let (mut verdicts, mut burst) = (Verdicts::default(), Vec::with_capacity(BURST));
    let mut order = 1u64;
    let mut run = |work: bool| {
        let (start, begin) = (Instant::now(), cycles());
        let mut left = packets;
        while left > 0 {
            while rings.receive.len() < RING {
                let mut packet = pool.take().expect("the pool is larger than all rings");
                // PCG: flows come in random order.
                order = order.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let n = ((order >> 32) * u64::from(flows)) >> 32;
                assert!(packet.set(0, generator.len()));
                packet.input = work::input(kind);
                generator.write(n as u32, packet.bytes_mut());
                rings.receive.push_back(packet);
            }
            burst.extend(rings.receive.drain(..BURST));
            if work {
                let all = verdicts.of(dp, &mut burst, 1);
                assert!(all.iter().all(|(v, _)| matches!(v, Verdict::Forward { .. })), "{:?}", all[0]);
            }
            rings.transmit.extend(burst.drain(..));
            if rings.transmit.len() >= RING {
                rings.transmit.drain(..).for_each(|packet| pool.give(packet));
            }
            left = left.saturating_sub(BURST as u32);
        }
        rings.transmit.drain(..).chain(rings.receive.drain(..)).for_each(|packet| pool.give(packet));
        let n = f64::from(packets);
        ((cycles() - begin) as f64 / n, start.elapsed().as_nanos() as f64 / n)
    };
    run(true);
    let (steal, allocations) = (disturbance().0, ALLOCATIONS.load(Relaxed));
    let mut results = [(0.0, 0.0, 0.0); RUNS];
    for result in &mut results {
        let (alone, all) = (run(false), run(true));
        *result = (all.0 - alone.0, alone.0, all.1 - alone.1);
    }
    let allocations = ALLOCATIONS.load(Relaxed) - allocations;
    results.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (cycles, generator, ns) = results[RUNS / 2];
    let (after, load) = disturbance();
    Row { kind, bytes, flows, cycles, generator, ns, allocations, steal: after - steal, load }
}
