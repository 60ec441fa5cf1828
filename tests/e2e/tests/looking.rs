//! What an operator sees of a running host: flows with true idle times, filters, flushes, rule hits and metrics.
#![forbid(unsafe_code)]

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use culvert_e2e::address;
use culvert_e2e::deployment::Deployment;
use culvert_e2e::netns;
use culvert_e2e::policies::{figure8, one_uplink};
use culvert_packet::Encap;
use serde_json::Value;

const SQL: &str = "10.1.1.11/24";
const WEB: &str = "10.1.1.12/24";
const LIMIT: Duration = Duration::from_secs(20);

fn host(prefix: &str) -> IpAddr {
    address::host(prefix).unwrap()
}

fn flows(d: &Deployment, filters: &str) -> Vec<Value> {
    let arguments: Vec<&str> = std::iter::once("flows").chain(filters.split_whitespace()).collect();
    d.cli(0, &arguments).unwrap().as_array().unwrap().clone()
}

fn number(value: &Value, field: &str) -> u64 {
    value[field].as_u64().unwrap_or_else(|| panic!("{field} of {value}"))
}

/// The metrics of a host.
fn metrics(d: &Deployment, host: usize) -> String {
    let mut stream = UnixStream::connect(d.run_dir(host).join("api.sock")).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream
        .write_all(b"GET /culvert/v1/metrics HTTP/1.1\r\nhost: culvertd\r\nconnection: close\r\n\r\n")
        .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
    text
}

#[test]
fn flows_rules_and_metrics_tell_what_happened() {
    netns::enter().unwrap();
    let mut policy = figure8(Encap::Vxlan).unwrap();
    one_uplink(&mut policy);
    let d = Deployment::builder(policy).hosts(2).software(0..2).kernel_addresses().start().unwrap();
    let (sql, web) =
        (d.kernel_vm(0, "contoso-sql", SQL).unwrap(), d.kernel_vm(1, "contoso-web", WEB).unwrap());
    sql.transfer(&web, SocketAddr::new(host(WEB), 5000), 1 << 20).unwrap();
    let before_pings = Instant::now();
    sql.ping(host(WEB), 3, &[]).unwrap();
    let pinged = Instant::now();

    // Idle times are those of the packets.
    std::thread::sleep(Duration::from_millis(400));
    let slept = pinged.elapsed().as_millis() as u64;
    let icmp = flows(&d, "--protocol icmp");
    assert_eq!(icmp.len(), 2, "echo requests and replies: {icmp:?}");
    let most = before_pings.elapsed().as_millis() as u64;
    for flow in &icmp {
        let idle = number(flow, "idleMs");
        // The switch's clock may be a tick behind.
        assert!(
            (slept.saturating_sub(150)..=most).contains(&idle),
            "{idle} ms, of {slept} to {most}: {flow}"
        );
    }

    // Filters and orders.
    let tcp = flows(&d, "--protocol tcp --port 5000 --address 10.1.1.12");
    assert_eq!(tcp.len(), 2, "{tcp:?}");
    assert_eq!(flows(&d, "--port 5001").len() + flows(&d, "--address 10.1.2.0/24").len(), 0);
    assert_eq!(flows(&d, "--state offloaded"), Vec::<Value>::new());
    let sorted: Vec<u64> = flows(&d, "--sort bytes").iter().map(|flow| number(flow, "bytes")).collect();
    assert!(sorted.len() > 3 && sorted.is_sorted_by(|a, b| a >= b), "{sorted:?}");
    let talkers = flows(&d, "--top 1");
    assert_eq!((talkers.len(), &talkers[0]["source"]), (1, &Value::from("10.1.1.11")), "{talkers:?}");
    let error = d.cli(0, &["flows", "--address", "10.1.1"]).unwrap_err();
    assert!(error.contains("10.1.1.0/24"), "names what an address is: {error}");

    // A flushed record is made again by the next packet, and the connection stays.
    let connections = || number(&d.cli(0, &["counters"]).unwrap()["connections"], "used");
    let known = connections();
    let flushed = d.cli(0, &["flows", "flush", "--protocol", "icmp"]).unwrap();
    assert_eq!(number(&flushed, "flushed"), 2);
    assert_eq!(flows(&d, "--protocol icmp"), Vec::<Value>::new());
    assert_eq!((flows(&d, "--protocol tcp").len(), connections()), (2, known));
    sql.ping(host(WEB), 1, &[]).unwrap();
    assert_eq!(flows(&d, "--protocol icmp").len(), 2);

    // Rules, on the host that checks them.
    let telnet = SocketAddr::new(host(WEB), 23);
    let refused =
        sql.within(move || Ok(TcpStream::connect_timeout(&telnet, Duration::from_millis(500)).is_err()));
    assert!(refused.unwrap());
    let rules = d.cli(1, &["policy", "rules"]).unwrap();
    let hits = |direction: &str, rule: &str| {
        let found =
            rules.as_array().into_iter().flatten().find(|r| r["direction"] == direction && r["rule"] == rule);
        number(found.unwrap_or_else(|| panic!("{direction} {rule}: {rules}")), "hits")
    };
    assert!(hits("inbound", "deny-telnet") >= 1 && hits("inbound", "default") >= 2, "{rules}");
    assert_eq!(hits("outbound", "default"), 0, "the answers of what was allowed are not decided: {rules}");

    // One vport, and the metrics.
    let vport = d.cli(0, &["vport", "show", "contoso-sql"]).unwrap();
    assert_eq!(d.cli(0, &["vport", "show", &vport["id"].to_string()]).unwrap()["name"], "contoso-sql");
    let text = metrics(&d, 0);
    for line in [
        format!("culvert_vport_up{{vport=\"{}\",name=\"contoso-sql\"}} 1", vport["id"]),
        "culvert_uplink_up{uplink=\"0\"} 1".to_owned(),
        "culvert_flow_records_capacity 131072".to_owned(),
        "culvert_worker_vports{worker=\"0\"} 2".to_owned(),
    ] {
        assert!(text.lines().any(|known| known == line), "{line} is missing in {text}");
    }
    assert!(metrics(&d, 1).contains("rule=\"deny-telnet\"} "), "hits are metrics");
}
