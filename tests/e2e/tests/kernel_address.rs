//! A plain Linux host: the provider address is the kernel's own, and all its other traffic stays what it was.
#![forbid(unsafe_code)]

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use culvert_e2e::deployment::{Config, Deployment, figure8};
use culvert_e2e::kernel_vm::KernelVm;
use culvert_e2e::netns;
use culvert_e2e::tshark::Capture;
use culvert_packet::Encap;
use serde_json::Value;

const SQL: &str = "10.1.1.11/24";
const WEB: &str = "10.1.1.12/24";
const LIMIT: Duration = Duration::from_secs(20);

/// Figure 8 with one uplink for each host.
fn policy(encap: Encap) -> Value {
    let mut policy = figure8(encap).unwrap();
    for server in policy["servers"].as_array_mut().unwrap() {
        server["properties"]["networkInterfaces"].as_array_mut().unwrap().truncate(1);
    }
    policy
}

fn config() -> Config {
    Config {
        software: vec![0, 1],
        kernel_addresses: true,
        capture: true,
        ..Config::two_hosts(policy(Encap::Vxlan))
    }
}

fn start() -> Deployment {
    netns::enter().unwrap();
    Deployment::start(&config()).unwrap()
}

fn vm(d: &Deployment, host: usize, name: &str, ip: &str) -> KernelVm {
    let (vm, tap) = (KernelVm::new(false).unwrap(), d.vport(host, name).unwrap().tap.unwrap());
    d.network().host(host + 1, &["ip", "link", "set", &tap, "netns", &vm.id()]).unwrap();
    vm.configure(&tap, 1500, &[ip]).unwrap();
    vm
}

fn list(value: &Value) -> Vec<Value> {
    value.as_array().unwrap().clone()
}

fn address(prefix: &str) -> IpAddr {
    prefix.split('/').next().unwrap().parse().unwrap()
}

#[test]
fn a_host_gives_its_own_address_to_the_overlay_and_keeps_it() {
    gives_its_own_address_and_keeps_it(start());
}

#[test]
fn also_through_xdp_sockets() {
    netns::enter().unwrap();
    let root = rustix::process::getuid().is_root();
    if !root {
        eprintln!("skipped: XDP programs are root's");
        return;
    }
    let config = Config { driver: Some("af-xdp"), ..config() };
    gives_its_own_address_and_keeps_it(Deployment::start(&config).unwrap());
}

fn gives_its_own_address_and_keeps_it(mut d: Deployment) {
    let (sql, web) = (vm(&d, 0, "contoso-sql", SQL), vm(&d, 1, "contoso-web", WEB));
    for encap in [Encap::Vxlan, Encap::Nvgre] {
        d.change_policy(&policy(encap)).unwrap();
        sql.ping(address(WEB), 5, &[]).unwrap();
        sql.transfer(&web, SocketAddr::new(address(WEB), 5000), 16 << 20).unwrap();
        web.transfer(&sql, SocketAddr::new(address(SQL), 5000), 16 << 20).unwrap();
    }
    // The second host has two workers, and a virtual machine for each.
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
    // What is not the overlay's reaches the kernel, and its answers leave.
    let host = |command: &[&str]| d.network().host(2, command).unwrap();
    host(&["ping", "-c", "3", "-i", "0.05", "192.168.1.10"]);
    d.network().router(&["ping", "-c", "3", "-i", "0.05", "192.168.2.20"]).unwrap();

    std::thread::sleep(Duration::from_millis(500));
    d.end_captures().unwrap();
    for n in 0..2 {
        let capture = Capture::new(d.capture(n, 0));
        assert!(capture.count("vxlan.vni == 5001").unwrap() > 100);
        assert!(capture.count("gre.proto == 0x6558").unwrap() > 100);
        // The kernel has seen nothing of it: it complains about none of its packets (RFC 792, type 3).
        assert_eq!(capture.count("icmp.type == 3").unwrap(), 0);
        assert_eq!(capture.problems().unwrap(), Vec::<String>::new());
    }
    let drops = d.drops(0).unwrap();
    assert!(drops.keys().all(|reason| reason == "arp_suppressed"), "{drops:?}");
}

