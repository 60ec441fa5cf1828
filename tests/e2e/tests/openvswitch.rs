//! Interoperability of the software switch with Open vSwitch: VXLAN, NVGRE in its GRE port, and a provider network that is a VLAN.
#![forbid(unsafe_code)]

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use culvert_e2e::deployment::Deployment;
use culvert_e2e::kernel_vm::KernelVm;
use culvert_e2e::netns;
use culvert_e2e::network::Network;
use culvert_e2e::openvswitch::OpenVswitch;
use culvert_e2e::policies::{figure8, on_one_vlan};
use culvert_e2e::tshark::Capture;
use culvert_packet::Encap;
use serde_json::Value;

const SQL_MAC: &str = "00:1d:d8:07:00:11";
const WEB_MAC: &str = "00:1d:d8:07:00:12";
const SQL: &str = "10.1.1.11";
const WEB: &str = "10.1.1.12";
/// Provider address of host 1, which runs Culvert.
const CULVERT: &str = "192.168.1.10";
/// Ethernet's, which with all outer headers fits the provider network's 1600 bytes.
const MTU: u16 = 1500;
const MIB: usize = 1 << 20;

/// Flows that pass all packets between the VM and the tunnel.
const ALL: [&str; 2] = ["in_port=web,actions=output:tunnel", "in_port=tunnel,actions=output:web"];
/// Flows for NVGRE, which is GRE with a key to Open vSwitch. RFC 7637 section 3.2: the upper 24 bits of the key are the VSID,
/// here 5001; the lower 8 are the FlowID, which the sender chooses: 0 here, any on receipt.
const NVGRE: [&str; 2] = [
    "in_port=web,actions=set_field:0x138900->tun_id,output:tunnel",
    "in_port=tunnel,tun_id=0x138900/0xffffff00,actions=output:web",
];

/// Host 1 runs Culvert, with Contoso's SQL server on a TAP. Host 2 runs Open vSwitch, with its Web server on an internal port.
struct Testbed {
    // Dropped in this order: Open vSwitch ends before the namespace of host 2.
    _ovs: OpenVswitch,
    d: Deployment,
    sql: KernelVm,
    web: KernelVm,
}

/// What a testbed is built from.
struct Plan<'a> {
    policy: Value,
    /// Type and options of the tunnel's port.
    tunnel: &'a str,
    /// Flows of the VM's bridge.
    flows: [&'a str; 2],
    /// Provider address of host 2, which runs Open vSwitch.
    ovs: &'a str,
    /// VLAN of the provider network.
    vlan: Option<u16>,
}

impl Plan<'_> {
    fn routed(encap: Encap, tunnel: &'static str, flows: [&'static str; 2]) -> Self {
        Plan { policy: figure8(encap).unwrap(), tunnel, flows, ovs: "192.168.2.20", vlan: None }
    }
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

impl Testbed {
    fn new(plan: Plan<'_>) -> Self {
        netns::enter().unwrap();
        let d = Deployment::builder(plan.policy).hosts(1).software([0]).foreign(1).capture().start().unwrap();
        let ovs = OpenVswitch::start(d.network(), 2, d.dir()).unwrap();

        // The outer bridge has the uplink, and the provider address on its local port. Tunnel packets leave through the bridge
        // that has the address, and enter the tunnel when they reach it.
        let (uplink, local) = (Network::interface(2, 0), plan.ovs);
        ovs.configure(&format!(
            "-- add-br outer -- set bridge outer datapath_type=netdev -- add-port outer {uplink} \
             -- add-br inner -- set bridge inner datapath_type=netdev fail_mode=secure \
             -- add-port inner web -- set interface web type=internal \
             -- add-port inner tunnel -- set interface tunnel {} options:remote_ip={CULVERT} options:local_ip={local}",
            plan.tunnel
        ))
        .unwrap();
        let host = |command: &[&str]| d.network().host(2, command).unwrap();
        host(&["ip", "addr", "add", &format!("{local}/24"), "dev", "outer"]);
        host(&["ip", "link", "set", "outer", "up"]);
        if let Some(vlan) = plan.vlan {
            // One subnet: the uplinks of both hosts are on the bridge of host 1. The uplink's port is a trunk.
            for port in ["r2u0", "r2u1"] {
                d.network().router(&["ip", "link", "set", port, "master", "br1"]).unwrap();
            }
            ovs.configure(&format!("set port outer tag={vlan}")).unwrap();
        } else {
            host(&["ip", "route", "add", "default", "via", "192.168.2.1"]);
        }
        ovs.until_routed(address(CULVERT), "outer").unwrap();
        ovs.set_flows("inner", &plan.flows).unwrap();

        let sql = d.kernel_vm(0, "contoso-sql", &format!("{SQL}/24")).unwrap();
        let web = KernelVm::new(false).unwrap();
        host(&["ip", "link", "set", "web", "address", WEB_MAC, "netns", &web.id()]);
        web.configure("web", MTU, &[&format!("{WEB}/24")]).unwrap();
        // A static neighbour: Culvert suppresses ARP, so no request crosses the tunnel.
        web.run(&["ip", "neigh", "add", SQL, "lladdr", SQL_MAC, "dev", "web"]).unwrap();
        Testbed { _ovs: ovs, d, sql, web }
    }

