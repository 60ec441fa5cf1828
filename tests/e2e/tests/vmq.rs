//! VMs without a VF on a host with a NIC: a TAP and a stock Linux VM on vhost-user, each on its vport's VMQ, exchange traffic
//! with a VM on a VF of the other host, also while daemon, firmware or VM restart.
#![forbid(unsafe_code)]

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use culvert_e2e::deployment::Deployment;
use culvert_e2e::kernel_vm::pattern;
use culvert_e2e::linux_guest::{LinuxGuest, LinuxGuestConfig};
use culvert_e2e::netns;
use culvert_e2e::policies::{routed, set_software_port};
use culvert_e2e::vm::Vm;
use culvert_packet::MacAddr;
use culvert_packet::craft::{self, Ends};
use serde_json::Value;
use sha2::{Digest, Sha256};

const BOOT: Duration = Duration::from_secs(120);
const LIMIT: Duration = Duration::from_secs(120);
const MIB: u64 = 1 << 20;
const WEB: MacAddr = MacAddr([0x00, 0x1d, 0xd8, 0x07, 0x00, 0x12]);
const MONITOR: MacAddr = MacAddr([0x00, 0x1d, 0xd8, 0x07, 0x00, 0x15]);
const MONITOR_IP: &str = "10.1.1.15/24";
const VPORT: &str = "contoso-monitor";

fn monitor() -> IpAddr {
    "10.1.1.15".parse().unwrap()
}

/// Two hosts with NICs; Contoso's monitor, on the first, has no VF.
fn start(port: &str) -> Deployment {
    netns::enter().unwrap();
    // Without IPv6, the kernel behind a TAP sends no unsolicited packets.
    let quiet =
        Command::new("sysctl").args(["-qw", "net.ipv6.conf.default.disable_ipv6=1"]).status().unwrap();
    assert!(quiet.success());
    let mut policy = routed().unwrap();
    set_software_port(&mut policy, VPORT, port).unwrap();
    Deployment::builder(policy).start().unwrap()
}

fn web(d: &Deployment) -> Vm {
    let mut web = d.guest(1, "contoso-web", "10.1.1.12/24", 0).unwrap();
    web.echo().unwrap();
    web
}

/// The kernel of host 1 as a VM, behind the monitor's TAP.
struct TapVm<'d> {
    d: &'d Deployment,
    tap: String,
}

impl<'d> TapVm<'d> {
    fn new(d: &'d Deployment) -> Self {
        let vm = TapVm { d, tap: d.vport(0, VPORT).unwrap().tap.unwrap() };
        vm.up();
        vm
    }

    fn ip(&self, args: &[&str]) -> String {
        self.d.network().host(1, &[&["ip"], args].concat()).unwrap()
    }

    fn up(&self) {
        self.ip(&["link", "set", &self.tap, "address", &MONITOR.to_string(), "up"]);
        self.ip(&["addr", "replace", MONITOR_IP, "dev", &self.tap]);
    }

    /// Pings contoso-web; an error if an answer is missing.
    fn ping(&self, count: u32, more: &[&str]) -> Result<(), String> {
        let n = count.to_string();
        let all = [&["ping", "-c", &n, "-i", "0.05", "-W", "2"], more, &["10.1.1.12"]].concat();
        let said = self.d.network().host(1, &all)?;
        if said.contains(&format!("{count} received")) { Ok(()) } else { Err(said) }
    }

    /// Frames that the VM received.
    fn delivered(&self) -> u64 {
        let said = self.ip(&["-s", "-j", "link", "show", &self.tap]);
        let links: Value = serde_json::from_str(&said).unwrap();
        links[0]["stats64"]["rx"]["packets"].as_u64().unwrap()
    }
}

/// The monitor's vport, as `culvert vport list` shows it.
fn shown(d: &Deployment) -> Value {
    d.vport(0, VPORT).unwrap().json
}

/// All drops of both hosts.
fn drops(d: &Deployment) -> u64 {
    (0..2).map(|host| d.drops(host).unwrap().values().sum::<u64>()).sum()
}

