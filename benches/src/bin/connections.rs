//! New connections per second of the software switch on one core, and the cost of aging: a switch and its slow path as the daemon
//! runs them, with a policy of the control plane, between ports in memory.

#![forbid(unsafe_code)]

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use clap::Parser;
use culvert_benches::allocations::{Counting, allocations, live_bytes};
use culvert_benches::clock::{self, disturbance};
use culvert_benches::flood::{Flood, SynPort, WirePort};
use culvert_benches::policy::{EXAMPLE, config_of, wait_for_next_hops};
use culvert_benches::work;
use culvert_flow::Port;
use culvert_model::HostConfig;
use culvert_offload::DeviceInfo as _;
use culvert_packet::craft::Ends;
use culvert_policy::Timeouts;
use culvert_slowpath::{Handle, Limits, Settings, SlowPath};
use culvert_switch::{BURST, Pool, Switch, SwitchPort, SwitchSettings};
use serde_json::{Value, json};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Measures new connections and aging on this machine.
#[derive(Parser)]
struct Args {
    /// Print data instead of a table.
    #[arg(long)]
    json: bool,
    /// Number of connections.
    #[arg(long, default_value_t = 1_000_000)]
    connections: u32,
    /// VMs that open them, an equal share each.
    #[arg(long, default_value_t = 4)]
    vports: u32,
    /// Flow records of the switch.
    #[arg(long, default_value_t = 1 << 22)]
    flows: u32,
    /// Seconds after which a connection without an answer expires.
    #[arg(long, default_value_t = 15)]
    timeout: u32,
    /// Seconds of aging without traffic; 0: do not measure aging.
    #[arg(long, default_value_t = 10)]
    idle: u32,
    /// Runs, each in a process of its own; the median counts.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// The processor of all threads.
    #[arg(long, default_value_t = 1)]
    core: usize,
    /// Do not save the connections in a file, like a daemon with a NIC.
    #[arg(long)]
    no_file: bool,
    #[arg(long, hide = true)]
    child: bool,
}

/// A directory in memory, as a daemon's run directory.
const MEMORY: &str = "/dev/shm";
/// Time without progress after which missing packets count as lost.
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
        ["new/s", "us", "feeder us", "allocs", "heap bytes", "lost", "idle %", "check us", "1M/180s %"];
    println!("{}", columns.map(|name| format!("{name:>11}")).concat());
    for row in &rows {
        let keys = ["rate", "us", "feederUs", "allocations", "bytes", "lost", "idle", "checkUs", "ageing"];
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

/// One run in a child process, since tables and buffers are never freed.
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

/// The example's policy with more VMs like its first one.
fn policy(vports: u32) -> HostConfig {
    let mut documents: Value = serde_json::from_str(EXAMPLE).expect("the example is JSON");
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
    config_of(&documents).expect("a valid policy")
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
    let settings = Settings { limits, connection_file: file, ..Settings::default() };
    let slow = SlowPath::start(switch.clone(), settings).expect("a thread");
    let handle = slow.handle();
    let flood = Arc::new(Flood::default());
    let wire = Arc::clone(&flood);
    switch
        .attach(Port::Uplink(0), Box::new(move || Ok(Box::new(WirePort::new(wire.clone())?))))
        .expect("it runs");
    handle.apply(config.snapshot.clone()).expect("a policy that can be applied");
    let ends = ends(&config);
    let each = args.connections / args.vports;
    for (port, ends) in &ends {
        let (flood, ends) = (Arc::clone(&flood), *ends);
        let open = move || Ok(Box::new(SynPort::new(flood.clone(), &ends, each)?) as Box<dyn SwitchPort>);
        switch.attach(*port, Box::new(open)).expect("it runs");
    }
    wait_for_next_hops(&handle).expect("the next hop answers");
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
        let check = expiry_cost(&handle, open, args.timeout);
        row["checkUs"] = json!(check);
        // Percent of a core to check each of a million UDP connections every 180 seconds.
        row["ageing"] = json!(check * 1e6 / 180e6 * 100.0);
    }
    row
}

/// The ports of the VMs, and the addresses of their connections.
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

/// Waits until `expected` frames have left, or no more leave. Returns their number.
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

/// Microseconds per frame of the SYN port and the wire, without a switch.
fn feeder(ends: &Ends, frames: u32) -> f64 {
    let mut pool = Pool::new(2 * BURST, 0).expect("memory");
    let flood = Arc::new(Flood::default());
    flood.open.store(true, Relaxed);
    let mut from = SynPort::new(flood.clone(), ends, frames).expect("a descriptor");
    let mut to = WirePort::new(flood).expect("a descriptor");
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

/// Microseconds to check an expired connection. Each is checked twice: at the first check the datapath has counted a packet, so the
/// connection stays; at the second it is removed.
fn expiry_cost(handle: &Handle, open: usize, timeout: u32) -> f64 {
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
