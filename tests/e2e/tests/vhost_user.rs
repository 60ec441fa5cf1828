//! A stock Linux VM on a host without a NIC: QEMU's vhost-user network device at the daemon's socket.
#![forbid(unsafe_code)]

use std::io::Read;
use std::net::{IpAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::Duration;

use culvert_e2e::deployment::Deployment;
use culvert_e2e::kernel_vm::KernelVm;
use culvert_e2e::linux_guest::{LinuxGuest, LinuxGuestConfig};
use culvert_e2e::netns;
use culvert_e2e::policies::{figure8, set_software_port};
use culvert_e2e::wait::until;
use culvert_packet::Encap;

const BOOT: Duration = Duration::from_secs(120);
const LIMIT: Duration = Duration::from_secs(120);
const SQL: &str = "10.1.1.11/24";
const WEB: &str = "10.1.1.12/24";
const SQL_MAC: &str = "00:1d:d8:07:00:11";
const VPORT: &str = "contoso-sql";
const MIB: u64 = 1 << 20;
/// SHA-256 of 8 MiB of zeros.
const ZEROS_8_MIB: &str = "2daeb1f36095b44b318410b3f4e8b5d989dcc7bb023d1426c492dab0a3053e74";

/// Two software hosts; Contoso's SQL server attaches by vhost-user.
fn start() -> Deployment {
    netns::enter().unwrap();
    let mut policy = figure8(Encap::Vxlan).unwrap();
    set_software_port(&mut policy, VPORT, "vhostUser").unwrap();
    Deployment::builder(policy).software([0, 1]).start().unwrap()
}

fn tap(d: &Deployment, host: usize, vport: &str, ip: &str) -> KernelVm {
    d.kernel_vm(host, vport, ip).unwrap()
}

fn boot(d: &Deployment) -> LinuxGuest {
    let socket = d.vport(0, VPORT).unwrap().vhost_user.unwrap();
    let config = LinuxGuestConfig {
        name: "linux",
        vfs: &[],
        vhost_user: Some((&socket, SQL_MAC)),
        ip: SQL,
        gateway: None,
    };
    let (guest, up) = LinuxGuest::boot(&config, &d.dir().join("linux.log"), BOOT).unwrap();
    let nic = up.nic.unwrap();
    assert_eq!((nic.mac.as_str(), nic.driver.as_str()), (SQL_MAC, "virtio_net"));
    guest
}

fn output(guest: &mut LinuxGuest, command: &str) -> String {
    guest.output(command, LIMIT).unwrap()
}

fn web_address() -> IpAddr {
    "10.1.1.12".parse().unwrap()
}

/// Accepts one connection, counts its bytes, and checks that all are zero.
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
fn the_streams_of_a_stock_vm_survive_a_killed_daemon() {
    let mut d = start();
    let web = tap(&d, 1, "contoso-web", WEB);
    d.until_vport(0, VPORT, "down", LIMIT).unwrap();
    let mut guest = boot(&d);
    d.until_vport(0, VPORT, "up", LIMIT).unwrap();

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

    // The daemon is killed during a stream and starts again: QEMU reconnects, and the stream continues.
    let (count, reader) = sink(&web, 7002);
    output(
        &mut guest,
        "(dd if=/dev/zero bs=65536 count=1024 2>/dev/null | nc 10.1.1.12 7002; touch /tmp/done) \
         > /dev/null 2>&1 < /dev/null &",
    );
    until(LIMIT, "4 MiB received", || count.load(SeqCst) > 4 * MIB);
    d.kill_daemon(0);
    assert!(count.load(SeqCst) < 64 * MIB, "the stream ended before the daemon was killed");
    d.start_daemon(0).unwrap();
    reader.join().unwrap().unwrap();
    assert_eq!(count.load(SeqCst), 64 * MIB);
    output(&mut guest, "until [ -e /tmp/done ]; do sleep 0.1; done");
    let drops = d.drops(0).unwrap();
    assert!(drops.keys().all(|reason| reason == "arp_suppressed"), "{drops:?}");
    guest.power_off(LIMIT).unwrap();
    d.until_vport(0, VPORT, "down", LIMIT).unwrap();
}

#[test]
fn a_killed_vm_disturbs_no_other_and_can_be_replaced() {
    let d = start();
    let web = tap(&d, 1, "contoso-web", WEB);
    let neighbours = (tap(&d, 0, "fabrikam-sql", SQL), tap(&d, 1, "fabrikam-web", WEB));
    let mut guest = boot(&d);
    let (count, reader) = sink(&web, 7000);
    output(
        &mut guest,
        "(dd if=/dev/zero bs=65536 count=4096 2>/dev/null | nc 10.1.1.12 7000) > /dev/null 2>&1 &",
    );
    until(LIMIT, "2 MiB received", || count.load(SeqCst) > 2 * MIB);
    // Killed while it works on its rings.
    drop(guest);
    d.until_vport(0, VPORT, "down", LIMIT).unwrap();
    // Frames to it are counted as drops; the other tenant's VMs are not disturbed.
    web.ping("10.1.1.11".parse().unwrap(), 3, &[]).unwrap_err();
    assert!(d.drops(0).unwrap().get("queue_stopped").is_some_and(|n| *n > 0), "{:?}", d.drops(0));
    neighbours.0.ping(web_address(), 5, &[]).unwrap();
    let at = std::net::SocketAddr::new(web_address(), 5000);
    neighbours.0.transfer(&neighbours.1, at, 16 << 20).unwrap();

    let mut next = boot(&d);
    let said = output(&mut next, "ping -c 3 -i 0.2 -q 10.1.1.12");
    assert!(said.contains("3 packets received"), "{said}");
    // The receiver's thread ends with its socket or with this process.
    drop(reader);
}
