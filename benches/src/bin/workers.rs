//! How the software path grows with its workers: packets per second of one and of several, each with a virtual machine
//! that sends and receives as fast as it is let, between ports in memory.

#![forbid(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use culvert_abi::FlowRecord;
use culvert_abi::command::CellWrite;
use culvert_benches::clock::disturbance;
use culvert_benches::generator::{Generator, Order};
use culvert_benches::work::{self, Kind};
use culvert_flow::Port;
use culvert_packet::{Encap, MacAddr, VportId};
use culvert_pf::Interrupt;
use culvert_softpath::switch::{Opener, Packet, Pool, Sent, Switch, SwitchPort, SwitchSettings};
use culvert_softpath::{OffloadTarget as _, Station};
use serde_json::{Value, json};

/// Measures how the software path grows with its workers on this machine.
#[derive(Parser)]
struct Args {
    /// Print data instead of a table.
    #[arg(long)]
    json: bool,
    /// Processors, one for each worker.
    #[arg(long, value_delimiter = ',', default_value = "0,1")]
    cores: Vec<usize>,
    /// Numbers of flows of each virtual machine.
    #[arg(long, value_delimiter = ',', default_value = "1000,100000")]
    flows: Vec<u32>,
    /// Length of inner frames, with Ethernet header.
    #[arg(long, default_value_t = 64)]
    bytes: usize,
    /// Turns of each case, of which the median counts.
    #[arg(long, default_value_t = 5)]
    turns: usize,
    /// Milliseconds of a turn.
    #[arg(long, default_value_t = 500)]
    ms: u64,
    /// Measures one turn of one case, and prints its rate.
    #[arg(long, hide = true, requires = "flows")]
    child: Option<Ends>,
    #[arg(long, hide = true)]
    decap: bool,
}

/// Who has the wire.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Ends {
    /// One worker is all there is.
    Alone,
    /// Each worker has an end: nothing is passed on, but for frames from the wire that come in by the wrong one.
    Each,
    /// The first worker has it: whatever is the others' crosses a ring.
    First,
}

impl Ends {
    const ALL: [Ends; 3] = [Ends::Alone, Ends::Each, Ends::First];

    fn name(self) -> &'static str {
        match self {
            Ends::Alone => "one worker",
            Ends::Each => "each has an end of the wire",
            Ends::First => "the first has the wire",
        }
    }
}

/// What a port sends, and what has left by ports.
#[derive(Clone)]
struct Feed {
    /// Nothing comes from a port without.
    generator: Option<Arc<Generator>>,
    flows: u32,
    /// How many virtual machines frames from the wire are for, in turns.
    machines: u32,
    left: Arc<AtomicU64>,
}

/// A port in memory that makes frames when it is asked for some.
struct Source {
    feed: Feed,
    order: Order,
    turn: u32,
    never: Interrupt,
}

impl Feed {
    fn opener(&self) -> Opener {
        let feed = self.clone();
        Box::new(move || {
            let never = Interrupt::new().map_err(std::io::Error::other)?;
            let port = Source { feed: feed.clone(), order: Order::default(), turn: 0, never };
            Ok(Box::new(port) as Box<dyn SwitchPort>)
        })
    }
}

/// The VSID of a virtual machine from the wire: with it each has flows of its own.
fn vsid(machine: u32) -> u32 {
    work::VSID + machine
}

impl SwitchPort for Source {
    fn receive(&mut self, pool: &mut Pool, packets: &mut Vec<Packet>, most: usize) -> std::io::Result<()> {
        let Some(generator) = &self.feed.generator else { return Ok(()) };
        while packets.len() < most
            && let Some(mut packet) = pool.take()
        {
            let fits = packet.set(0, generator.len());
            debug_assert!(fits, "a buffer is longer than a frame");
            generator.write(self.order.next(self.feed.flows), packet.bytes_mut());
            if generator.kind().decap
                && let Some(vni) = packet.bytes_mut().get_mut(46..49)
            {
                self.turn = (self.turn + 1) % self.feed.machines;
                vni.copy_from_slice(&vsid(self.turn).to_be_bytes()[1..]);
            }
            packets.push(packet);
        }
        Ok(())
    }

    fn send(&mut self, pool: &mut Pool, packets: &mut Vec<Packet>) -> std::io::Result<Sent> {
        let sent = Sent { packets: packets.len() as u64, ..Sent::default() };
        packets.drain(..).for_each(|packet| pool.give(packet));
        self.feed.left.fetch_add(sent.packets, Relaxed);
        Ok(sent)
    }

    fn arm(&mut self) -> bool {
        self.feed.generator.is_none()
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.never.as_fd()
    }
}

/// The record of a machine's flow, in one direction.
fn record(kind: Kind, machine: u32, n: u32) -> FlowRecord {
    let mut record = work::record(kind, n);
    if kind.decap {
        record.key.vsid = vsid(machine);
        record.hot.out = Port::Vport(VportId(machine as u16)).bits();
    } else {
        record.key.source = machine as u16;
    }
    (record.hot.map_cell, record.hot.gen_map) = (work::host(n) as u16, 1);
    record
}

