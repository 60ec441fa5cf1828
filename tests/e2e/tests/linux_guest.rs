//! A stock Linux guest: its console first, then its own virtio-net driver on a VF of the emulated NIC.
#![forbid(unsafe_code)]

use std::time::Duration;

use culvert_e2e::accounting::{account, faults};
use culvert_e2e::deployment::Deployment;
use culvert_e2e::linux_guest::{Finished, LinuxGuest, LinuxGuestConfig, Machine, Up};
use culvert_e2e::netns;
use culvert_e2e::policies::figure8;
use culvert_e2e::vm::Vm;
use culvert_packet::Encap;

/// A boot takes about four seconds on an idle machine without hardware virtualisation.
const BOOT: Duration = Duration::from_secs(90);
const COMMAND: Duration = Duration::from_secs(60);
const COPY: u64 = 8 << 20;
/// Frames of the other tenant's logs; more than it sends.
const LOG: usize = 1 << 20;
const SQL: &str = "10.1.1.11/24";
const WEB: &str = "10.1.1.12/24";

/// Feature bits that the driver must negotiate (virtio 1.2, 5.1.3 and 6): checksums both ways, MTU, MAC, mergeable
/// buffers, status, control queue with receive modes, VLANs and the MAC, event index, version 1.
const NEGOTIATED: [usize; 12] = [0, 1, 3, 5, 15, 16, 17, 18, 19, 23, 29, 32];
/// Feature bits of segmentation, which the device does not offer in either direction.
const NOT_OFFERED: [usize; 8] = [7, 8, 9, 10, 11, 12, 13, 14];

#[test]
fn boots_runs_commands_reboots_and_powers_off() {
    let logs = tempfile::tempdir().unwrap();
    let config = LinuxGuestConfig { name: "vm", vfs: &[], vhost_user: None, ip: SQL, gateway: None };
    let (mut guest, up) = LinuxGuest::boot(&config, &logs.path().join("console.log"), BOOT).unwrap();
    assert!(up.kernel.ends_with("-cloud-amd64"), "{up:?}");
    assert_eq!(up.nic, None);

    let finished = guest.run("echo one; echo two >&2; exit 3", COMMAND).unwrap();
    assert_eq!(finished, Finished { status: 3, text: "one\ntwo\n".to_owned() });
    let modules = guest.run("lsmod", COMMAND).unwrap();
    assert!(modules.text.contains("virtio_net"), "{modules:?}");
    assert_eq!(guest.run("touch /tmp/mark", COMMAND).unwrap().status, 0);

    assert_eq!(guest.reboot(BOOT).unwrap(), up);
    assert_eq!(guest.run("test -e /tmp/mark", COMMAND).unwrap().status, 1, "the file outlived the reboot");
    guest.power_off(COMMAND).unwrap();
}

#[test]
fn its_own_driver_pings_and_copies_through_the_overlay_and_again_after_a_reboot() {
    netns::enter().unwrap();
    let d = Deployment::builder(figure8(Encap::Vxlan).unwrap()).start().unwrap();
    let mut web = d.guest(1, "contoso-web", WEB, 0).unwrap();
    let mut neighbours =
        [d.guest(0, "fabrikam-sql", SQL, LOG).unwrap(), d.guest(1, "fabrikam-web", WEB, LOG).unwrap()];
    let vf = d.vport(0, "contoso-sql").unwrap().socket.expect("contoso-sql has a VF");
    let config = LinuxGuestConfig { name: "linux", vfs: &[&vf], vhost_user: None, ip: SQL, gateway: None };
    let log = d.dir().join("linux.log");
    let (mut guest, first) = LinuxGuest::boot(&config, &log, BOOT).unwrap();
    let console = std::fs::read_to_string(&log).unwrap();
    assert!(!console.contains("qemu-system"), "QEMU complains:\n{console}");
    sees_its_nic(&mut guest, &first);
    talks(&mut guest, &mut web, 7000);

    // It reboots with frames in flight to it; the other tenant's guests on the same boards lose nothing.
    web.start_probe("10.1.1.11".parse().unwrap(), Duration::from_secs(2)).unwrap();
    let [sql, other] = &mut neighbours;
    other.listen(5001).unwrap();
    sql.send(other.address(), 5001, 4 * COPY, 1).unwrap();
    assert_eq!(guest.reboot(BOOT).unwrap(), first);
    let (sent, received) = (sql.transfer(5001, COMMAND).unwrap(), other.transfer(5001, COMMAND).unwrap());
    assert_eq!((received.bytes, &received.sha256), (4 * COPY, &sent.sha256));
    // Frames in flight, such as the last acknowledgement.
    std::thread::sleep(Duration::from_millis(500));
    let flows = account(sql, other, d.dir()).unwrap();
    assert!(faults(&flows).is_empty(), "{:#?}; drops {:?}", faults(&flows), d.drops(0));
    let _unanswered = web.probe(COMMAND).unwrap();

    sees_its_nic(&mut guest, &first);
    talks(&mut guest, &mut web, 7010);
    guest.power_off(COMMAND).unwrap();

    // QEMU is gone, and the VF is free for another guest.
    let mut next = d.guest(0, "contoso-sql", SQL, 0).unwrap();
    assert_eq!(next.ping(web.address(), 3, 50).unwrap().received, 3);
}