fn vport_drops(d: &Deployment) -> u64 {
    shown(d)["counters"]["drops"].as_u64().unwrap()
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// Sends a TCP stream each way between the TAP's VM and the guest. The kernel's TCP sends large frames.
fn streams(web: &mut Vm, port: u16, bytes: u64) {
    let at = SocketAddr::new(web.address(), port);
    web.listen(port).unwrap();
    let all: Vec<u8> = pattern().take(bytes as usize).collect();
    let sum = sha256(&all);
    let mut stream = TcpStream::connect_timeout(&at, LIMIT).unwrap();
    stream.set_write_timeout(Some(LIMIT)).unwrap();
    stream.write_all(&all).unwrap();
    drop(stream);
    let there = web.transfer(port, LIMIT).unwrap();
    assert_eq!((there.bytes, &there.sha256), (bytes, &sum));

    let listener = TcpListener::bind((monitor(), port + 1)).unwrap();
    let reader = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept()?;
        stream.set_read_timeout(Some(LIMIT))?;
        let mut all = Vec::new();
        stream.read_to_end(&mut all).map(|_| all)
    });
    web.send(monitor(), port + 1, bytes, 7).unwrap();
    let sent = web.transfer(port + 1, LIMIT).unwrap();
    let back = reader.join().unwrap().unwrap();
    assert_eq!((back.len() as u64, sha256(&back)), (bytes, sent.sha256));
}

/// Waits until frames that were sent before have arrived: those that TCP has sent again may still be on their way.
fn wait_until_quiet(vm: &TapVm<'_>, web: &mut Vm) {
    let mut seen = None;
    let quiet = |d: &Deployment| {
        let delivered = vm.delivered();
        let now = Some((web.counters()?.tx_frames, delivered, drops(d)));
        let is_quiet = seen == now && shown(d)["counters"]["outPackets"] == delivered;
        seen = now;
        // Far longer than a frame is on its way.
        std::thread::sleep(Duration::from_millis(500));
        Ok(is_quiet)
    };
    vm.d.until(LIMIT, "quiet", quiet).unwrap();
}

