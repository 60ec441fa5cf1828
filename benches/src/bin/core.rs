//! Cycles per packet of the core on this machine: one packet at a time, tables and frames in memory.

#![forbid(unsafe_code)]

use std::hint::black_box;
use std::time::Instant;

use clap::Parser;
use culvert_benches::clock::cycles;
use culvert_benches::work::{self, Kind};
use culvert_flow::datapath::Counters;
use culvert_flow::pending::Pending;
use culvert_flow::tables::Peers;
use culvert_flow::{Checksum, Datapath, FlowTable, Frame, Source, Verdict};
use culvert_lockstep::memory::Store;
use culvert_packet::MacAddr;

/// Measures the core on this machine.
#[derive(Parser)]
struct Args {
    /// Print data instead of a table.
    #[arg(long)]
    json: bool,
    /// Packets in each measurement.
    #[arg(long, default_value_t = 2_000_000)]
    packets: u32,
}

const HEADROOM: usize = 130;
/// Frames in use at a time, as in a NIC's ring.
const RING: usize = 1024;

fn main() {
    let args = Args::parse();
    let mut rows = Vec::new();
    if !args.json {
        println!("{:14} {:>6} {:>8} {:>14} {:>12}", "work", "bytes", "flows", "cycles/packet", "ns/packet");
    }
    for kind in Kind::ALL {
        for len in [64, 1500] {
            for flows in [1_000, 65_536] {
                let (cycles, ns) = measure(kind, len, flows, args.packets);
                if args.json {
                    rows.push(serde_json::json!({
                        "work": kind.name(), "bytes": len, "flows": flows, "cycles": cycles, "ns": ns }));
                } else {
                    println!("{:14} {len:6} {flows:8} {cycles:14.0} {ns:12.1}", kind.name());
                }
            }
        }
    }
    if args.json {
        println!("{}", serde_json::Value::Array(rows));
    }
}

/// Median of five runs: cycles and nanoseconds per packet, less the cost of writing the frames, which is measured alone.
fn measure(kind: Kind, len: usize, flows: u32, packets: u32) -> (f64, f64) {
    let memory = Store::new(&work::sizes(flows)).leak();
    let mut dp = Datapath {
        table: FlowTable::new(memory.table, work::secret()).expect("sizes fit each other"),
        pending: Pending::new(memory.pending, memory.links, 64),
        tunnels: memory.tunnels,
        groups: memory.groups,
        peers: Peers::new(memory.peers),
        vports: memory.vports,
        map_cells: memory.map_cells,
        router_mac: MacAddr::ZERO,
        counters: Counters::default(),
        vport_drops: &mut [],
    };
    dp.vports[0] = work::vport();
    dp.tunnels[0] = work::tunnel(kind.encap);
    let (local, peer) = work::addresses();
    dp.peers.set_local(0, local);
    dp.peers.set(peer);
    for n in 0..flows {
        dp.install(&work::record(kind, n), 0).expect("there is room");
    }
    let heads: Vec<Vec<u8>> = (0..flows).map(|n| work::frame(kind, n, len.min(1500))).collect();
    let mut ring: Vec<Vec<u8>> = (0..RING).map(|_| vec![0; HEADROOM + heads[0].len()]).collect();
    let input = work::input(kind);
    let mut order = 1u32;
    let mut run = |process: bool| {
        let (start, begin) = (Instant::now(), cycles());
        for i in 0..packets {
            order = order.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let head = &heads[(order >> 8) as usize % heads.len()];
            let buffer = &mut ring[i as usize % RING];
            // Write the headers only: a NIC's DMA would write frames without the processor.
            let headers = head.len().min(120);
            buffer[HEADROOM..HEADROOM + headers].copy_from_slice(&head[..headers]);
            if process {
                let mut frame = Frame::new(buffer, HEADROOM, head.len()).expect("it fits");
                let source = Source::Port(Checksum::Unknown);
                let verdict = dp.process(&mut frame, input, source, 0, 1, &mut None);
                assert!(matches!(verdict, Verdict::Forward { .. }), "{verdict:?}");
            } else {
                black_box(&buffer);
            }
        }
        let n = f64::from(packets);
        ((cycles() - begin) as f64 / n, start.elapsed().as_nanos() as f64 / n)
    };
    let mut results: Vec<(f64, f64)> = (0..5)
        .map(|_| {
            let (alone, all) = (run(false), run(true));
            (all.0 - alone.0, all.1 - alone.1)
        })
        .collect();
    results.sort_by(|a, b| a.0.total_cmp(&b.0));
    results[2]
}
