//! A stock Linux VM on a host without a NIC: QEMU's vhost-user network device at the daemon's socket.
#![forbid(unsafe_code)]

use std::io::Read;
use std::net::{IpAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::Duration;

use culvert_e2e::deployment::{Config, Deployment, figure8};
use culvert_e2e::kernel_vm::KernelVm;
use culvert_e2e::linux_guest::{LinuxGuest, LinuxGuestConfig};
use culvert_e2e::netns;
use culvert_e2e::process::until;
use culvert_packet::Encap;

const BOOT: Duration = Duration::from_secs(120);
const LIMIT: Duration = Duration::from_secs(120);
const SQL: &str = "10.1.1.11/24";
const WEB: &str = "10.1.1.12/24";
const SQL_MAC: &str = "00:1d:d8:07:00:11";
const MIB: u64 = 1 << 20;
/// SHA-256 of 8 MiB of zeros.
const ZEROS_8_MIB: &str = "2daeb1f36095b44b318410b3f4e8b5d989dcc7bb023d1426c492dab0a3053e74";

/// Two hosts without NICs; Contoso's SQL server is to attach by vhost-user.
fn start() -> Deployment {
    netns::enter().unwrap();
    let mut policy = figure8(Encap::Vxlan).unwrap();
    let interfaces = policy["networkInterfaces"].as_array_mut().unwrap();
    let sql = interfaces.iter_mut().find(|i| i["resourceId"] == "contoso-sql").unwrap();
    sql["properties"]["softwarePort"] = "vhostUser".into();
    Deployment::start(&Config { software: vec![0, 1], ..Config::two_hosts(policy) }).unwrap()
}

fn tap(d: &Deployment, host: usize, name: &str, ip: &str) -> KernelVm {
    let (vm, tap) = (KernelVm::new(false).unwrap(), d.vport(host, name).unwrap().tap.unwrap());
    d.network().host(host + 1, &["ip", "link", "set", &tap, "netns", &vm.id()]).unwrap();
    vm.configure(&tap, 1500, &[ip]).unwrap();
    vm
}

fn socket(d: &Deployment) -> PathBuf {
    d.vport(0, "contoso-sql").unwrap().vhost_user.unwrap()
}

fn boot(d: &Deployment) -> LinuxGuest {
    let socket = socket(d);
    let config = LinuxGuestConfig {
        name: "linux",
        vfs: &[],
        vhost_user: Some((&socket, SQL_MAC)),
        ip: SQL,
        gateway: None,
    };
    let log = d.dir().join("linux.log");
    let mut guest = LinuxGuest::start(&LinuxGuest::folder().unwrap(), &config, &log).unwrap();
    let nic = guest.wait_up(BOOT).unwrap().nic.unwrap();
    assert_eq!((nic.mac.as_str(), nic.driver.as_str()), (SQL_MAC, "virtio_net"));
    guest
}

fn output(guest: &mut LinuxGuest, command: &str) -> String {
    let finished = guest.run(command, LIMIT).unwrap();
    assert_eq!(finished.status, 0, "{command}: {}", finished.text);
    finished.text.trim().to_owned()
}

fn state(d: &Deployment) -> Result<String, String> {
    let vports = d.cli(0, &["vport", "list"])?;
    let all = vports.as_array().cloned().unwrap_or_default();
    let sql = all.iter().find(|v| v["name"] == "contoso-sql");
    Ok(sql.and_then(|v| v["state"].as_str()).unwrap_or_default().to_owned())
}

fn web_address() -> IpAddr {
    "10.1.1.12".parse().unwrap()
}

/// Counts the zeros that come over one connection, and sees that there is nothing else.
fn sink(web: &KernelVm, port: u16) -> (Arc<AtomicU64>, JoinHandle<std::io::Result<()>>) {
    let listener = web.within(move || TcpListener::bind((web_address(), port))).unwrap();
    let count = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&count);
    let reader = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept()?;
        stream.set_read_timeout(Some(LIMIT))?;
        let mut some = vec![0; 1 << 16];
        loop {
            let n = stream.read(&mut some)?;
            assert!(some[..n].iter().all(|byte| *byte == 0), "not what was sent");
            if n == 0 {
                return Ok(());
            }
            counted.fetch_add(n as u64, SeqCst);
        }
    });
    (count, reader)
}

