//! New connections per second of the software path on one core, and what the ageing of those that live costs: a switch
//! and its slow path as the daemon runs them, with a policy of the control plane, between ports in memory.

#![forbid(unsafe_code)]

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use clap::Parser;
use culvert_api::Bundle;
use culvert_benches::allocations::{Counting, allocations, live_bytes};
use culvert_benches::clock::{self, disturbance};
use culvert_benches::flood::{Flood, Opening, Wire};
use culvert_benches::work;
use culvert_flow::Port;
use culvert_model::{Fabric, HostConfig, Indices, Site, host_config};
use culvert_packet::craft::Ends;
use culvert_policy::Timeouts;
use culvert_softpath::next_hop::State;
use culvert_softpath::switch::{BURST, Pool, Switch, SwitchPort, SwitchSettings};
use culvert_softpath::{Handle, Limits, OffloadTarget as _, Settings, SlowPath};
use serde_json::{Value, json};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Measures new connections and ageing on this machine.
#[derive(Parser)]
struct Args {
    /// Print data instead of a table.
    #[arg(long)]
    json: bool,
    /// Connections that are opened.
    #[arg(long, default_value_t = 1_000_000)]
    connections: u32,
    /// Virtual machines that open them, each as many.
    #[arg(long, default_value_t = 4)]
    vports: u32,
    /// Flow records of the software path.
    #[arg(long, default_value_t = 1 << 22)]
    flows: u32,
    /// Seconds after which a connection without an answer ends.
    #[arg(long, default_value_t = 15)]
    timeout: u32,
    /// Seconds for which nothing happens but ageing; 0: ageing is not measured.
    #[arg(long, default_value_t = 10)]
    idle: u32,
    /// Measurements, each in a process of its own, of which the median counts.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// The processor that all threads share.
    #[arg(long, default_value_t = 1)]
    core: usize,
    /// Do not keep the connections in a file, as a daemon beside a NIC does not.
    #[arg(long)]
    no_file: bool,
    #[arg(long, hide = true)]
    child: bool,
}

/// The example whose policy is carried out.
const PAIR: &str = include_str!("../../../docs/examples/pair.json");
/// Where a daemon's run directory is: in memory.
const MEMORY: &str = "/dev/shm";
/// Time without progress after which packets count as lost.
const PATIENCE: Duration = Duration::from_secs(5);

fn main() {
    let args = Args::parse();
    if args.child {
        println!("{}", measure(&args));
        return;
    }
    let mut rows: Vec<Value> = (0..args.runs.max(1)).map(|_| child()).collect();
    rows.sort_by(|a, b| number(a, "us").total_cmp(&number(b, "us")));
    if args.json {
        println!("{}", json!({"connections": args.connections, "vports": args.vports, "runs": rows}));
        return;
    }
    println!(
        "{} connections from {} vports, {} flow records, one core, processor time of all threads",
        args.connections, args.vports, args.flows
    );
    let columns =
        ["new/s", "us", "feeder us", "allocs", "heap bytes", "lost", "idle %", "look us", "1M/180s %"];
    println!("{}", columns.map(|name| format!("{name:>11}")).concat());
    for row in &rows {
        let keys = ["rate", "us", "feederUs", "allocations", "bytes", "lost", "idle", "lookUs", "ageing"];
        println!("{}", keys.map(|key| format!("{:11.2}", number(row, key))).concat());
    }
    let median = &rows[rows.len() / 2];
    println!(
        "median: {:.0} new connections per second, {:.2} us each",
        number(median, "rate"),
        number(median, "us")
    );
}

fn number(row: &Value, key: &str) -> f64 {
    row[key].as_f64().unwrap_or(f64::NAN)
}

/// One measurement in a process of its own: tables and buffers are never given back.
fn child() -> Value {
    let program = std::env::current_exe().expect("this program has a name");
    let arguments = std::env::args_os().skip(1).filter(|a| a != "--json");
    let output = Command::new(program).args(arguments).arg("--child").output().expect("it can be started");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("its results")
}

