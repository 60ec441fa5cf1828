//! What looking costs on a switch with many vports: the time of a scrape and of a list of vports, and what both do to a ping
//! between two of the vports. Each is a TAP; the daemon is a process of its own.
#![forbid(unsafe_code)]

use std::io::{Read, Write};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use culvert_benches::clock::disturbance;
use culvert_benches::ovs_dpdk::session::exit;
use culvert_e2e::deployment::Deployment;
use culvert_e2e::kernel_vm::KernelVm;
use culvert_e2e::netns;
use culvert_e2e::policies::{figure8, one_uplink};
use culvert_packet::Encap;
use serde_json::{Value, json};

/// Measures what looking at a switch costs on this machine.
#[derive(Parser)]
struct Args {
    /// Print data instead of a table.
    #[arg(long)]
    json: bool,
    /// Vports of the switch.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u16).range(2..=1000))]
    vports: u16,
    /// How often each view is read.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    looks: u32,
    /// Pings in each run, 10 ms apart.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(10..=100_000))]
    pings: u32,
    /// Interleaved runs of the ping without and with scrapes.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=99))]
    runs: u16,
}

/// Between two scrapes beside a ping.
const BETWEEN_SCRAPES: Duration = Duration::from_millis(500);
/// Longest wait for an answer of the daemon.
const LIMIT: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    exit(run(&Args::parse()))
}

/// The policy of figure 8 with one host and so many vports.
fn policy(vports: u16) -> Result<Value, String> {
    let mut policy = figure8(Encap::Vxlan)?;
    one_uplink(&mut policy);
    policy["virtualNetworks"][0]["properties"]["subnets"][0]["properties"]["addressPrefix"] =
        "10.1.0.0/16".into();
    let mut interfaces = Vec::new();
    for n in 0..vports {
        let mut interface = policy["networkInterfaces"][0].clone();
        interface["resourceId"] = format!("vm{n}").into();
        let properties = &mut interface["properties"];
        properties["privateMacAddress"] = format!("001DD807{n:04X}").into();
        properties["softwarePort"] = "tap".into();
        properties["ipConfigurations"][0]["properties"]["privateIPAddress"] = ip(n).to_string().into();
        interfaces.push(interface);
    }
    policy["networkInterfaces"] = interfaces.into();
    Ok(policy)
}

fn ip(n: u16) -> IpAddr {
    [10, 1, 1 + (n / 250) as u8, 1 + (n % 250 + 1) as u8].into()
}

/// Reads a view of the daemon. Returns how long that took.
fn look(socket: &Path, view: &str) -> Result<Duration, String> {
    let failed = |e: std::io::Error| format!("{view}: {e}");
    let begin = Instant::now();
    let mut stream = UnixStream::connect(socket).map_err(failed)?;
    stream.set_read_timeout(Some(LIMIT)).map_err(failed)?;
    write!(stream, "GET /culvert/v1/{view} HTTP/1.1\r\nhost: culvertd\r\nconnection: close\r\n\r\n")
        .map_err(failed)?;
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).map_err(failed)?;
    let time = begin.elapsed();
    if reply.starts_with(b"HTTP/1.1 200 ") {
        return Ok(time);
    }
    Err(format!("{view}: {}", String::from_utf8_lossy(&reply).chars().take(300).collect::<String>()))
}

/// Median and maximum of a view's times.
fn times(socket: &Path, view: &str, looks: u32) -> Result<[f64; 2], String> {
    let mut all: Vec<Duration> = (0..looks).map(|_| look(socket, view)).collect::<Result<_, _>>()?;
    all.sort_unstable();
    Ok([all[all.len() / 2], all[all.len() - 1]].map(|time| time.as_secs_f64() * 1e3))
}

