//! Cycles per packet of the software path on one core: bursts between ports in memory, with everything that a hit
//! does, counters, generation and all.

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use clap::Parser;
use culvert_benches::clock::{self, disturbance, huge_pages};
use culvert_benches::generator::Generator;
use culvert_benches::work::{self, Kind};
use culvert_flow::{Datapath, Port};
use culvert_nic::Interrupt;
use culvert_packet::VportId;
use culvert_softpath::switch::{BURST, Forwarder, Packet, Pool, Sent, SwitchPort, SwitchSettings};
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
    // The tables of the most flows serve all cases, as a running daemon's do. A flow has a record in each direction.
    let most = args.flows.iter().copied().max().unwrap_or(1);
    let records = (most * 3).next_power_of_two().max(1 << 10);
    let settings =
        SwitchSettings { buffers: POOL, large_buffers: 0, ..SwitchSettings::new(records, work::secret()) };
    let (mut switch, _source) = Forwarder::new(&settings).expect("memory for tables and packets");
    for at in [Port::Vport(VportId(0)), Port::Uplink(0)] {
        switch.attach(at, Box::new(|| Ok(Box::new(Ring::new()?))));
    }
    for kind in Kind::ALL {
        for &flows in &args.flows {
            fill(switch.datapath(), kind, flows);
            for &bytes in &args.bytes {
                let row = measure(&mut switch, kind, bytes, flows, args.packets);
                if !args.json {
                    show(&row);
                }
                rows.push(row);
            }
        }
    }
    let record = records as usize * 194 / most as usize;
    if args.json {
        let rows: Vec<_> = rows.iter().map(data).collect();
        println!(
            "{}",
            json!({"burst": BURST, "ring": RING, "buffers": POOL, "hugePagesKiB": huge_pages(),
                "bytesPerFlow": record, "rows": rows})
        );
    } else {
        println!(
            "{} KiB on huge pages; {record} bytes a flow with {most} of them (in each direction 192 a record and 2 in the \
             index, and room to spare)",
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
        for decap in [false, true] {
            let mut record = work::record(Kind { decap, ..kind }, n);
            // As many mappings as there are cells, so that each flow reads another.
            (record.hot.map_cell, record.hot.gen_map) = (work::host(n) as u16, 1);
            dp.install(&record, 0).expect("there is room");
        }
    }
}

/// A port in memory: descriptors of packets that leave wait in a ring, and are free when it is full.
struct Ring {
    transmit: VecDeque<Packet>,
    never: Interrupt,
}

impl Ring {
    fn new() -> std::io::Result<Self> {
        let never = Interrupt::new().map_err(std::io::Error::other)?;
        Ok(Ring { transmit: VecDeque::with_capacity(2 * RING), never })
    }
}

impl SwitchPort for Ring {
    fn receive(&mut self, _: &mut Pool, _: &mut Vec<Packet>, _: usize) -> std::io::Result<()> {
        Ok(())
    }

    fn send(&mut self, pool: &mut Pool, packets: &mut Vec<Packet>) -> std::io::Result<Sent> {
        let mut sent = Sent { packets: packets.len() as u64, ..Sent::default() };
        for packet in packets.drain(..) {
            sent.bytes += packet.bytes().len() as u64;
            self.transmit.push_back(packet);
        }
        while self.transmit.len() >= RING {
            self.transmit.drain(..BURST).for_each(|packet| pool.give(packet));
        }
        Ok(sent)
    }

    fn arm(&mut self) -> bool {
        true
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.never.as_fd()
    }
}

/// The receiving end: frames of flows in random order, written anew for each packet.
struct Feeder {
    generator: Generator,
    input: Port,
    flows: u64,
    receive: VecDeque<Packet>,
    burst: Vec<Packet>,
    random: u64,
}

impl Feeder {
    fn new(kind: Kind, bytes: usize, flows: u32) -> Self {
        Feeder {
            generator: Generator::new(kind, bytes),
            input: work::input(kind),
            flows: u64::from(flows),
            receive: VecDeque::with_capacity(RING),
            burst: Vec::with_capacity(BURST),
            random: 1,
        }
    }

    /// Feeds the switch, or gives the packets back at once: what the generator and its ring cost alone.
    fn run(&mut self, switch: &mut Forwarder, packets: u32, work: bool) {
        for _ in 0..packets / BURST as u32 {
            while self.receive.len() < RING {
                let mut packet = switch.pool().take().expect("the pool is larger than all rings");
                // PCG.
                self.random = self
                    .random
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                let n = ((self.random >> 32) * self.flows) >> 32;
                assert!(packet.set(0, self.generator.len()));
                packet.input = self.input;
                self.generator.write(n as u32, packet.bytes_mut());
                self.receive.push_back(packet);
            }
            self.burst.extend(self.receive.drain(..BURST));
            if work {
                switch.burst(&mut self.burst);
            } else {
                self.burst.drain(..).for_each(|packet| switch.pool().give(packet));
            }
        }
        self.receive.drain(..).for_each(|packet| switch.pool().give(packet));
    }
}

fn measure(switch: &mut Forwarder, kind: Kind, bytes: usize, flows: u32, packets: u32) -> Row {
    let mut feeder = Feeder::new(kind, bytes, flows);
    switch.now = 1;
    let before = switch.datapath().counters.finished;
    feeder.run(switch, packets, true);
    let (steal, allocations) = (disturbance().0, ALLOCATIONS.load(Relaxed));
    let mut results = [(0.0, 0.0, 0.0); RUNS];
    for result in &mut results {
        let alone = clock::measure(|| feeder.run(switch, packets, false));
        let all = clock::measure(|| feeder.run(switch, packets, true));
        let each = f64::from(packets / BURST as u32 * BURST as u32);
        *result = ((all.0 - alone.0) / each, alone.0 / each, (all.1 - alone.1) / each);
    }
    let allocations = ALLOCATIONS.load(Relaxed) - allocations;
    let finished = switch.datapath().counters.finished - before;
    let expected = u64::from(packets / BURST as u32 * BURST as u32) * (RUNS as u64 + 1);
    assert_eq!(finished, expected, "every packet is a hit");
    results.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (cycles, generator, ns) = results[RUNS / 2];
    let (after, load) = disturbance();
    Row { kind, bytes, flows, cycles, generator, ns, allocations, steal: after - steal, load }
}