#[test]
fn a_stock_vm_talks_and_its_streams_outlive_a_killed_daemon() {
    let mut d = start();
    let web = tap(&d, 1, "contoso-web", WEB);
    assert_eq!(state(&d).unwrap(), "down");
    let mut guest = boot(&d);
    d.until(LIMIT, "up", |d| Ok(state(d)? == "up")).unwrap();

    let said = output(&mut guest, "ping -c 5 -i 0.2 -q 10.1.1.12");
    assert!(said.contains("5 packets received"), "{said}");
    web.ping("10.1.1.11".parse().unwrap(), 3, &["-s", "1472", "-M", "do"]).unwrap();
    let (count, reader) = sink(&web, 7000);
    output(&mut guest, "dd if=/dev/zero bs=65536 count=128 2>/dev/null | nc 10.1.1.12 7000");
    reader.join().unwrap().unwrap();
    assert_eq!(count.load(SeqCst), 8 * MIB);
    output(
        &mut guest,
        "(nc -l -p 7001 < /dev/null | sha256sum > /tmp/new; mv /tmp/new /tmp/sum) & \
         until netstat -ltn | grep -q :7001; do sleep 0.1; done",
    );
    let send = move || {
        let mut stream = std::net::TcpStream::connect("10.1.1.11:7001")?;
        std::io::Write::write_all(&mut stream, &vec![0; 8 << 20])
    };
    web.within(send).unwrap();
    let sum = output(&mut guest, "until [ -e /tmp/sum ]; do sleep 0.1; done; cat /tmp/sum");
    assert_eq!(sum.split_whitespace().next(), Some(ZEROS_8_MIB));

    // In the middle of a stream the daemon is gone, and comes back: QEMU attaches again, and the stream goes on.
    let (count, reader) = sink(&web, 7002);
    output(
        &mut guest,
        "(dd if=/dev/zero bs=65536 count=1024 2>/dev/null | nc 10.1.1.12 7002; touch /tmp/done) \
         > /dev/null 2>&1 < /dev/null &",
    );
    until(LIMIT, "some of it there", || count.load(SeqCst) > 4 * MIB);
    d.kill_daemon(0);
    assert!(count.load(SeqCst) < 64 * MIB, "it was over before the daemon was killed");
    d.start_daemon(0).unwrap();
    reader.join().unwrap().unwrap();
    assert_eq!(count.load(SeqCst), 64 * MIB);
    output(&mut guest, "until [ -e /tmp/done ]; do sleep 0.1; done");
    let drops = d.drops(0).unwrap();
    assert!(drops.keys().all(|reason| reason == "arp_suppressed"), "{drops:?}");
    guest.power_off(LIMIT).unwrap();
    d.until(LIMIT, "down", |d| Ok(state(d)? == "down")).unwrap();
}

#[test]
fn a_vm_that_is_killed_harms_nobody_and_another_takes_its_place() {
    let d = start();
    let web = tap(&d, 1, "contoso-web", WEB);
    let neighbours = (tap(&d, 0, "fabrikam-sql", SQL), tap(&d, 1, "fabrikam-web", WEB));
    let mut guest = boot(&d);
    let (count, reader) = sink(&web, 7000);
    output(
        &mut guest,
        "(dd if=/dev/zero bs=65536 count=4096 2>/dev/null | nc 10.1.1.12 7000) > /dev/null 2>&1 &",
    );
    until(LIMIT, "some of it there", || count.load(SeqCst) > 2 * MIB);
    // In the middle of whatever it does with its rings.
    drop(guest);
    d.until(LIMIT, "down", |d| Ok(state(d)? == "down")).unwrap();
    // What is for it is counted; its neighbour notices nothing.
    web.ping("10.1.1.11".parse().unwrap(), 3, &[]).unwrap_err();
    assert!(d.drops(0).unwrap().get("queue_stopped").is_some_and(|n| *n > 0), "{:?}", d.drops(0));
    neighbours.0.ping(web_address(), 5, &[]).unwrap();
    let at = std::net::SocketAddr::new(web_address(), 5000);
    neighbours.0.transfer(&neighbours.1, at, 16 << 20).unwrap();

    let mut next = boot(&d);
    let said = output(&mut next, "ping -c 3 -i 0.2 -q 10.1.1.12");
    assert!(said.contains("3 packets received"), "{said}");
    // The stream's other end learns of it, or waits no longer than anybody.
    drop(reader);
}