/// Processor time of all threads, in microseconds.
fn used() -> f64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    now.tv_sec as f64 * 1e6 + now.tv_nsec as f64 / 1e3
}

/// The example's policy with more virtual machines like its first one.
fn policy(vports: u32) -> HostConfig {
    let mut documents: Value = serde_json::from_str(PAIR).expect("the example is JSON");
    let interfaces = documents["networkInterfaces"].as_array_mut().expect("it has interfaces");
    let first = interfaces[0].clone();
    interfaces.retain(|i| i["resourceId"] == "contoso-web");
    for n in 0..vports {
        let mut more = first.clone();
        more["resourceId"] = json!(format!("opening-{n}"));
        more["properties"]["privateMacAddress"] = json!(format!("001DD80701{n:02X}"));
        more["properties"]["ipConfigurations"][0]["properties"]["privateIPAddress"] =
            json!(format!("10.1.1.{}", 100 + n));
        interfaces.push(more);
    }
    let bundle = Bundle::from_value(&documents).expect("a policy").bundle;
    let fabric = Fabric::check(&bundle).expect("a policy without problems").fabric;
    let site = Site { host: "host1".to_owned(), entropy: work::secret(), vfs: 0, vmqs: 0 };
    host_config(Arc::new(fabric), &site, &mut Indices::default()).expect("enough numbers")
}

fn pin(core: usize) {
    let mut set = rustix::thread::CpuSet::new();
    set.set(core);
    rustix::thread::sched_setaffinity(None, &set).expect("there is such a processor");
}

fn measure(args: &Args) -> Value {
    pin(args.core);
    let config = policy(args.vports);
    let settings = SwitchSettings::new(args.flows.next_power_of_two(), work::secret());
    let switch = Arc::new(Switch::start(&settings).expect("memory for tables and packets"));
    let limits = Limits {
        timeouts: Timeouts { opening: args.timeout * 1000, ..Timeouts::default() },
        connections: args.flows as usize / 2,
        per_vport: (args.flows as usize / 4).min(500_000),
    };
    let dir = tempfile::tempdir_in(MEMORY).or_else(|_| tempfile::tempdir()).expect("a directory");
    let file = (!args.no_file).then(|| dir.path().join("culvertd.sock.connections"));
    let settings = Settings { limits, connections: file, ..Settings::default() };
    let slow = SlowPath::start(switch.clone(), settings).expect("a thread");
    let handle = slow.handle();
    let flood = Arc::new(Flood::default());
    let wire = Arc::clone(&flood);
    switch
        .attach(Port::Uplink(0), Box::new(move || Ok(Box::new(Wire::new(wire.clone())?))))
        .expect("it runs");
    handle.apply(config.snapshot.clone()).expect("a policy that can be carried out");
    let ends = ends(&config);
    let each = args.connections / args.vports;
    for (port, ends) in &ends {
        let (flood, ends) = (Arc::clone(&flood), *ends);
        let open = move || Ok(Box::new(Opening::new(flood.clone(), &ends, each)?) as Box<dyn SwitchPort>);
        switch.attach(*port, Box::new(open)).expect("it runs");
    }
    wait_for_next_hops(&handle);
    let feeder = feeder(&ends[0].1, args.connections);
    let (steal, bytes, count) = (disturbance().0, live_bytes(), allocations());
    let (before, begin) = (used(), Instant::now());
    let expected = u64::from(each * args.vports);
    flood.open.store(true, Relaxed);
    let left = wait_for(&flood, expected);
    let (us, wall) = ((used() - before) / expected as f64, begin.elapsed());
    let (count, bytes) = (allocations() - count, live_bytes().saturating_sub(bytes));
    let open = connections(&handle);
    let mut row = json!({
        "us": us - feeder, "rate": 1e6 / (us - feeder), "feederUs": feeder, "wallSeconds": wall.as_secs_f64(),
        "allocations": count as f64 / expected as f64, "bytes": bytes as f64 / expected as f64,
        "lost": expected - left, "open": open, "stealTicks": disturbance().0 - steal, "load": disturbance().1,
        "drops": drops(&switch),
    });
    if args.idle > 0 {
        let (before, begin) = (used(), Instant::now());
        std::thread::sleep(Duration::from_secs(args.idle.into()));
        row["idle"] = json!((used() - before) / begin.elapsed().as_micros() as f64 * 100.0);
        let look = looks(&handle, open, args.timeout);
        row["lookUs"] = json!(look);
        // In percent of a core, each of a million UDP connections being looked at every 180 seconds.
        row["ageing"] = json!(look * 1e6 / 180e6 * 100.0);
    }
    row
}

