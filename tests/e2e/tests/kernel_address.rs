//! A software host whose provider address is the kernel's: the kernel keeps all its other traffic.
#![forbid(unsafe_code)]

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use culvert_e2e::address;
use culvert_e2e::deployment::{Builder, Deployment};
use culvert_e2e::kernel_vm::KernelVm;
use culvert_e2e::netns;
use culvert_e2e::policies::{figure8, one_uplink};
use culvert_e2e::tshark::Capture;
use culvert_packet::Encap;
use serde_json::Value;

const SQL: &str = "10.1.1.11/24";
const WEB: &str = "10.1.1.12/24";
const LIMIT: Duration = Duration::from_secs(20);

/// Figure 8 with one uplink for each host.
fn policy(encap: Encap) -> Value {
    let mut policy = figure8(encap).unwrap();
    one_uplink(&mut policy);
    policy
}

/// So many software hosts with kernel addresses.
fn hosts(n: usize) -> Builder {
    Deployment::builder(policy(Encap::Vxlan)).hosts(n).software(0..n).kernel_addresses().capture()
}

fn start() -> Deployment {
    netns::enter().unwrap();
    hosts(2).start().unwrap()
}

fn vm(d: &Deployment, host: usize, name: &str, ip: &str) -> KernelVm {
    d.kernel_vm(host, name, ip).unwrap()
}

fn list(value: &Value) -> Vec<Value> {
    value.as_array().unwrap().clone()
}

fn address(prefix: &str) -> IpAddr {
    address::host(prefix).unwrap()
}

#[test]
fn overlay_and_kernel_share_the_address_by_packet_sockets() {
    shares_its_address_with_the_overlay(start());
}

#[test]
fn overlay_and_kernel_share_the_address_by_xdp_sockets() {
    netns::enter().unwrap();
    let root = rustix::process::getuid().is_root();
    if !root {
        return culvert_skip::skip("XDP programs need root");
    }
    shares_its_address_with_the_overlay(hosts(2).driver("af-xdp").start().unwrap());
}

fn shares_its_address_with_the_overlay(mut d: Deployment) {
    let (sql, web) = (vm(&d, 0, "contoso-sql", SQL), vm(&d, 1, "contoso-web", WEB));
    for encap in [Encap::Vxlan, Encap::Nvgre] {
        d.change_policy(&policy(encap)).unwrap();
        sql.ping(address(WEB), 5, &[]).unwrap();
        sql.transfer(&web, SocketAddr::new(address(WEB), 5000), 16 << 20).unwrap();
        web.transfer(&sql, SocketAddr::new(address(SQL), 5000), 16 << 20).unwrap();
    }
    // Host 2 has two workers, and a vport for each.
    let counters = d.cli(1, &["counters"]).unwrap();
    assert_eq!(
        [0, 1].map(|n| counters["workers"][n.to_string()]["vports"].as_u64()),
        [Some(1); 2],
        "{counters}"
    );
    let mut workers: Vec<_> =
        list(&d.cli(1, &["vport", "list"]).unwrap()).iter().map(|v| v["worker"].as_u64()).collect();
    workers.sort_unstable();
    assert_eq!(workers, [Some(0), Some(1)]);
    // Packets that are not the overlay's reach the kernel, and its answers leave.
    let host = |command: &[&str]| d.network().host(2, command).unwrap();
    host(&["ping", "-c", "3", "-i", "0.05", "192.168.1.10"]);
    d.network().router(&["ping", "-c", "3", "-i", "0.05", "192.168.2.20"]).unwrap();

    std::thread::sleep(Duration::from_millis(500));
    d.end_captures().unwrap();
    for n in 0..2 {
        let capture = Capture::new(d.capture(n, 0));
        assert!(capture.count("vxlan.vni == 5001").unwrap() > 100);
        assert!(capture.count("gre.proto == 0x6558").unwrap() > 100);
        // The kernel has not seen the overlay's packets: it sent no ICMP errors for them (RFC 792, type 3).
        assert_eq!(capture.count("icmp.type == 3").unwrap(), 0);
        assert_eq!(capture.problems().unwrap(), Vec::<String>::new());
    }
    let drops = d.drops(0).unwrap();
    assert!(drops.keys().all(|reason| reason == "arp_suppressed"), "{drops:?}");
}

/// Whether the kernel of host 1 answers a VXLAN packet of host 2 and a VSID of the policy with an ICMP error.
fn kernel_rejects_vxlan(d: &Deployment) -> bool {
    let probe = || -> std::io::Result<bool> {
        let socket = UdpSocket::bind("192.168.2.20:0")?;
        socket.connect("192.168.1.10:4789")?;
        socket.set_read_timeout(Some(Duration::from_millis(300)))?;
        // VNI 5001, and no frame.
        socket.send(&[8, 0, 0, 0, 0, 0x13, 0x89, 0])?;
        Ok(socket.recv(&mut [0; 16]).is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionRefused))
    };
    d.network().host_namespace(2).unwrap().within(probe).unwrap()
}