/// Both tenants' pairs; Contoso's SQL is a stock guest on an unusual machine.
fn beside_a_neighbour(machine: Machine<'_>, check: impl FnOnce(&Deployment, &mut LinuxGuest, &mut Vm)) {
    netns::enter().unwrap();
    let d = Deployment::builder(figure8(Encap::Vxlan).unwrap()).start().unwrap();
    let mut web = d.guest(1, "contoso-web", WEB, 0).unwrap();
    let mut sql = d.guest(0, "fabrikam-sql", SQL, LOG).unwrap();
    let mut other = d.guest(1, "fabrikam-web", WEB, LOG).unwrap();
    other.echo().unwrap();
    let vf = d.vport(0, "contoso-sql").unwrap().socket.expect("contoso-sql has a VF");
    let config = LinuxGuestConfig { name: "linux", vfs: &[&vf], vhost_user: None, ip: SQL, gateway: None };
    let log = d.dir().join("linux.log");
    let (mut guest, up) = LinuxGuest::boot_on(&machine, &config, &log, BOOT).unwrap();
    assert_eq!(up.nic.map(|nic| nic.driver).as_deref(), Some("virtio_net"));
    sql.start_probe(other.address(), Duration::from_secs(8)).unwrap();
    check(&d, &mut guest, &mut web);
    let _busy_guests_drop_datagrams = sql.probe(COMMAND).unwrap();
    let flows = account(&mut sql, &mut other, d.dir()).unwrap();
    assert!(faults(&flows).is_empty(), "{:#?}; drops {:?}", faults(&flows), d.drops(0));
}

#[test]
fn a_guest_whose_memory_is_not_shared_is_served_and_counted_and_may_stop_for_a_while() {
    let machine = Machine { unshared: true, ..Machine::default() };
    beside_a_neighbour(machine, |d, guest, web| {
        // One after the other: each access is a message to an emulator on a busy machine.
        let pings = "for n in 1 2 3 4 5; do ping -c 1 -W 10 -q -s 1472 10.1.1.12 || exit 1; done";
        output(guest, pings);
        web.listen(7000).unwrap();
        output(guest, "dd if=/dev/zero bs=1024 count=32 2> /dev/null | nc 10.1.1.12 7000");
        assert_eq!(web.transfer(7000, COMMAND).unwrap().bytes, 32 << 10);
        // A VMM that is stopped, with frames for its guest on their way.
        guest.pause().unwrap();
        let _unanswered = web.ping("10.1.1.11".parse().unwrap(), 2, 100).unwrap();
        std::thread::sleep(Duration::from_secs(3));
        guest.resume().unwrap();
        output(guest, pings);
        let counters = d.cli(0, &["counters"]).unwrap();
        let counted: Vec<_> = counters["nic"].as_object().unwrap().iter().collect();
        assert!(
            counted.iter().any(|(name, n)| name.ends_with("_frames_by_message") && n.as_u64() > Some(40)),
            "{counters}"
        );
        assert!(d.board(0).unwrap().tail().contains("memory-backend-memfd"), "no warning in the board's log");
    });
}

