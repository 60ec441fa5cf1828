//! What large and hostile documents cost the daemon, and a change of one rule of many: its REST on a UNIX socket, over a packet path
//! that takes every configuration.

#![forbid(unsafe_code)]

use std::error::Error;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use culvert_agent::{Agent, Datapath, DatapathError, Store, bind_unix, rest, serve};
use culvert_api::view::{
    CountersView, DropsView, FlowQuery, FlowView, NicInfo, TraceReply, TraceRequest, VportView,
};
use culvert_benches::policy::EXAMPLE;
use culvert_model::HostConfig;
use serde_json::{Value, json};
use tokio::sync::watch;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Measures the daemon's API on this machine.
#[derive(Parser)]
struct Args {
    /// Print data instead of tables.
    #[arg(long)]
    json: bool,
    /// Length of a hostile body, in bytes.
    #[arg(long, default_value_t = 8 << 20)]
    bytes: usize,
    /// Rules of the list of which one changes.
    #[arg(long, default_value_t = 10_000)]
    rules: usize,
    /// Network interfaces of the host.
    #[arg(long, default_value_t = 1_000)]
    interfaces: usize,
    /// Changes; the median counts.
    #[arg(long, default_value_t = 5)]
    changes: usize,
}

/// A packet path that takes every configuration.
struct Nothing;

impl Datapath for Nothing {
    fn apply(&self, _: Arc<HostConfig>) -> std::result::Result<(), DatapathError> {
        Ok(())
    }

    fn nic(&self) -> std::result::Result<NicInfo, DatapathError> {
        Ok(NicInfo::default())
    }

    fn vports(&self) -> std::result::Result<Vec<VportView>, DatapathError> {
        Ok(Vec::new())
    }

    fn flows(&self, _: &FlowQuery) -> std::result::Result<Vec<FlowView>, DatapathError> {
        Ok(Vec::new())
    }

    fn counters(&self) -> std::result::Result<CountersView, DatapathError> {
        Ok(CountersView::default())
    }

    fn drops(&self) -> std::result::Result<DropsView, DatapathError> {
        Ok(DropsView::default())
    }

    fn trace(&self, _: &TraceRequest) -> std::result::Result<TraceReply, DatapathError> {
        Err(DatapathError::Invalid { detail: "there are no packets here".into() })
    }
}

fn main() -> Result<()> {
    let args = Args::parse();
    let directory = tempfile::tempdir()?;
    let runtime = tokio::runtime::Runtime::new()?;
    let store = Store::open(directory.path())?;
    let agent = Agent::start("host1", store, Arc::new(Nothing))?;
    let socket = directory.path().join("api.sock");
    let (stop, stopped) = watch::channel(false);
    let unix = runtime.block_on(bind_unix(&socket))?;
    let served = runtime.spawn(serve(rest::router(agent), unix, None, stopped));
    let bodies = hostile(&socket, args.bytes)?;
    let changes = changes(&socket, &args)?;
    stop.send(true)?;
    runtime.block_on(served)??;
    if args.json {
        println!("{}", json!({ "bodies": bodies, "changes": changes }));
        return Ok(());
    }
    println!("{:<28} {:>12} {:>12} {:>8} {:>8}", "body", "peak MiB", "x body", "answer", "ms");
    for body in &bodies {
        let (name, answer) = (body["name"].as_str().unwrap_or_default(), &body["answer"]);
        let (peak, times, ms) = (number(&body["peakMiB"]), number(&body["timesBody"]), number(&body["ms"]));
        println!("{name:<28} {peak:>12.1} {times:>12.2} {answer:>8} {ms:>8.0}");
    }
    println!();
    for change in &changes {
        println!("{:<52} {:>8.0} ms", change["name"].as_str().unwrap_or_default(), number(&change["ms"]));
    }
    Ok(())
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_default()
}

/// Sends bodies that are nothing but large. The client's copy is made before memory is measured.
fn hostile(socket: &Path, bytes: usize) -> Result<Vec<Value>> {
    let filled = |start: &str, part: &str, end: &str| {
        let count = bytes.saturating_sub(start.len() + end.len()) / (part.len() + 1);
        format!("{start}{}{end}", vec![part; count].join(","))
    };
    let names: Vec<String> = (0..bytes / 11).map(|n| format!("\"{n:06}\":0")).collect();
    let names = format!("{{\"servers\":[{{\"resourceId\":\"a\",{}}}]}}", names.join(","));
    let mut out = Vec::new();
    for (name, body) in [
        ("zeros", filled("[", "0", "]")),
        ("zeros as servers", filled("{\"servers\":[", "0", "]}")),
        ("arrays", filled("{\"servers\":[", "[]", "]}")),
        ("objects", filled("{\"servers\":[", "{}", "]}")),
        ("unknown names", names),
        ("zero bytes", "\0".repeat(bytes)),
    ] {
        // Forgets the peak so far.
        std::fs::write("/proc/self/clear_refs", "5")?;
        let before = status("VmRSS")?;
        let (started, answer) =
            (Instant::now(), post(socket, "POST", "/culvert/v1/bundle", body.as_bytes())?);
        let ms = started.elapsed().as_secs_f64() * 1e3;
        let peak = (status("VmHWM")?.saturating_sub(before)) as f64;
        out.push(json!({
            "name": name, "bytes": body.len(), "peakMiB": peak / f64::from(1 << 20),
            "timesBody": peak / body.len() as f64, "answer": answer.len(), "ms": ms,
        }));
    }
    Ok(out)
}