#[test]
fn a_killed_daemon_leaves_no_filters_behind_and_its_successor_adopts_the_ports() {
    let mut d = start();
    let (sql, web) = (vm(&d, 0, "contoso-sql", SQL), vm(&d, 1, "contoso-web", WEB));
    sql.ping(address(WEB), 3, &[]).unwrap();
    assert!(!kernel_rejects_vxlan(&d), "the kernel sees packets of the overlay");
    d.kill_daemon(0);
    d.until(LIMIT, "rejected by the kernel", |d| Ok(kernel_rejects_vxlan(d))).unwrap();
    d.unplug(0, "vport0", &sql).unwrap();
    d.start_daemon(0).unwrap();
    d.plug(0, "contoso-sql", &sql, SQL).unwrap();
    sql.ping(address(WEB), 3, &[]).unwrap();
    sql.transfer(&web, SocketAddr::new(address(WEB), 5000), 4 << 20).unwrap();
    assert!(!kernel_rejects_vxlan(&d));
}

#[test]
fn a_bridged_vm_reaches_the_overlay_and_keeps_doing_so_when_the_daemon_is_killed() {
    let mut d = start();
    let (sql, web) = (d.bridge(0, "contoso-sql", "br0", SQL).unwrap(), vm(&d, 1, "contoso-web", WEB));
    let shown = |d: &Deployment| d.network().host(1, &["ip", "link", "show", "vport0"]).unwrap();
    let mac = |shown: &str| shown.split("link/ether ").nth(1).unwrap()[..17].to_owned();
    let before = shown(&d);
    assert!(before.contains("master br0"), "{before}");
    let (tap, info) = (mac(&before), d.vport(0, "contoso-sql").unwrap());
    assert_ne!(tap, info.mac);
    for _ in 0..2 {
        sql.ping(address(WEB), 5, &[]).unwrap();
        web.ping(address(SQL), 5, &[]).unwrap();
        sql.transfer(&web, SocketAddr::new(address(WEB), 5000), 4 << 20).unwrap();
        web.transfer(&sql, SocketAddr::new(address(SQL), 5000), 4 << 20).unwrap();
        d.kill_daemon(0);
        d.start_daemon(0).unwrap();
        d.until_vport(0, "contoso-sql", "up", LIMIT).unwrap();
        let after = shown(&d);
        assert!(mac(&after) == tap && after.contains("master br0"), "{after}");
    }
    sql.ping(address(WEB), 5, &[]).unwrap();
    // The bridge has learned the VM at its own port, and knows no other place for it.
    let learned = d.network().host(1, &["bridge", "fdb", "show", "br", "br0"]).unwrap();
    let places: Vec<&str> = learned.lines().filter(|line| line.starts_with(&info.mac)).collect();
    assert!(!places.is_empty() && places.iter().all(|line| line.contains("dev br0p")), "{learned}");
}

#[test]
fn the_error_for_a_missing_address_says_what_to_do() {
    let d = start();
    let mut other = policy(Encap::Vxlan);
    other["servers"][0]["properties"]["networkInterfaces"][0]["properties"]["providerAddress"] =
        "192.168.1.77".into();
    std::fs::write(d.dir().join("other.json"), other.to_string()).unwrap();
    let path = d.dir().join("other.json").display().to_string();
    let said = d.cli(0, &["policy", "apply", "--no-wait", &path]);
    let text = said.map_or_else(|e| e, |v| v.to_string());
    for word in ["192.168.1.77", "h1u0", "ip addr add", "--provider-address own"] {
        assert!(text.contains(word), "no {word} in {text}");
    }
    // The policy takes effect as soon as the kernel has the address.
    d.network().host(1, &["ip", "addr", "add", "192.168.1.77/24", "dev", "h1u0"]).unwrap();
    d.until(LIMIT, "in effect", |d| {
        let nic = d.cli(0, &["nic", "show"])?;
        Ok(nic["uplinks"][0]["providerAddress"] == "192.168.1.77")
    })
    .unwrap();
}

/// Whether host 1 has applied its policy: its uplink has a link, and its vport is up.
fn works(d: &Deployment) -> Result<bool, String> {
    let (nic, vports) = (d.cli(0, &["nic", "show"])?, d.cli(0, &["vport", "list"])?);
    let up = |list: &Value| list.as_array().is_some_and(|all| all.iter().any(|v| v["state"] == "up"));
    Ok(nic["uplinks"][0]["link"] == true && up(&vports))
}

#[test]
fn the_systemd_unit_grants_exactly_the_needed_capabilities() {
    netns::enter().unwrap();
    let unit = include_str!("../../../docs/systemd/culvertd.service");
    let granted = unit.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet=")).unwrap();
    let all: Vec<String> =
        granted.split(' ').map(|cap| cap.trim_start_matches("CAP_").to_lowercase()).collect();
    let d = hosts(1).capabilities(all.clone()).start().unwrap();
    d.until(LIMIT, "applied", works).unwrap();
    drop(d);
    for missing in &all {
        let rest = all.iter().filter(|cap| *cap != missing).cloned();
        // Without the capability, the policy is refused or the ports do not come up.
        let refused = match hosts(1).capabilities(rest).start() {
            Err(_) => true,
            Ok(d) => {
                std::thread::sleep(Duration::from_secs(2));
                !works(&d).unwrap()
            }
        };
        assert!(refused, "{missing} is not needed");
    }
}
