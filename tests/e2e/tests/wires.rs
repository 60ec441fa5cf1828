//! MAC ports on a TAP interface and on capture files, in a whole deployment.
#![forbid(unsafe_code)]

use std::net::{IpAddr, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use culvert_device::wire::{Capture as Recording, Received, Tap, Wire as _};
use culvert_e2e::accounting::{account, faults};
use culvert_e2e::deployment::Deployment;
use culvert_e2e::netns::{self, ip};
use culvert_e2e::network::Network;
use culvert_e2e::policies::figure8;
use culvert_e2e::tshark::Capture;
use culvert_e2e::wait::until;
use culvert_packet::craft::{self, Ends};
use culvert_packet::{Encap, MacAddr, Reason, checksum};

const LIMIT: Duration = Duration::from_secs(20);
const LOG: usize = 1 << 18;
const BULK: u64 = 8 << 20;
const BOARD: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);
const KERNEL: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

fn run(program: &str, args: &[&str]) {
    let done = std::process::Command::new(program).args(args).status().unwrap();
    assert!(done.success(), "{program} {args:?}");
}

/// The next frame within the limit.
fn next(tap: &mut Tap, room: usize) -> Result<Vec<u8>, Reason> {
    let (mut buffer, end) = (vec![0; room], Instant::now() + LIMIT);
    while Instant::now() < end {
        match tap.receive(&mut buffer) {
            Received::Frame(len) => return Ok(buffer[..len].to_vec()),
            Received::Bad(reason) => return Err(reason),
            Received::Nothing => std::thread::sleep(Duration::from_millis(1)),
        }
    }
    panic!("no frame came");
}

#[test]
fn a_tap_exchanges_frames_with_the_kernel() {
    netns::enter().unwrap();
    run("sysctl", &["-qw", "net.ipv6.conf.default.disable_ipv6=1"]);
    let mut tap = Tap::open("wire0").unwrap();
    assert!(!tap.link(), "the interface is down");
    assert_eq!(tap.send(&[0; 14], &[0; 46]), Err(Reason::UplinkDown));
    ip(&["link", "set", "wire0", "address", "02:00:00:00:00:01", "mtu", "1600", "up"]).unwrap();
    ip(&["addr", "add", "10.9.9.1/24", "dev", "wire0"]).unwrap();
    ip(&["neigh", "add", "10.9.9.9", "lladdr", "02:00:00:00:00:09", "dev", "wire0"]).unwrap();
    until(LIMIT, "up", || tap.link());
    assert_eq!(tap.lost(), 0);

    // From the kernel: with a complete checksum, although the kernel leaves it to hardware where it can.
    let socket = UdpSocket::bind("10.9.9.1:4000").unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    let text: Vec<u8> = (0..1500).map(|n| n as u8).collect();
    socket.send_to(&text, "10.9.9.9:5000").unwrap();
    let frame = next(&mut tap, 2000).unwrap();
    assert_eq!((&frame[..6], &frame[6..12], &frame[42..]), (&BOARD.0[..], &KERNEL.0[..], &text[..]));
    let mut sum = checksum::Checksum::new();
    sum.pseudo(&frame[26..30], &frame[30..34], culvert_packet::Protocol(17), frame.len() as u32 - 34);
    sum.bytes(&frame[34..]);
    assert_eq!(sum.finish(), 0, "the checksum is not complete");

    // To the kernel, header and payload apart.
    let ends = Ends {
        src_mac: BOARD,
        dst_mac: KERNEL,
        src: "10.9.9.9".parse().unwrap(),
        dst: "10.9.9.1".parse().unwrap(),
    };
    let mut frame = vec![0; 100];
    let len = craft::udp(&mut frame, &ends, 5000, 4000, b"hello").unwrap();
    tap.send(&frame[..34], &frame[34..len]).unwrap();
    let mut buffer = [0; 100];
    let (len, from) = socket.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..len], from.to_string().as_str()), (&b"hello"[..], "10.9.9.9:5000"));

    // A frame that does not fit is an error, not truncated.
    socket.send_to(&text, "10.9.9.9:5000").unwrap();
    assert_eq!(next(&mut tap, 1000), Err(Reason::TooLong));
    // Frames that are not received in time are counted.
    for _ in 0..3000 {
        let _some_are_refused = socket.send_to(&text, "10.9.9.9:5000");
    }
    let mut lost = 0;
    let full = || std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let column = |line: &str| line.split_whitespace().nth(12).unwrap().parse::<u64>().unwrap();
    let expected = full().lines().find(|line| line.trim().starts_with("wire0:")).map(column).unwrap();
    assert!(expected > 0);
    until(LIMIT, "counted", || {
        lost += tap.lost();
        lost >= expected
    });
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!((lost, tap.lost()), (expected, 0), "each is counted once");

    assert!(Tap::open("wire0").is_err(), "the interface is in use");
    for name in ["", "a/b", "sixteen-letters-", "tap%d"] {
        assert!(Tap::open(name).is_err(), "{name:?}");
    }
    ip(&["link", "del", "wire0"]).unwrap();
    let mut buffer = [0; 2000];
    let end = Instant::now() + LIMIT;
    while tap.receive(&mut buffer) != Received::Nothing && Instant::now() < end {}
    assert!(!tap.link());
    assert_eq!(tap.send(&[0; 14], &[0; 46]), Err(Reason::UplinkDown));
}