/// Where virtual machines send from, and to whom.
fn ends(config: &HostConfig) -> Vec<(Port, Ends)> {
    let to = std::net::IpAddr::from([10, 1, 1, 12]);
    let web = config.snapshot.mappings.iter().find(|m| m.ca == to).expect("it is mapped");
    let vports = config.snapshot.vports.iter();
    vports
        .map(|(id, v)| {
            let ends = Ends { src_mac: v.mac, dst_mac: web.mac, src: v.addresses[0], dst: web.ca };
            (Port::Vport(*id), ends)
        })
        .collect()
}

fn wait_for_next_hops(handle: &Handle) {
    let end = Instant::now() + PATIENCE;
    loop {
        let hops = handle.status().expect("it runs").next_hops;
        if !hops.is_empty() && hops.iter().all(|(_, state, _)| matches!(state, State::Resolved(_))) {
            return;
        }
        assert!(Instant::now() < end, "the next hop answers: {hops:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Waits until as many frames have left, or no more leave. Returns how many did.
fn wait_for(flood: &Flood, expected: u64) -> u64 {
    let (mut seen, mut since) = (0, Instant::now());
    while seen < expected && since.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(2));
        let left = flood.left.load(Relaxed);
        if left != seen {
            (seen, since) = (left, Instant::now());
        }
    }
    seen
}

/// Microseconds that the feeder and the wire take for each frame without a switch between them.
fn feeder(ends: &Ends, frames: u32) -> f64 {
    let mut pool = Pool::new(2 * BURST, 0).expect("memory");
    let flood = Arc::new(Flood::default());
    flood.open.store(true, Relaxed);
    let mut from = Opening::new(flood.clone(), ends, frames).expect("a descriptor");
    let mut to = Wire::new(flood).expect("a descriptor");
    let mut packets = Vec::with_capacity(BURST);
    let before = clock::ran();
    for _ in 0..frames.div_ceil(BURST as u32) {
        from.receive(&mut pool, &mut packets, BURST).expect("memory does not break");
        to.send(&mut pool, &mut packets).expect("memory does not break");
    }
    (clock::ran() - before) as f64 / 1e3 / f64::from(frames)
}

fn connections(handle: &Handle) -> usize {
    handle.status().expect("it runs").connections
}

/// Microseconds that a look at a connection whose time is over takes. There are two at each: at the first one the NIC has
/// counted a packet, and it lives on; after the second one it is gone.
fn looks(handle: &Handle, open: usize, timeout: u32) -> f64 {
    let before = used();
    let last = Instant::now() + Duration::from_secs(2 * u64::from(timeout) + 20);
    let mut left = open;
    while left > 0 && Instant::now() < last {
        std::thread::sleep(Duration::from_millis(100));
        left = connections(handle);
    }
    (used() - before) / (2 * (open - left)).max(1) as f64
}

fn drops(switch: &Switch) -> Value {
    let all = switch.drops().unwrap_or_default();
    all.into_iter().map(|(reason, n)| (reason.as_str().to_owned(), json!(n))).collect()
}