/// Average and maximum round-trip time of a run of pings, in milliseconds.
fn ping(vm: &KernelVm, to: IpAddr, count: u32) -> Result<[f64; 2], String> {
    let (count, to) = (count.to_string(), to.to_string());
    let said = vm.run(&["ping", "-q", "-c", &count, "-i", "0.01", &to])?;
    // rtt min/avg/max/mdev = 0.041/0.052/0.171/0.012 ms, pipe 2
    let line = said.lines().find(|line| line.starts_with("rtt ")).ok_or_else(|| said.clone())?;
    let numbers: Vec<f64> = line
        .split(" = ")
        .nth(1)
        .into_iter()
        .flat_map(|part| part.split(" ms").take(1).flat_map(|part| part.split('/')))
        .filter_map(|number| number.parse().ok())
        .collect();
    match numbers[..] {
        [_, average, most, _] if said.contains(" 0% packet loss") => Ok([average, most]),
        _ => Err(said),
    }
}

/// The same beside a scrape every half second.
fn ping_beside_scrapes(vm: &KernelVm, to: IpAddr, count: u32, socket: &Path) -> Result<[f64; 2], String> {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let scraper = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                look(socket, "metrics")?;
                std::thread::sleep(BETWEEN_SCRAPES);
            }
            Ok::<(), String>(())
        });
        let measured = ping(vm, to, count);
        stop.store(true, Ordering::Relaxed);
        scraper.join().map_err(|_| "the scraper panicked")??;
        measured
    })
}

fn run(args: &Args) -> Result<(), String> {
    netns::enter()?;
    let (policy, few) = (policy(args.vports)?, policy(2)?);
    let builder = Deployment::builder(few).hosts(1).software(0..1).kernel_addresses();
    let deployment = builder.start()?;
    deployment.change_policy(&policy)?;
    let socket = deployment.run_dir(0).join("api.sock");
    let end = Instant::now() + LIMIT;
    while deployment.vports(0)?.iter().filter(|vport| vport.tap.is_some()).count() < args.vports.into() {
        if Instant::now() > end {
            return Err("the vports do not come".to_owned());
        }
    }
    let vm = |n: u16| deployment.kernel_vm(0, &format!("vm{n}"), &format!("{}/16", ip(n)));
    let vms = [vm(0)?, vm(1)?];
    ping(&vms[0], ip(1), 20)?;
    let steal = disturbance().0;
    let scrape = times(&socket, "metrics", args.looks)?;
    let list = times(&socket, "vports", args.looks)?;
    let counters = times(&socket, "counters", args.looks)?;
    let mut samples = [Vec::new(), Vec::new()];
    for _ in 0..args.runs {
        samples[0].push(ping(&vms[0], ip(1), args.pings)?);
        samples[1].push(ping_beside_scrapes(&vms[0], ip(1), args.pings, &socket)?);
    }
    let (after, load) = disturbance();
    // Of each run the average and the maximum; of the runs the median.
    let [alone, beside] = samples.map(|samples| {
        [0, 1].map(|n| {
            let mut values: Vec<f64> = samples.iter().map(|sample| sample[n]).collect();
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        })
    });
    if args.json {
        let pair = |[first, most]: [f64; 2]| json!({"typicalMs": first, "maximumMs": most});
        println!(
            "{}",
            json!({"vports": args.vports, "looks": args.looks, "pings": args.pings, "runs": args.runs,
                "stealTicks": after - steal, "load": load, "scrape": pair(scrape), "vportList": pair(list),
                "counters": pair(counters), "ping": pair(alone), "pingBesideScrapes": pair(beside)})
        );
        return Ok(());
    }
    println!("{} vports; milliseconds", args.vports);
    println!("{:24} {:>8} {:>8}", "", "typical", "maximum");
    for (name, [first, most]) in [
        ("scrape of the metrics", scrape),
        ("list of vports", list),
        ("counters", counters),
        ("ping", alone),
        ("ping beside scrapes", beside),
    ] {
        println!("{name:24} {first:8.2} {most:8.2}");
    }
    println!("{} ticks stolen, load {load}", after - steal);
    Ok(())
}