/// Packets per second, with as many machines as there are processors to be had.
fn measure(args: &Args, decap: bool, flows: u32, ends: Ends) -> f64 {
    let machines = args.cores.len() as u32;
    let workers: Vec<_> = match ends {
        Ends::Alone => vec![Some(args.cores[0])],
        _ => args.cores.iter().map(|core| Some(*core)).collect(),
    };
    let records = (flows * machines * 3).next_power_of_two().max(1 << 10);
    let settings =
        SwitchSettings { workers, large_buffers: 0, ..SwitchSettings::new(records, work::secret()) };
    let switch = Switch::start(&settings).expect("memory for tables and packets");
    let kind = Kind { decap, encap: Encap::Vxlan };
    let left = Arc::new(AtomicU64::new(0));
    let feed = |generates: bool| Feed {
        generator: generates.then(|| Arc::new(Generator::new(kind, args.bytes))),
        flows,
        machines,
        left: Arc::clone(&left),
    };
    fill(&switch, kind, machines, flows);
    for n in 0..machines {
        let port = Port::Vport(VportId(n as u16));
        switch.attach(port, feed(!decap).opener()).expect("it runs");
    }
    let wire = feed(decap);
    if ends == Ends::Each {
        switch.attach_to_all(Port::Uplink(0), |_| wire.opener()).expect("it runs");
    } else {
        switch.attach(Port::Uplink(0), wire.opener()).expect("it runs");
    }
    // Buffers and tables come into the caches.
    std::thread::sleep(Duration::from_millis(args.ms / 2));
    let (before, begin) = (left.load(Relaxed), Instant::now());
    std::thread::sleep(Duration::from_millis(args.ms));
    let rate = (left.load(Relaxed) - before) as f64 / begin.elapsed().as_secs_f64();
    assert_eq!(switch.counters().expect("it runs").punted, 0, "every packet is a hit");
    rate
}

/// Tables with all flows of all machines, both directions of each.
fn fill(switch: &Switch, kind: Kind, machines: u32, flows: u32) {
    let (local, peer) = work::addresses();
    let vports: Vec<_> = (0..machines)
        .map(|n| (n as u16, culvert_flow::tables::Vport { vsid: vsid(n), ..work::vport() }))
        .collect();
    let stations: Vec<_> = (0..machines)
        .map(|n| Station { vport: VportId(n as u16), vsid: vsid(n), mac: MacAddr([0, 0x1d, 0xd8, 7, 0, 2]) })
        .collect();
    let cells: Vec<_> = (0..1 << 16).map(|cell| CellWrite { cell, value: 1 }).collect();
    switch.set_vports(&vports).expect("it runs");
    switch.set_tunnels(&[(0, work::tunnel(kind.encap))]).expect("it runs");
    switch.set_local(&[local]).expect("it runs");
    switch.set_peers(&[peer]).expect("it runs");
    switch.set_stations(&stations).expect("it runs");
    switch.set_cells(&cells).expect("it runs");
    // Records are put where their vport is: it has a place before it has a port that does anything.
    let nothing = Feed { generator: None, flows: 1, machines, left: Arc::new(AtomicU64::new(0)) };
    for n in 0..machines {
        switch.attach(Port::Vport(VportId(n as u16)), nothing.opener()).expect("it runs");
    }
    for machine in 0..machines {
        let all =
            (0..flows).flat_map(|n| [false, true].map(|decap| record(Kind { decap, ..kind }, machine, n)));
        let all: Vec<FlowRecord> = all.collect();
        all.chunks(4096).for_each(|some| switch.insert(some).expect("there is room"));
    }
}

/// One turn in a process of its own: tables and buffers are never given back.
fn child(args: &Args, decap: bool, flows: u32, ends: Ends) -> f64 {
    let mut command = Command::new(std::env::current_exe().expect("this program has a name"));
    let word = ends.to_possible_value().expect("none is hidden");
    let cores: Vec<String> = args.cores.iter().map(usize::to_string).collect();
    command.args(["--cores", &cores.join(","), "--flows", &flows.to_string(), "--child", word.get_name()]);
    command.args(["--bytes", &args.bytes.to_string(), "--ms", &args.ms.to_string()]);
    if decap {
        command.arg("--decap");
    }
    let output = command.output().expect("it can be started");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().parse().expect("its rate")
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

fn main() {
    let args = Args::parse();
    if let Some(ends) = args.child {
        println!("{}", measure(&args, args.decap, args.flows[0], ends));
        return;
    }
    let steal = disturbance().0;
    let mut rows: Vec<Value> = Vec::new();
    if !args.json {
        println!(
            "{} workers and as many virtual machines, {} bytes, VXLAN, median of {} turns of {} ms; the generator counts",
            args.cores.len(),
            args.bytes,
            args.turns,
            args.ms
        );
    }
    for decap in [false, true] {
        for &flows in &args.flows {
            let mut rates = Ends::ALL.map(|_| Vec::new());
            for _ in 0..args.turns.max(1) {
                for (ends, rates) in Ends::ALL.into_iter().zip(&mut rates) {
                    rates.push(child(&args, decap, flows, ends));
                }
            }
            let rates = rates.map(median);
            for (ends, rate) in Ends::ALL.into_iter().zip(rates) {
                let times = rate / rates[0];
                if !args.json {
                    println!(
                        "{:6} {flows:>8} flows each  {:28} {:7.2} Mpps  {times:5.2} times",
                        if decap { "decap" } else { "encap" },
                        ends.name(),
                        rate / 1e6
                    );
                }
                rows.push(json!({"decap": decap, "flows": flows, "bytes": args.bytes, "wire": ends.name(),
                    "packetsPerSecond": rate, "times": times}));
            }
        }
    }
    let (after, load) = disturbance();
    if args.json {
        println!("{}", json!({"cores": args.cores, "rows": rows, "stealTicks": after - steal, "load": load}));
    } else {
        println!("load {load}, {} ticks stolen", after - steal);
    }
}
