//! Interoperability of the software switch with the kernel's VXLAN device on a foreign host.
#![forbid(unsafe_code)]

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use culvert_e2e::address;
use culvert_e2e::deployment::Deployment;
use culvert_e2e::kernel_vm::KernelVm;
use culvert_e2e::netns;
use culvert_e2e::policies::{figure8, on_one_vlan};
use culvert_e2e::tshark::Capture;
use culvert_packet::Encap;
use serde_json::{Value, json};

const SQL_MAC: &str = "00:1d:d8:07:00:11";
const WEB_MAC: &str = "00:1d:d8:07:00:12";
/// Inner MTU: Ethernet's, which fits the provider network's 1600 bytes with the outer headers.
const MTU: u16 = 1500;
const MIB: usize = 1 << 20;

/// Host 1 runs Culvert, with Contoso's SQL server on a TAP. Host 2 is Linux with a VXLAN device, and has its Web server.
struct Testbed {
    d: Deployment,
    sql: KernelVm,
    web: KernelVm,
}

/// What a testbed is built from.
struct Plan<'a> {
    policy: Value,
    /// Options of the VXLAN device.
    vxlan: &'a [&'a str],
    /// Addresses of SQL and Web.
    addresses: [&'a str; 2],
}

impl Plan<'_> {
    fn ipv4(vxlan: &'static [&'static str]) -> Self {
        let policy = figure8(Encap::Vxlan).unwrap();
        Plan { policy, vxlan, addresses: ["10.1.1.11/24", "10.1.1.12/24"] }
    }
}

fn address(prefix: &str) -> IpAddr {
    address::host(prefix).unwrap()
}

impl Testbed {
    fn new(plan: Plan<'_>) -> Self {
        netns::enter().unwrap();
        let d = Deployment::builder(plan.policy).hosts(1).software([0]).capture().start().unwrap();
        let router = |command: &[&str]| d.network().router(command).unwrap();
        // Host 2's provider address, and its end of the tunnel.
        router(&["ip", "addr", "add", "192.168.2.20/24", "dev", "br2"]);
        let device = ["ip", "link", "add", "vx", "address", WEB_MAC, "mtu", "1500", "type", "vxlan", "id"];
        let tunnel = ["5001", "local", "192.168.2.20", "dstport", "4789", "nolearning"];
        router(&[&device[..], &tunnel, plan.vxlan].concat());
        router(&["bridge", "fdb", "append", SQL_MAC, "dev", "vx", "dst", "192.168.1.10"]);

        let sql = d.kernel_vm(0, "contoso-sql", plan.addresses[0]).unwrap();
        let web = KernelVm::new(address(plan.addresses[1]).is_ipv6()).unwrap();
        router(&["ip", "link", "set", "vx", "netns", &web.id()]);
        web.configure("vx", MTU, &[plan.addresses[1]]).unwrap();
        // A static neighbour: Culvert suppresses ARP, so no request crosses the tunnel.
        let sql_address = address(plan.addresses[0]).to_string();
        web.run(&["ip", "neigh", "add", &sql_address, "lladdr", SQL_MAC, "dev", "vx"]).unwrap();
        Testbed { d, sql, web }
    }

    /// The capture of uplink 0 of host 1, complete.
    fn capture(&mut self) -> Capture {
        // Time for the last frames to arrive.
        std::thread::sleep(Duration::from_millis(500));
        self.d.end_captures().unwrap();
        Capture::new(self.d.capture(0, 0))
    }
}

/// Pings and sends streams both ways.
fn talk(sql: &KernelVm, web: &KernelVm, addresses: [&str; 2]) {
    let [sql_address, web_address] = addresses.map(address);
    sql.ping(web_address, 5, &[]).unwrap();
    web.ping(sql_address, 5, &[]).unwrap();
    sql.transfer(web, SocketAddr::new(web_address, 5000), 24 * MIB).unwrap();
    web.transfer(sql, SocketAddr::new(sql_address, 5000), 24 * MIB).unwrap();
}

