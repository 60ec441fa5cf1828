//! Other tunnels of a host whose provider address is the kernel's: Linux's VXLAN device and GRE on the address, port and peers of
//! the overlay keep their packets, and the overlay keeps its own.
#![forbid(unsafe_code)]

use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::num::NonZeroU32;
use std::os::fd::OwnedFd;
use std::time::Duration;

use culvert_e2e::address;
use culvert_e2e::deployment::Deployment;
use culvert_e2e::netns;
use culvert_e2e::policies::{figure8, one_uplink};
use culvert_packet::Encap;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with,
};
use rustix::time::Timespec;
use serde_json::Value;

const SQL: &str = "10.1.1.11/24";
const WEB: &str = "10.1.1.12/24";
/// Provider addresses of the two hosts.
const PAS: [&str; 2] = ["192.168.1.10", "192.168.2.20"];
/// Pings of the overlay that go on, 10 ms apart, while policies change.
const PINGS: u32 = 400;
const LIMIT: Duration = Duration::from_secs(20);

fn policy(encap: Encap) -> Value {
    let mut policy = figure8(encap).unwrap();
    one_uplink(&mut policy);
    policy
}

/// The policy without the tenant Fabrikam, whose VSID is 6001.
fn without_fabrikam(encap: Encap) -> Value {
    let mut policy = policy(encap);
    for resources in ["virtualNetworks", "networkInterfaces"] {
        let all = policy[resources].as_array_mut().unwrap();
        all.retain(|resource| !resource["resourceId"].as_str().unwrap().starts_with("fabrikam"));
    }
    policy
}

/// Gives both hosts a VXLAN device of the kernel's, on the overlay's address and port, with addresses in 172.16.`net`.0/24.
fn add_vxlan_devices(d: &Deployment, vni: u32, net: u8) {
    for (n, (local, remote)) in [(PAS[0], PAS[1]), (PAS[1], PAS[0])].into_iter().enumerate() {
        let host = n + 1;
        let run = |line: String| d.network().host(host, &line.split(' ').collect::<Vec<_>>()).unwrap();
        run(format!(
            "ip link add other{net} type vxlan id {vni} dstport 4789 local {local} remote {remote} dev h{host}u0"
        ));
        run(format!("ip addr add 172.16.{net}.{host}/24 dev other{net}"));
        run(format!("ip link set other{net} mtu 1450 up"));
    }
}

/// Pings the other host through the kernel's VXLAN device, in both directions: every answer comes, once.
fn ping_other_vxlan(d: &Deployment, net: u8) {
    for (host, other) in [(1, 2), (2, 1)] {
        let to = format!("172.16.{net}.{other}");
        let said = d.network().host(host, &["ping", "-c", "5", "-i", "0.05", "-W", "5", &to]).unwrap();
        assert!(said.contains("5 received") && !said.contains("DUP"), "{said}");
    }
}

/// Whether the kernel's VXLAN device of host 1 gets an answer.
fn has_other_vxlan(d: &Deployment, net: u8) -> bool {
    let to = format!("172.16.{net}.2");
    d.network().host(1, &["ping", "-c", "1", "-W", "1", &to]).is_ok()
}

/// A raw socket for GRE on a host.
fn gre_socket(d: &Deployment, host: usize) -> OwnedFd {
    let gre = NonZeroU32::new(47).map(Protocol::from_raw);
    let open = move || -> io::Result<OwnedFd> {
        Ok(socket_with(AddressFamily::INET, SocketType::RAW, SocketFlags::CLOEXEC, gre)?)
    };
    d.network().host_namespace(host).unwrap().within(open).unwrap()
}

