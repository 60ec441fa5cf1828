//! Scaling of the software switch: packets per second of one and of several workers, each with a VM that sends and receives as fast
//! as it can, between ports in memory.

#![forbid(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use culvert_abi::FlowRecord;
use culvert_benches::clock::disturbance;
use culvert_benches::generator::{Generator, Order};
use culvert_benches::stats::median;
use culvert_benches::work::{self, Kind};
use culvert_flow::Port;
use culvert_offload::EventFd;
use culvert_offload::{DeviceInfo as _, FdbEntry, FlowTables as _, Generation, GenerationWrite, TableWrite};
use culvert_packet::{Encap, MacAddr, VportId};
use culvert_switch::{Opener, Packet, Pool, Sent, Switch, SwitchPort, SwitchSettings};
use serde_json::{Value, json};

/// Measures the scaling of the software switch on this machine.
#[derive(Parser)]
struct Args {
    /// Print data instead of a table.
    #[arg(long)]
    json: bool,
    /// Processors, one for each worker.
    #[arg(long, value_delimiter = ',', default_value = "0,1")]
    cores: Vec<usize>,
    /// Numbers of flows of each VM.
    #[arg(long, value_delimiter = ',', default_value = "1000,100000")]
    flows: Vec<u32>,
    /// Length of inner frames, with Ethernet header.
    #[arg(long, default_value_t = 64)]
    bytes: usize,
    /// Interleaved runs of each case; the median counts.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Milliseconds of a run.
    #[arg(long, default_value_t = 500)]
    ms: u64,
    /// Count the best window of so many milliseconds of each run, and the best run: on a machine that others use, too, few
    /// windows have all processors to themselves.
    #[arg(long)]
    window: Option<u64>,
    /// Measure one run of one case, and print its rate.
    #[arg(long, hide = true, requires = "flows")]
    child: Option<WireOwner>,
    #[arg(long, hide = true)]
    decap: bool,
}

/// The workers that own ports to the wire.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum WireOwner {
    /// There is only one worker.
    Alone,
    /// Each worker has a port to the wire. Only frames from the wire that arrive at the wrong worker are handed off.
    Each,
    /// The first worker has the only port to the wire: the others' frames are handed off.
    First,
}

impl WireOwner {
    const ALL: [WireOwner; 3] = [WireOwner::Alone, WireOwner::Each, WireOwner::First];

    fn name(self) -> &'static str {
        match self {
            WireOwner::Alone => "one worker",
            WireOwner::Each => "each has an uplink queue",
            WireOwner::First => "the first has the uplink",
        }
    }
}

/// What a port generates, and the counter of sent packets.
#[derive(Clone)]
struct Feed {
    /// None: the port generates nothing.
    generator: Option<Arc<Generator>>,
    flows: u32,
    /// Number of VMs that frames from the wire are for, alternately.
    vms: u32,
    sent: Arc<AtomicU64>,
}

/// A port in memory that generates frames when it is polled.
struct Source {
    feed: Feed,
    order: Order,
    vm: u32,
    never: EventFd,
}

impl Feed {
    fn opener(&self) -> Opener {
        let feed = self.clone();
        Box::new(move || {
            let never = EventFd::new().map_err(std::io::Error::other)?;
            let port = Source { feed: feed.clone(), order: Order::default(), vm: 0, never };
            Ok(Box::new(port) as Box<dyn SwitchPort>)
        })
    }
}

/// The VSID of a VM: each has its own, so that flows from the wire differ.
fn vsid(vm: u32) -> u32 {
    work::VSID + vm
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
                self.vm = (self.vm + 1) % self.feed.vms;
                vni.copy_from_slice(&vsid(self.vm).to_be_bytes()[1..]);
            }
            packets.push(packet);
        }
        Ok(())
    }

    fn send(&mut self, pool: &mut Pool, packets: &mut Vec<Packet>) -> std::io::Result<Sent> {
        let sent = Sent { packets: packets.len() as u64, ..Sent::default() };
        packets.drain(..).for_each(|packet| pool.give(packet));
        self.feed.sent.fetch_add(sent.packets, Relaxed);
        Ok(sent)
    }

    fn arm(&mut self) -> bool {
        self.feed.generator.is_none()
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.never.as_fd()
    }
}

/// The record of a VM's flow, in one direction.
fn record(kind: Kind, vm: u32, n: u32) -> FlowRecord {
    let mut record = work::record(kind, n);
    if kind.decap {
        record.key.vsid = vsid(vm);
        record.hot.out = Port::Vport(VportId(vm as u16)).bits();
    } else {
        record.key.source = vm as u16;
    }
    (record.hot.map_cell, record.hot.gen_map) = (work::host(n) as u16, 1);
    record
}