#[test]
fn tenants_reach_a_linux_host() {
    for options in [&["noudpcsum"][..], &["udpcsum"]] {
        let plan = Plan::ipv4(options);
        let addresses = plan.addresses;
        let mut bed = Testbed::new(plan);
        talk(&bed.sql, &bed.web, addresses);

        let (sql, web) = (address(addresses[0]), address(addresses[1]));
        // The largest packet that fits, one byte more, and a fragmented one.
        for (from, to) in [(&bed.sql, web), (&bed.web, sql)] {
            from.ping(to, 2, &["-M", "do", "-s", "1472"]).unwrap();
            from.ping(to, 2, &["-M", "do", "-s", "1473"]).unwrap_err();
            from.ping(to, 2, &["-s", "4000"]).unwrap();
        }
        // The VM's large frames are looked up once and segmented at the uplink.
        let counters = bed.d.cli(0, &["counters"]).unwrap();
        let wire = |way: &str| counters["uplinks"]["uplink0"][way].as_u64().unwrap();
        let passed = wire("inPackets") + wire("outPackets");
        assert!(counters["nic"]["finished"].as_u64().unwrap() < passed * 9 / 10, "{counters}");
        let drops = bed.d.drops(0).unwrap();
        assert!(drops.keys().all(|reason| reason == "arp_suppressed"), "{drops:?}");
        let capture = bed.capture();
        let from_culvert = "ip.src == 192.168.1.10 && vxlan.vni == 5001";
        assert!(capture.count(from_culvert).unwrap() > 100);
        // RFC 7348 section 5: Culvert sends an outer UDP checksum of 0; tshark verifies all others.
        assert_eq!(
            capture.count(&format!("{from_culvert} && udp.checksum == 0 && udp.dstport == 4789")).unwrap(),
            { capture.count(from_culvert).unwrap() }
        );
        let wrong = "ip.src == 192.168.1.10 && (ip.checksum.status == 0 || tcp.checksum.status == 0)";
        assert_eq!(capture.count(wrong).unwrap(), 0);
    }
}

#[test]
fn ecn_is_copied_to_the_outer_header() {
    let plan = Plan::ipv4(&["noudpcsum", "tos", "inherit"]);
    let web = address(plan.addresses[1]);
    let mut bed = Testbed::new(plan);
    // RFC 6040 section 4.1: encapsulation copies the inner ECN field to the outer header.
    for ecn in ["0", "1", "2", "3"] {
        bed.sql.ping(web, 2, &["-Q", ecn]).unwrap();
    }
    let capture = bed.capture();
    let rows = capture.fields("vxlan && icmp.type == 8", &["ip.dsfield.ecn"]).unwrap();
    let mut seen: Vec<String> = rows.into_iter().map(|row| row.concat()).collect();
    seen.dedup();
    assert_eq!(seen, ["0,0", "1,1", "2,2", "3,3"]);
}

#[test]
fn tenants_use_ipv6() {
    let mut policy = figure8(Encap::Vxlan).unwrap();
    let network = &mut policy["virtualNetworks"][0]["properties"];
    network["addressSpace"]["addressPrefixes"] = json!(["fd00:1::/32"]);
    network["subnets"][0]["properties"]["addressPrefix"] = json!("fd00:1:1::/64");
    let addresses = ["fd00:1:1::11/64", "fd00:1:1::12/64"];
    for interface in policy["networkInterfaces"].as_array_mut().unwrap() {
        let own = match interface["resourceId"].as_str().unwrap() {
            "contoso-sql" => addresses[0],
            "contoso-web" => addresses[1],
            _ => continue,
        };
        interface["properties"]["ipConfigurations"][0]["properties"]["privateIPAddress"] =
            address(own).to_string().into();
    }
    let bed = Testbed::new(Plan { policy, vxlan: &["noudpcsum"], addresses });
    talk(&bed.sql, &bed.web, addresses);
}

/// Two Culvert hosts on one bridge, which carries the tags: the test needs no VLAN devices of the kernel.
#[test]
fn the_provider_network_may_be_a_vlan() {
    netns::enter().unwrap();
    let mut policy = figure8(Encap::Vxlan).unwrap();
    on_one_vlan(&mut policy, 100);
    let mut d = Deployment::builder(policy).software([0, 1]).capture().start().unwrap();
    for uplink in ["r2u0", "r2u1"] {
        d.network().router(&["ip", "link", "set", uplink, "master", "br1"]).unwrap();
    }
    let addresses = ["10.1.1.11/24", "10.1.1.12/24"];
    let sql = d.kernel_vm(0, "contoso-sql", addresses[0]).unwrap();
    let web = d.kernel_vm(1, "contoso-web", addresses[1]).unwrap();
    talk(&sql, &web, addresses);
    std::thread::sleep(Duration::from_millis(500));
    d.end_captures().unwrap();
    let capture = Capture::new(d.capture(0, 0));
    assert!(capture.count("vlan.id == 100 && vxlan.vni == 5001").unwrap() > 100);
    assert_eq!(capture.count("vxlan && !vlan").unwrap(), 0);
    assert_eq!(capture.problems().unwrap(), Vec::<String>::new());
}