/// Sends more frames than the NIC can queue, or more flows than the upcall quota, and checks that each frame of either VM is
/// received or counted as a drop.
fn flood(vm: &TapVm<'_>, web: &mut Vm, frames: u16, flows: u16) {
    wait_until_quiet(vm, web);
    let before = (web.counters().unwrap(), vm.delivered(), drops(vm.d));
    let socket = UdpSocket::bind((monitor(), 40_000)).unwrap();
    // The guest echoes those to port 7. Nothing reads the echoes, which does not matter here.
    let questions = (0..frames).filter(|n| {
        let to = SocketAddr::new(web.address(), 7 + n % flows);
        socket.send_to(format!("question {n:06}").as_bytes(), to).is_ok()
    });
    let questions = questions.count() as u64;
    assert!(questions > 1000, "{questions}");
    let end = Instant::now() + LIMIT;
    loop {
        let now = web.counters().unwrap();
        let sent = questions + now.tx_frames - before.0.tx_frames;
        let received = now.rx_frames - before.0.rx_frames + vm.delivered() - before.1;
        let dropped = drops(vm.d) - before.2;
        if sent == received + dropped && received > 1000 {
            println!("{sent} sent, {received} received, {dropped} dropped");
            return;
        }
        assert!(Instant::now() < end, "{sent} sent, {received} received, {dropped} dropped");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Frames to a VM that is down are counted at its vport.
fn counts_frames_to_a_vm_that_is_down(vm: &TapVm<'_>, web: &mut Vm) {
    let d = vm.d;
    let stopped = |d: &Deployment| d.drops(0).map(|all| all.get("queue_stopped").copied().unwrap_or(0));
    let before = (stopped(d).unwrap(), vport_drops(d));
    vm.ip(&["link", "set", &vm.tap, "down"]);
    d.until_vport(0, VPORT, "down", LIMIT).unwrap();
    let ends = Ends { src_mac: WEB, dst_mac: MONITOR, src: web.address(), dst: monitor() };
    let mut frame = vec![0; 256];
    let len = craft::udp(&mut frame, &ends, 7, 40_000, b"an answer").unwrap();
    for _ in 0..50 {
        web.frame(&frame[..len]).unwrap();
    }
    let counted = |d: &Deployment| Ok((stopped(d)? - before.0, vport_drops(d) - before.1) == (50, 50));
    d.until(LIMIT, "counted", counted).unwrap();
    vm.up();
    d.until_vport(0, VPORT, "up", LIMIT).unwrap();
    vm.ping(3, &[]).unwrap();
}

#[test]
fn a_tap_on_a_vmq_reaches_a_vf_and_every_frame_is_accounted_for() {
    let d = start("tap");
    let mut web = web(&d);
    let shown = shown(&d);
    let id = d.vport(0, VPORT).unwrap().id;
    assert_eq!((&shown["attachment"], &shown["servedBy"]), (&format!("tap:vport{id}").into(), &"vmq".into()));
    let vm = TapVm::new(&d);
    d.until_vport(0, VPORT, "up", LIMIT).unwrap();
    vm.ping(3, &[]).unwrap();
    assert_eq!(web.ping(monitor(), 3, 20).unwrap().received, 3);
    vm.ping(3, &["-s", "1472", "-M", "do"]).unwrap();
    streams(&mut web, 5001, 8 * MIB);
    flood(&vm, &mut web, 20_000, 1);
    flood(&vm, &mut web, 20_000, 4000);
    counts_frames_to_a_vm_that_is_down(&vm, &mut web);
    // Anti-spoofing applies as to a VM on a VF.
    vm.ip(&["addr", "add", "10.1.1.99/24", "dev", &vm.tap]);
    vm.ping(1, &["-I", "10.1.1.99"]).unwrap_err();
    assert!(d.drops(0).unwrap().get("spoofed_ca").is_some_and(|n| *n >= 1), "{:?}", d.drops(0));
}

#[test]
fn a_tap_on_a_vmq_survives_killed_daemon_and_firmware() {
    let mut d = start("tap");
    let mut web = web(&d);
    TapVm::new(&d).ping(3, &[]).unwrap();
    d.kill_daemon(0);
    d.start_daemon(0).unwrap();
    d.until_vport(0, VPORT, "up", LIMIT).unwrap();
    // The TAP has kept its addresses.
    let tap = d.vport(0, VPORT).unwrap().tap.unwrap();
    let vm = TapVm { d: &d, tap };
    vm.ping(3, &[]).unwrap();
    d.kill_firmware(0).unwrap();
    d.until(LIMIT, "answered again", |_| Ok(vm.ping(1, &[]).is_ok())).unwrap();
    streams(&mut web, 5003, MIB);
}

fn boot(d: &Deployment) -> LinuxGuest {
    let socket = d.vport(0, VPORT).unwrap().vhost_user.unwrap();
    let mac = MONITOR.to_string();
    let config = LinuxGuestConfig {
        name: "linux",
        vfs: &[],
        vhost_user: Some((&socket, &mac)),
        ip: MONITOR_IP,
        gateway: None,
    };
    let (guest, up) = LinuxGuest::boot(&config, &d.dir().join("linux.log"), BOOT).unwrap();
    let nic = up.nic.unwrap();
    assert_eq!((nic.mac, nic.driver.as_str()), (mac, "virtio_net"));
    guest
}

fn output(guest: &mut LinuxGuest, command: &str) -> String {
    guest.output(command, LIMIT).unwrap()
}

#[test]
fn a_stock_vm_on_a_vmq_keeps_its_stream_when_daemon_and_firmware_are_killed() {
    let mut d = start("vhostUser");
    let mut web = web(&d);
    d.until_vport(0, VPORT, "down", LIMIT).unwrap();
    let mut guest = boot(&d);
    d.until_vport(0, VPORT, "up", LIMIT).unwrap();
    let said = output(&mut guest, "ping -c 5 -i 0.2 -q 10.1.1.12");
    assert!(said.contains("5 packets received"), "{said}");
    assert_eq!(web.ping(monitor(), 3, 20).unwrap().received, 3);
    let drops = d.drops(0).unwrap();
    assert!(drops.keys().all(|reason| reason == "arp_suppressed"), "{drops:?}");

    const BYTES: u64 = 48 * MIB;
    web.listen(7000).unwrap();
    output(
        &mut guest,
        "(dd if=/dev/zero bs=65536 count=768 2>/dev/null | nc 10.1.1.12 7000; touch /tmp/done) \
         > /dev/null 2>&1 < /dev/null &",
    );
    assert!(web.progress(LIMIT).unwrap() < BYTES, "the transfer ended before the daemon was killed");
    d.kill_daemon(0);
    d.start_daemon(0).unwrap();
    assert!(web.progress(LIMIT).unwrap() < BYTES, "the transfer ended before the firmware was killed");
    d.kill_firmware(0).unwrap();
    let there = web.transfer(7000, LIMIT).unwrap();
    assert_eq!((there.bytes, there.sha256), (BYTES, sha256(&vec![0; BYTES as usize])));
    output(&mut guest, "until [ -e /tmp/done ]; do sleep 0.1; done");

    // The VM is killed: frames to it are counted, and another VM can attach.
    drop(guest);
    d.until_vport(0, VPORT, "down", LIMIT).unwrap();
    assert_eq!(web.ping(monitor(), 3, 20).unwrap().received, 0);
    assert!(d.drops(0).unwrap().get("queue_stopped").is_some_and(|n| *n >= 3), "{:?}", d.drops(0));
    let mut next = boot(&d);
    let said = output(&mut next, "ping -c 3 -i 0.2 -q 10.1.1.12");
    assert!(said.contains("3 packets received"), "{said}");
}