    /// Pings and sends streams both ways; the largest packet that fits, one byte more, and a fragmented one.
    fn talk(&self) {
        let (sql, web) = (address(SQL), address(WEB));
        // Open vSwitch queues no packet while it resolves a next hop's MAC.
        let first = (0..20).any(|_| self.web.ping(sql, 1, &["-W", "1"]).is_ok());
        assert!(first, "no answer through the tunnel");
        for (from, to) in [(&self.sql, web), (&self.web, sql)] {
            from.ping(to, 5, &[]).unwrap();
            from.ping(to, 2, &["-M", "do", "-s", "1472"]).unwrap();
            from.ping(to, 2, &["-M", "do", "-s", "1473"]).unwrap_err();
            from.ping(to, 2, &["-s", "4000"]).unwrap();
        }
        self.sql.transfer(&self.web, SocketAddr::new(web, 5000), 24 * MIB).unwrap();
        self.web.transfer(&self.sql, SocketAddr::new(sql, 5000), 24 * MIB).unwrap();
        let drops = self.d.drops(0).unwrap();
        assert!(drops.keys().all(|reason| reason == "arp_suppressed"), "{drops:?}");
    }

    /// The capture of uplink 0 of host 1, complete and without malformed frames.
    fn capture(&mut self) -> Capture {
        // Time for the last frames to arrive.
        std::thread::sleep(Duration::from_millis(500));
        self.d.end_captures().unwrap();
        let capture = Capture::new(self.d.capture(0, 0));
        assert_eq!(capture.problems().unwrap(), Vec::<String>::new());
        capture
    }
}

/// tshark's filter for the packets of one host.
fn from(address: &str, filter: &str) -> String {
    format!("ip.src == {address} && {filter}")
}

#[test]
fn tenants_exchange_traffic_over_vxlan() {
    for (tunnel, checksums) in [
        ("type=vxlan options:key=5001 options:csum=false", false),
        ("type=vxlan options:key=5001 options:csum=true", true),
    ] {
        let mut bed = Testbed::new(Plan::routed(Encap::Vxlan, tunnel, ALL));
        bed.talk();
        let capture = bed.capture();
        let count = |address, filter| capture.count(&from(address, filter)).unwrap();
        // RFC 7348 section 5: the field is 0 without a checksum; `capture` has verified the others.
        const VNI: &str = "vxlan.vni == 5001";
        const BARE: &str = "vxlan.vni == 5001 && udp.checksum == 0 && udp.dstport == 4789";
        assert!(count(CULVERT, VNI) > 100);
        assert_eq!(count(CULVERT, BARE), count(CULVERT, VNI));
        assert!(count("192.168.2.20", VNI) > 100);
        assert_eq!(count("192.168.2.20", BARE), if checksums { 0 } else { count("192.168.2.20", VNI) });
    }
}

#[test]
fn tenants_exchange_traffic_over_nvgre() {
    let mut bed = Testbed::new(Plan::routed(Encap::Nvgre, "type=gre options:key=flow", NVGRE));
    bed.talk();
    let capture = bed.capture();
    // RFC 7637 section 3.2: no checksum, a key, no sequence number; version 0; Transparent Ethernet Bridging.
    let wire = "gre.flags_and_version == 0x2000 && gre.proto == 0x6558";
    for (address, filter) in
        [(CULVERT, "gre.key >= 0x138900 && gre.key <= 0x1389ff"), ("192.168.2.20", "gre.key == 0x138900")]
    {
        let sent = capture.count(&from(address, "gre")).unwrap();
        assert!(sent > 100);
        assert_eq!(capture.count(&from(address, &format!("{wire} && {filter}"))).unwrap(), sent);
    }
    // The FlowID depends on the flow: pings and both streams do not all have the same.
    let rows = capture.fields(&from(CULVERT, "gre"), &["gre.key"]).unwrap();
    let keys: std::collections::BTreeSet<_> = rows.concat().into_iter().collect();
    assert!(keys.len() > 1, "{keys:?}");
}

/// Each switch adds and removes the tag itself: the test needs no VLAN devices of the kernel.
#[test]
fn the_provider_network_is_a_vlan() {
    let mut policy = figure8(Encap::Vxlan).unwrap();
    on_one_vlan(&mut policy, 100);
    let tunnel = "type=vxlan options:key=5001";
    let mut bed = Testbed::new(Plan { policy, tunnel, flows: ALL, ovs: "192.168.1.20", vlan: Some(100) });
    bed.talk();
    let capture = bed.capture();
    for address in [CULVERT, "192.168.1.20"] {
        assert!(capture.count(&from(address, "vlan.id == 100 && vxlan.vni == 5001")).unwrap() > 100);
    }
    assert_eq!(capture.count("vxlan && !vlan").unwrap(), 0);
}