/// A line of this process's status, in bytes.
fn status(name: &str) -> Result<usize> {
    let text = std::fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':')).ok_or("no such line")?;
    let kib: usize = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib << 10)
}

/// The time of a change of one rule: of the rule by its path, and of the whole policy in which it differs.
fn changes(socket: &Path, args: &Args) -> Result<Vec<Value>> {
    let mut policy: Value = serde_json::from_str(EXAMPLE)?;
    let rule = |n: usize, port: usize| {
        json!({ "resourceId": format!("rule{n}"), "properties": {
            "type": "Inbound", "priority": n + 1, "protocol": "TCP", "action": "Allow",
            "destinationPortRange": port.to_string(),
        }})
    };
    let rules: Vec<Value> = (0..args.rules).map(|n| rule(n, 80)).collect();
    policy["accessControlLists"][0]["properties"]["aclRules"] = rules.into();
    let list = policy["accessControlLists"][0]["resourceId"].as_str().unwrap_or_default().to_owned();
    let network = &mut policy["virtualNetworks"][0];
    let reference = json!({ "resourceRef": format!("/virtualNetworks/{}/subnets/many", network["resourceId"].as_str().unwrap_or_default()) });
    network["properties"]["addressSpace"] = Value::Null;
    let subnet = json!({ "resourceId": "many", "properties": {
        "addressPrefix": "10.9.0.0/16", "virtualSubnetId": 9_000,
        "accessControlList": { "resourceRef": format!("/accessControlLists/{list}") },
    }});
    network["properties"]["subnets"].as_array_mut().ok_or("no subnets")?.push(subnet);
    let interfaces = policy["networkInterfaces"].as_array_mut().ok_or("no interfaces")?;
    for n in 0..args.interfaces {
        let (high, low) = ((n + 10) >> 8, (n + 10) & 255);
        interfaces.push(json!({ "resourceId": format!("many{n}"), "properties": {
            "privateMacAddress": format!("001DD90{n:05X}"), "offload": "software",
            "server": { "resourceRef": "/servers/host1" },
            "ipConfigurations": [{ "resourceId": "ip", "properties": {
                "privateIPAddress": format!("10.9.{high}.{low}"), "subnet": reference.clone(),
            }}],
        }}));
    }
    let (started, path) = (Instant::now(), "/culvert/v1/bundle?force=true");
    let answer = post(socket, "POST", path, policy.to_string().as_bytes())?;
    if !answer.contains("\"applied\":true") {
        return Err(
            format!("the policy is refused: {}", answer.chars().take(2_000).collect::<String>()).into()
        );
    }
    let what = format!("{} rules and {} interfaces", args.rules, args.interfaces);
    let mut out = vec![json!({ "name": format!("first policy with {what}"), "ms": ms(started.elapsed()) })];
    let mut times = (Vec::new(), Vec::new());
    for change in 0..args.changes {
        let changed = rule(args.rules / 2, 1_000 + change).to_string();
        let at = format!("/networking/v1/accessControlLists/{list}/aclRules/rule{}", args.rules / 2);
        let started = Instant::now();
        post(socket, "PUT", &at, changed.as_bytes())?;
        times.0.push(started.elapsed());
        policy["accessControlLists"][0]["properties"]["aclRules"][args.rules / 2] =
            rule(args.rules / 2, 2_000 + change);
        let text = policy.to_string();
        let started = Instant::now();
        post(socket, "POST", path, text.as_bytes())?;
        times.1.push(started.elapsed());
    }
    for (name, times) in
        [("one rule by its path", &mut times.0), ("the policy with one rule changed", &mut times.1)]
    {
        times.sort();
        let median = times.get(times.len() / 2).copied().unwrap_or_default();
        out.push(json!({ "name": name, "ms": ms(median) }));
    }
    Ok(out)
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Sends a request; returns the answer's body.
fn post(socket: &Path, method: &str, path: &str, body: &[u8]) -> Result<String> {
    let mut stream = UnixStream::connect(PathBuf::from(socket))?;
    stream.set_read_timeout(Some(Duration::from_secs(120)))?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: culvertd\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )?;
    stream.write_all(body)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
}