/// Whether a datagram to the VXLAN port of host 1's address is complained about by its kernel.
fn complains(d: &Deployment) -> bool {
    let path = format!("/proc/{}/ns/net", d.network().holder(None));
    let probe = move || -> std::io::Result<bool> {
        let namespace = std::fs::File::open(path)?;
        let kind = rustix::thread::LinkNameSpaceType::Network;
        rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&namespace), Some(kind))?;
        let socket = UdpSocket::bind("192.168.1.1:0")?;
        socket.connect("192.168.1.10:4789")?;
        socket.set_read_timeout(Some(Duration::from_millis(300)))?;
        socket.send(b"no VXLAN")?;
        Ok(socket.recv(&mut [0; 16]).is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionRefused))
    };
    std::thread::spawn(probe).join().unwrap().unwrap()
}

#[test]
fn a_daemon_that_is_killed_leaves_nothing_behind_and_finds_everything_again() {
    let mut d = start();
    let (sql, web) = (vm(&d, 0, "contoso-sql", SQL), vm(&d, 1, "contoso-web", WEB));
    sql.ping(address(WEB), 3, &[]).unwrap();
    assert!(!complains(&d), "what the overlay takes the kernel does not see");
    d.kill_daemon(0);
    d.until(LIMIT, "the kernel has its traffic back", |d| Ok(complains(d))).unwrap();
    // The TAP was taken into the VM's namespace: to be found again it goes back.
    let back = d.network().holder(Some(1)).to_string();
    sql.run(&["ip", "link", "set", "vport0", "netns", &back]).unwrap();
    d.start_daemon(0).unwrap();
    d.network().host(1, &["ip", "link", "set", "vport0", "netns", &sql.id()]).unwrap();
    sql.configure("vport0", 1500, &[SQL]).unwrap();
    sql.ping(address(WEB), 3, &[]).unwrap();
    sql.transfer(&web, SocketAddr::new(address(WEB), 5000), 4 << 20).unwrap();
    assert!(!complains(&d));
}

#[test]
fn a_policy_for_another_address_says_what_to_do() {
    let d = start();
    let mut other = policy(Encap::Vxlan);
    other["servers"][0]["properties"]["networkInterfaces"][0]["properties"]["providerAddress"] =
        "192.168.1.77".into();
    std::fs::write(d.dir().join("other.json"), other.to_string()).unwrap();
    let path = d.dir().join("other.json").display().to_string();
    let said = d.cli(0, &["policy", "apply", &path]);
    let text = said.map_or_else(|e| e, |v| v.to_string());
    for word in ["192.168.1.77", "h1u0", "ip addr add", "--provider-address own"] {
        assert!(text.contains(word), "no {word} in {text}");
    }
    // It comes into force as soon as the address is there.
    d.network().host(1, &["ip", "addr", "add", "192.168.1.77/24", "dev", "h1u0"]).unwrap();
    d.until(LIMIT, "in force", |d| {
        let nic = d.cli(0, &["nic", "show"])?;
        Ok(nic["uplinks"][0]["providerAddress"] == "192.168.1.77")
    })
    .unwrap();
}

/// Whether a host carries its policy out: it has a link, and its VM a port.
fn works(d: &Deployment) -> Result<bool, String> {
    let (nic, vports) = (d.cli(0, &["nic", "show"])?, d.cli(0, &["vport", "list"])?);
    let up = |list: &Value| list.as_array().is_some_and(|all| all.iter().any(|v| v["state"] == "up"));
    Ok(nic["uplinks"][0]["link"] == true && up(&vports))
}

#[test]
fn the_unit_has_the_capabilities_that_are_needed_and_no_more() {
    netns::enter().unwrap();
    let unit = include_str!("../../../docs/systemd/culvertd.service");
    let granted = unit.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet=")).unwrap();
    let all: Vec<String> =
        granted.split(' ').map(|cap| cap.trim_start_matches("CAP_").to_lowercase()).collect();
    let d = Deployment::start(&Config {
        hosts: 1,
        software: vec![0],
        capabilities: Some(all.clone()),
        ..config()
    });
    let d = d.unwrap();
    d.until(LIMIT, "carried out", works).unwrap();
    drop(d);
    for missing in &all {
        let rest = all.iter().filter(|cap| *cap != missing).cloned().collect();
        let config = Config { hosts: 1, software: vec![0], capabilities: Some(rest), ..config() };
        // What cannot be carried out is told when the policy is applied, or does not come up.
        let refused = match Deployment::start(&config) {
            Err(_) => true,
            Ok(d) => {
                std::thread::sleep(Duration::from_secs(2));
                !works(&d).unwrap()
            }
        };
        assert!(refused, "it does without {missing}");
    }
}
