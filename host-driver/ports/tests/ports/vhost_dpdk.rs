//! DPDK's virtio-user as a guest: an independent front end and driver.

use std::fs::File;
use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};

use culvert_packet::{MacAddr, craft};
use culvert_ports::VhostUser;
use culvert_switch::SwitchPort;

use crate::namespace::wait_until;
use crate::test_port::TestPort;

/// A testpmd process, killed when the test ends.
struct Testpmd(Child);

impl Drop for Testpmd {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

fn start(folder: &std::path::Path, device: &str) -> Option<Testpmd> {
    // Set by `cargo xtask test`, which fetches one where the system has none.
    let program = std::env::var_os("CULVERT_TESTPMD").unwrap_or_else(|| "dpdk-testpmd".into());
    let mut command = Command::new(program);
    command.args(["--lcores=0@0,1@0", "--no-huge", "-m", "256", "--no-pci", "--no-telemetry", "--no-shconf"]);
    command.args(["--vdev", device, "--", "--forward-mode=icmpecho", "--auto-start"]);
    command.args(["--rxq=2", "--txq=2", "--no-flush-rx", "--total-num-mbufs=4096"]);
    let output = File::create(folder.join("log")).unwrap();
    command.env("XDG_RUNTIME_DIR", folder).stdin(Stdio::piped());
    command.stderr(output.try_clone().unwrap()).stdout(output);
    match command.spawn() {
        Ok(child) => Some(Testpmd(child)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            culvert_skip::skip("there is no dpdk-testpmd: `cargo xtask test` fetches one");
            None
        }
        Err(error) => panic!("dpdk-testpmd: {error}"),
    }
}

#[test]
fn dpdk_answers_pings_on_all_its_rings() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vm");
    let mut host = TestPort::new(VhostUser::open(&path, 2).unwrap());
    let mac = "02:00:00:00:00:77";
    let device = format!("net_virtio_user0,path={},queues=2,mac={mac}", path.display());
    let Some(mut peer) = start(folder.path(), &device) else { return };
    wait_until("DPDK has set up its rings", || {
        let ended = peer.0.try_wait().unwrap();
        assert!(ended.is_none(), "{}", std::fs::read_to_string(folder.path().join("log")).unwrap());
        host.port.link()
    });
    let ping = |n: u16| {
        let ends = craft::Ends {
            src_mac: MacAddr([2, 0, 0, 0, 0, 1]),
            dst_mac: mac.parse().unwrap(),
            src: Ipv4Addr::new(10, 0, 0, 1).into(),
            dst: Ipv4Addr::new(10, 0, 1, n as u8).into(),
        };
        let (mut ping, mut pong) = (vec![0; 200], vec![0; 200]);
        let len = craft::ping(&mut ping, &ends, 7, n, b"culvert").unwrap();
        assert_eq!(craft::pong(&mut pong, &ends.reversed(), 7, n, b"culvert").unwrap(), len);
        ping.truncate(len);
        pong.truncate(len);
        (ping, pong)
    };
    // testpmd drops what its rings hold before it starts to forward.
    let first = [ping(0).0];
    wait_until("DPDK answers", || {
        host.send(&first);
        !host.receive().is_empty()
    });
    for n in 1..65 {
        let (ping, pong) = ping(n);
        assert_eq!(host.send(&[ping]).packets, 1);
        // Compares ICMP's header and payload only: DPDK may change the IP header.
        host.receive_until(|frame| frame.get(34..) == Some(&pong[34..]));
    }
    assert_eq!(host.port.take_rx_drops(), 0);
}