/// Sends GRE packets of another tunnel: with another key, without a key, with a key and IP. Each arrives at the other host's
/// socket.
fn exchange_gre(sockets: &[OwnedFd; 2]) {
    let packets: [&[u8]; 4] = [
        &[0x20, 0, 0x65, 0x58, 0, 0, 0, 7, 1, 2, 3, 4],
        &[0x20, 0, 0x65, 0x58, 0, 0, 0x13, 0x89, 1, 2, 3, 4],
        &[0, 0, 8, 0, 5, 6, 7, 8],
        // The overlay's VSID, but not its protocol.
        &[0x20, 0, 8, 0, 0, 0x13, 0x89, 0, 9, 9, 9, 9],
    ];
    for (from, to) in [(0, 1), (1, 0)] {
        for packet in packets {
            let address: SocketAddrV4 = format!("{}:0", PAS[to]).parse().unwrap();
            sendto(&sockets[from], packet, SendFlags::empty(), &address).unwrap();
            let mut fds = [PollFd::new(&sockets[to], PollFlags::IN)];
            let limit = Timespec { tv_sec: LIMIT.as_secs() as i64, tv_nsec: 0 };
            assert_eq!(poll(&mut fds, Some(&limit)).unwrap(), 1, "{packet:x?} does not arrive");
            let mut got = [0; 200];
            let (len, _) = recv(&sockets[to], &mut got[..], RecvFlags::empty()).unwrap();
            // Behind the IP header.
            assert_eq!(&got[20..len], packet);
        }
    }
}

fn other_tunnels_keep_their_packets(driver: &'static str) {
    let builder = Deployment::builder(policy(Encap::Vxlan)).software(0..2).kernel_addresses();
    let mut d = builder.driver(driver).start().unwrap();
    let sql = d.kernel_vm(0, "contoso-sql", SQL).unwrap();
    let web = d.kernel_vm(1, "contoso-web", WEB).unwrap();
    let web_address = address::host(WEB).unwrap();
    sql.ping(web_address, 3, &[]).unwrap();
    add_vxlan_devices(&d, 77, 0);
    add_vxlan_devices(&d, 6001, 1);
    let sockets = [gre_socket(&d, 1), gre_socket(&d, 2)];
    ping_other_vxlan(&d, 0);
    exchange_gre(&sockets);
    assert!(!has_other_vxlan(&d, 1), "the policy has VSID 6001");
    // Where a kernel has a VXLAN socket, it may merge the overlay's packets before ports receive them.
    sql.transfer(&web, SocketAddr::new(web_address, 5000), 8 << 20).unwrap();

    let (count, to) = (PINGS.to_string(), web_address.to_string());
    std::thread::scope(|scope| {
        let pings = scope.spawn(|| sql.run(&["ping", "-c", &count, "-i", "0.01", "-W", "5", "-q", &to]));
        // What leaves the policy becomes the kernel's.
        d.change_policy(&without_fabrikam(Encap::Vxlan)).unwrap();
        ping_other_vxlan(&d, 1);
        ping_other_vxlan(&d, 0);
        d.change_policy(&policy(Encap::Vxlan)).unwrap();
        assert!(!has_other_vxlan(&d, 1), "the policy has VSID 6001 again");
        ping_other_vxlan(&d, 0);
        exchange_gre(&sockets);
        let said = pings.join().unwrap().unwrap();
        assert!(said.contains(" 0% packet loss") && !said.contains("duplicates"), "{said}");
    });
    d.change_policy(&without_fabrikam(Encap::Nvgre)).unwrap();
    sql.ping(web_address, 5, &[]).unwrap();
    exchange_gre(&sockets);
    ping_other_vxlan(&d, 1);
    // What is not ours was not counted either.
    for host in 0..2 {
        let drops = d.drops(host).unwrap();
        let ours =
            |reason: &String| ["arp_suppressed", "spoofed_mac", "unknown_vsid"].contains(&reason.as_str());
        assert!(drops.keys().all(ours), "{drops:?}");
        // The kernel's ARP asks on, once a second, while a tenant leaves: the pairs go after the policy.
        assert!(drops.get("unknown_vsid").is_none_or(|n| *n <= 2), "{drops:?}");
    }
    d.stop_daemon(0).unwrap();
    ping_other_vxlan(&d, 0);
    d.kill_daemon(1);
    ping_other_vxlan(&d, 0);
    exchange_gre(&sockets);
}

#[test]
fn other_tunnels_keep_their_packets_by_packet_sockets() {
    netns::enter().unwrap();
    other_tunnels_keep_their_packets("af-packet");
}

#[test]
fn other_tunnels_keep_their_packets_by_xdp_sockets() {
    netns::enter().unwrap();
    if !rustix::process::getuid().is_root() {
        eprintln!("skipped: XDP programs need root");
        return;
    }
    other_tunnels_keep_their_packets("af-xdp");
}