/// Writes a capture of these packets, which appears at `path` complete.
fn put(path: &Path, packets: &[Vec<u8>]) {
    let new = path.with_extension("new");
    let mut recording = Recording::create(&new, "replay", u64::MAX, u64::MAX).unwrap();
    packets.iter().for_each(|packet| recording.frame(&[], packet));
    recording.flush();
    std::fs::rename(new, path).unwrap();
}

#[test]
fn the_overlay_runs_over_a_bridged_tap_and_over_capture_files() {
    netns::enter().unwrap();
    run("sysctl", &["-qw", "net.ipv6.conf.default.disable_ipv6=1"]);
    // A TAP that an operator has created and put into a bridge, as for a VM.
    ip(&["tuntap", "add", "dev", "tap2", "mode", "tap"]).unwrap();
    ip(&["link", "add", "switch", "mtu", "1600", "type", "bridge", "forward_delay", "0"]).unwrap();
    ip(&["link", "set", "tap2", "mtu", "1600", "master", "switch", "up"]).unwrap();
    ip(&["link", "set", "switch", "up"]).unwrap();
    let files = tempfile::tempdir().unwrap();
    let (input, output) = (files.path().join("in.pcapng"), files.path().join("out.pcapng"));
    let pcap = format!("pcap:{},{}", input.display(), output.display());
    let policy = figure8(Encap::Vxlan).unwrap();
    let d = Deployment::builder(policy).capture().wire(1, 0, "tap:tap2").wire(0, 1, pcap).start().unwrap();
    ip(&["link", "set", &Network::interface(2, 0), "master", "switch"]).unwrap();

    let mut sql = d.guest(0, "contoso-sql", "10.1.1.11/24", LOG).unwrap();
    let mut web = d.guest(1, "contoso-web", "10.1.1.12/24", LOG).unwrap();
    let (to_sql, to_web): (IpAddr, IpAddr) = (sql.address(), web.address());
    assert_eq!(sql.ping(to_web, 5, 50).unwrap().received, 5);
    assert_eq!(web.ping(to_sql, 5, 50).unwrap().received, 5);
    web.listen(5001).unwrap();
    sql.listen(5002).unwrap();
    sql.send(to_web, 5001, BULK, 1).unwrap();
    web.send(to_sql, 5002, BULK, 2).unwrap();
    for port in [5001, 5002] {
        let (one, two) = (sql.transfer(port, LIMIT).unwrap(), web.transfer(port, LIMIT).unwrap());
        assert_eq!((one.bytes, &one.sha256), (BULK, &two.sha256));
    }
    // Frames in flight, such as the last acknowledgement.
    std::thread::sleep(Duration::from_millis(500));
    let flows = account(&mut sql, &mut web, d.dir()).unwrap();
    assert!(faults(&flows).is_empty(), "{:#?}; drops {:?} {:?}", faults(&flows), d.drops(0), d.drops(1));

    // Packets that one port has received are replayed to the other, from a file.
    std::thread::sleep(Duration::from_millis(300));
    let request = "icmp.type == 8 && ip.src == 10.1.1.12";
    let packets = Capture::new(d.capture(0, 0)).bytes(request).unwrap();
    assert_eq!(packets.len(), 5);
    let before = sql.counters().unwrap();
    put(&input, &packets);
    d.until(LIMIT, "received by the guest", |_| Ok(sql.counters()?.rx_frames == before.rx_frames + 5))
        .unwrap();
    assert_eq!(sql.counters().unwrap().tx_frames, before.tx_frames + 5, "the guest has answered");
    // The other file has the frames that the port sent: gratuitous ARP and ARP requests.
    let sent = Capture::new(&output);
    assert!(sent.count("arp.opcode == 1").unwrap() > 0);
    assert_eq!(sent.problems().unwrap(), Vec::<String>::new());

    // The TAP goes down, and the host's other uplink takes over.
    ip(&["link", "set", "tap2", "down"]).unwrap();
    d.until(LIMIT, "answered over the other uplink", |_| Ok(web.ping(to_sql, 1, 10)?.received == 1)).unwrap();
}