/// Packets per second, with as many VMs as processors.
fn measure(args: &Args, decap: bool, flows: u32, owner: WireOwner) -> f64 {
    let vms = args.cores.len() as u32;
    let workers: Vec<_> = match owner {
        WireOwner::Alone => vec![Some(args.cores[0])],
        _ => args.cores.iter().map(|core| Some(*core)).collect(),
    };
    let records = (flows * vms * 3).next_power_of_two().max(1 << 10);
    let settings =
        SwitchSettings { workers, large_buffers: 0, ..SwitchSettings::new(records, work::secret()) };
    let switch = Switch::start(&settings).expect("memory for tables and packets");
    let kind = Kind { decap, encap: Encap::Vxlan };
    let sent = Arc::new(AtomicU64::new(0));
    let feed = |generates: bool| Feed {
        generator: generates.then(|| Arc::new(Generator::new(kind, args.bytes))),
        flows,
        vms,
        sent: Arc::clone(&sent),
    };
    fill(&switch, kind, vms, flows);
    for n in 0..vms {
        let port = Port::Vport(VportId(n as u16));
        switch.attach(port, feed(!decap).opener()).expect("it runs");
    }
    let wire = feed(decap);
    if owner == WireOwner::Each {
        switch.attach_to_all(Port::Uplink(0), |_| wire.opener()).expect("it runs");
    } else {
        switch.attach(Port::Uplink(0), wire.opener()).expect("it runs");
    }
    // Warm the caches.
    std::thread::sleep(Duration::from_millis(args.ms / 2));
    let (end, window) = (Instant::now() + Duration::from_millis(args.ms), args.window.unwrap_or(args.ms));
    let mut rate: f64 = 0.0;
    while Instant::now() < end {
        // In this order, a thread that is preempted in between sees a lower rate, never a higher one.
        let (begin, before) = (Instant::now(), sent.load(Relaxed));
        std::thread::sleep(Duration::from_millis(window));
        rate = rate.max((sent.load(Relaxed) - before) as f64 / begin.elapsed().as_secs_f64());
    }
    assert_eq!(switch.counters().expect("it runs").punted, 0, "every packet is a hit");
    rate
}

/// Fills the tables with all flows of all VMs, both directions of each.
fn fill(switch: &Switch, kind: Kind, vms: u32, flows: u32) {
    let (local, peer) = work::addresses();
    let vports: Vec<_> = (0..vms)
        .map(|n| (n as u16, culvert_flow::tables::Vport { vsid: vsid(n), ..work::vport() }))
        .collect();
    let fdb: Vec<_> = (0..vms)
        .map(|n| FdbEntry { vport: VportId(n as u16), vsid: vsid(n), mac: MacAddr([0, 0x1d, 0xd8, 7, 0, 2]) })
        .collect();
    let generation = |cell| GenerationWrite { of: Generation::Mapping(cell), value: 1 };
    let generations: Vec<_> = (0..=u16::MAX).map(generation).collect();
    let write = |write: TableWrite<'_>| switch.write(write).expect("the switch runs");
    write(TableWrite::Vports(&vports));
    write(TableWrite::Tunnels(&[(0, work::tunnel(kind.encap))]));
    write(TableWrite::LocalAddresses(&[local]));
    write(TableWrite::Peers(&[peer]));
    write(TableWrite::Fdb(&fdb));
    write(TableWrite::Generations(&generations));
    // Records are installed at the worker of their vport, so every vport needs a port first.
    let nothing = Feed { generator: None, flows: 1, vms, sent: Arc::new(AtomicU64::new(0)) };
    for n in 0..vms {
        switch.attach(Port::Vport(VportId(n as u16)), nothing.opener()).expect("it runs");
    }
    for vm in 0..vms {
        let all = (0..flows).flat_map(|n| [false, true].map(|decap| record(Kind { decap, ..kind }, vm, n)));
        let all: Vec<FlowRecord> = all.collect();
        all.chunks(4096).for_each(|some| switch.insert(some).expect("there is room"));
    }
}

/// One run in a child process, since tables and buffers are never freed.
fn child(args: &Args, decap: bool, flows: u32, owner: WireOwner) -> f64 {
    let mut command = Command::new(std::env::current_exe().expect("this program has a name"));
    let word = owner.to_possible_value().expect("none is hidden");
    let cores: Vec<String> = args.cores.iter().map(usize::to_string).collect();
    command.args(["--cores", &cores.join(","), "--flows", &flows.to_string(), "--child", word.get_name()]);
    command.args(["--bytes", &args.bytes.to_string(), "--ms", &args.ms.to_string()]);
    if let Some(window) = args.window {
        command.args(["--window", &window.to_string()]);
    }
    if decap {
        command.arg("--decap");
    }
    let output = command.output().expect("it can be started");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().parse().expect("its rate")
}

fn main() {
    let args = Args::parse();
    if let Some(owner) = args.child {
        println!("{}", measure(&args, args.decap, args.flows[0], owner));
        return;
    }
    let steal = disturbance().0;
    let mut rows: Vec<Value> = Vec::new();
    if !args.json {
        println!(
            "{} workers and as many VMs, {} bytes, VXLAN, median of {} interleaved runs of {} ms, with the generator",
            args.cores.len(),
            args.bytes,
            args.runs,
            args.ms
        );
    }
    for decap in [false, true] {
        for &flows in &args.flows {
            let mut rates = WireOwner::ALL.map(|_| Vec::new());
            for _ in 0..args.runs.max(1) {
                for (owner, rates) in WireOwner::ALL.into_iter().zip(&mut rates) {
                    rates.push(child(&args, decap, flows, owner));
                }
            }
            let best = |rates: Vec<f64>| rates.into_iter().fold(0.0, f64::max);
            let rates = rates.map(if args.window.is_some() { best } else { median });
            for (owner, rate) in WireOwner::ALL.into_iter().zip(rates) {
                let times = rate / rates[0];
                if !args.json {
                    println!(
                        "{:6} {flows:>8} flows each  {:28} {:7.2} Mpps  {times:5.2} times",
                        if decap { "decap" } else { "encap" },
                        owner.name(),
                        rate / 1e6
                    );
                }
                rows.push(json!({"decap": decap, "flows": flows, "bytes": args.bytes, "wire": owner.name(),
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
