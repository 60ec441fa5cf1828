//! A vhost-user port with a connected guest.

use std::path::PathBuf;

use culvert_packet::Offload;
use culvert_ports::VhostUser;
use culvert_switch::{Packet, Sent, SwitchPort};
use vhost::vhost_user::Frontend;

use crate::frames::numbered;
use crate::namespace::wait_until;
use crate::test_port::TestPort;
use crate::vhost_guest::Guest;

/// A vhost-user port and its guest.
pub(crate) struct Vm {
    pub(crate) host: TestPort<VhostUser>,
    pub(crate) guest: Guest,
    pub(crate) frontend: Frontend,
    pub(crate) path: PathBuf,
    pub(crate) folder: tempfile::TempDir,
}

/// Does a VMM's work while the port is used: only then it answers requests.
pub(crate) fn while_served<T: Send>(host: &mut TestPort<VhostUser>, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let work = scope.spawn(work);
        wait_until("the VMM's work ends", || {
            host.port.link();
            work.is_finished()
        });
        work.join().unwrap()
    })
}

impl Vm {
    /// Connects a guest with these queue pairs and features.
    pub(crate) fn new(pairs: usize, features: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vm");
        let mut host = TestPort::new(VhostUser::open(&path, pairs).unwrap());
        assert!(!host.port.link());
        let guest = Guest::new(pairs, features);
        let frontend = while_served(&mut host, || guest.connect(&path));
        assert!(host.port.link());
        Vm { host, guest, frontend, path, folder }
    }

    /// Does work with the VMM's connection.
    pub(crate) fn serve<T: Send>(&mut self, work: impl FnOnce(&Guest, &mut Frontend) -> T + Send) -> T {
        let (guest, frontend) = (&self.guest, &mut self.frontend);
        while_served(&mut self.host, move || work(guest, frontend))
    }

    /// Waits until the port has noticed that the VMM has disconnected.
    pub(crate) fn wait_disconnected(&mut self) {
        wait_until("the connection ends", || {
            let link = self.host.port.link();
            !link && !self.host.port.status().counters().connected
        });
    }

    /// Checks that a frame passes each way.
    pub(crate) fn works(&mut self) {
        let frames = numbered(7..8, 100);
        self.guest.send(&frames[0]);
        assert_eq!(self.host.receive(), frames);
        assert_eq!(self.host.send(&frames).packets, 1);
        let rings = (0..self.guest.rings.len()).step_by(2);
        let received: Vec<_> = rings.flat_map(|n| self.guest.receive(n)).collect();
        assert!(received.iter().any(|(_, frame)| *frame == frames[0]));
    }

    /// Receives the packets that the guest has sent.
    pub(crate) fn packets(&mut self) -> Vec<Packet> {
        let mut packets = Vec::new();
        self.host.port.receive(&mut self.host.pool, &mut packets, usize::MAX).unwrap();
        packets
    }

    /// Receives the only packet that the guest has sent: bytes, offload, checksum.
    pub(crate) fn only(&mut self) -> (Vec<u8>, Offload, culvert_flow::Checksum) {
        let packets = self.packets();
        assert_eq!(packets.len(), 1);
        let all = packets.iter().map(|p| (p.bytes().to_vec(), p.offload, p.checksum)).next().unwrap();
        packets.into_iter().for_each(|packet| self.host.pool.give(packet));
        all
    }

    /// Sends a packet with an offload to the guest.
    pub(crate) fn send_with(&mut self, frame: &[u8], offload: Offload) -> Sent {
        let common = frame.len() <= 1900;
        let pool = &mut self.host.pool;
        let mut packet = if common { pool.take() } else { pool.take_large() }.unwrap();
        assert!(packet.fill(frame));
        packet.offload = offload;
        self.host.port.send(pool, &mut vec![packet]).unwrap()
    }
}