#[test]
fn a_machine_without_message_interrupts_uses_the_line() {
    let machine = Machine { kernel_line: "pci=nomsi", ..Machine::default() };
    beside_a_neighbour(machine, |_, guest, web| {
        talks(guest, web, 7000);
        let interrupts = output(guest, "cat /proc/interrupts");
        let line = interrupts.lines().find(|l| l.contains("virtio")).expect("an interrupt of the VF");
        assert!(line.contains("IO-APIC") && !line.contains("MSI"), "{line}");
        assert_ne!(line.split_whitespace().nth(1), Some("0"), "{line}");
        assert!(!interrupts.contains("input.0"), "{interrupts}");
    });
}

/// Runs a command that must succeed, and returns what it printed.
#[track_caller]
fn output(guest: &mut LinuxGuest, command: &str) -> String {
    guest.output(command, COMMAND).unwrap()
}

/// The guest's driver shows the vport's properties of the policy.
fn sees_its_nic(guest: &mut LinuxGuest, up: &Up) {
    let nic = up.nic.as_ref().expect("a network interface");
    assert_eq!((nic.mac.as_str(), nic.driver.as_str(), nic.mtu), ("00:1d:d8:07:00:11", "virtio_net", 1500));
    let state = output(guest, "cd /sys/class/net/eth0; cat carrier operstate device/device device/status");
    assert_eq!(state.split_whitespace().collect::<Vec<_>>(), ["1", "up", "0x0001", "0x0000000f"]);
    let features: Vec<bool> =
        output(guest, "cat /sys/class/net/eth0/device/features").chars().map(|bit| bit == '1').collect();
    for bit in NEGOTIATED {
        assert!(features[bit], "feature {bit} is not used: {features:?}");
    }
    for bit in NOT_OFFERED {
        assert!(!features[bit], "feature {bit} is used, which was not offered: {features:?}");
    }
    // MSI-X works: a vector for the configuration and one for each queue.
    let interrupts = output(guest, "ping -c 1 -q 10.1.1.12 > /tmp/ping; cat /proc/interrupts");
    for queue in ["config", "input.0", "output.0"] {
        let line = interrupts.lines().find(|l| l.ends_with(queue));
        let line = line.unwrap_or_else(|| panic!("no vector for {queue}:\n{interrupts}"));
        assert!(line.contains("MSI"), "{line}");
        if queue == "input.0" {
            assert_ne!(line.split_whitespace().nth(1), Some("0"), "{line}");
        }
    }
    // The control queue refuses another MAC address.
    let change = guest.run("ip link set eth0 address 02:00:00:00:00:01", COMMAND).unwrap();
    assert_ne!(change.status, 0, "the guest has changed its address: {}", change.text);
    assert_eq!(output(guest, "cat /sys/class/net/eth0/address"), nic.mac);
}

/// Pings, also with the largest packets, and copies both ways, with checked digests.
fn talks(guest: &mut LinuxGuest, web: &mut Vm, port: u16) {
    for size in [56, 1472] {
        let ping = output(guest, &format!("ping -c 5 -i 0.2 -q -s {size} 10.1.1.12"));
        assert!(ping.contains("5 packets received"), "{ping}");
    }
    let back = web.ping("10.1.1.11".parse().unwrap(), 5, 100).unwrap();
    assert_eq!((back.sent, back.received), (5, 5));

    web.listen(port).unwrap();
    let sum = output(
        guest,
        &format!(
            "dd if=/dev/urandom of=/tmp/data bs=65536 count=128 2> /dev/null; nc 10.1.1.12 {port} < /tmp/data; \
             sha256sum < /tmp/data; rm /tmp/data"
        ),
    );
    let received = web.transfer(port, COMMAND).unwrap();
    assert_eq!((received.bytes, sum.split_whitespace().next()), (COPY, Some(received.sha256.as_str())));

    // The listener's own input never ends, so that the sender closes first.
    let port = port + 1;
    output(
        guest,
        &format!(
            "rm -f /tmp/sum; [ -p /tmp/open ] || mkfifo /tmp/open; \
             (nc -l -p {port} 0<> /tmp/open | sha256sum > /tmp/new; mv /tmp/new /tmp/sum) & \
             until netstat -ltn | grep -q :{port}; do sleep 0.1; done"
        ),
    );
    web.send("10.1.1.11".parse().unwrap(), port, COPY, 3).unwrap();
    let sent = web.transfer(port, COMMAND).unwrap();
    let sum = output(guest, "until [ -e /tmp/sum ]; do sleep 0.1; done; cat /tmp/sum");
    assert_eq!((sent.bytes, sum.split_whitespace().next()), (COPY, Some(sent.sha256.as_str())));
}
