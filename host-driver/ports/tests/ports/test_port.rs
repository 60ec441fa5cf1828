//! A port with a pool, to send and receive frames in a test.

use std::time::{Duration, Instant};

use culvert_ports::{AfPacket, AfPacketOptions, AfXdp, AfXdpOptions};
use culvert_switch::{Packet, Pool, PortMonitor, Sent, SwitchPort};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::Timespec;

use crate::namespace::{Namespace, TIMEOUT};

/// The port and its pool.
pub(crate) struct TestPort<P> {
    pub(crate) port: P,
    pub(crate) pool: Pool,
    monitor: Option<Box<dyn PortMonitor>>,
}

impl TestPort<AfPacket> {
    /// Opens a packet socket in a namespace.
    pub(crate) fn packet_socket(
        namespace: &Namespace,
        interface: &'static str,
        options: AfPacketOptions,
    ) -> Self {
        TestPort::new(namespace.within(move || AfPacket::open(interface, &options).unwrap()))
    }
}

impl TestPort<AfXdp> {
    /// Opens XDP sockets in a namespace.
    pub(crate) fn xdp(namespace: &Namespace, interface: &'static str, options: AfXdpOptions) -> Self {
        TestPort::new(namespace.within(move || AfXdp::open(interface, &options).unwrap()))
    }
}

impl<P: SwitchPort> TestPort<P> {
    /// A port with 4096 buffers and 32 large ones.
    pub(crate) fn new(mut port: P) -> Self {
        let monitor = port.monitor();
        TestPort { port, pool: Pool::new(4096, 32).unwrap(), monitor }
    }

    /// Has the port's monitor look at once.
    fn poll_monitor(&mut self) {
        self.monitor.as_mut().map(|monitor| monitor.poll());
    }

    /// Whether the link is up now.
    pub(crate) fn link(&mut self) -> bool {
        self.poll_monitor();
        self.port.link()
    }

    /// Frames that the port has dropped on reception until now.
    pub(crate) fn take_rx_drops(&mut self) -> u64 {
        self.poll_monitor();
        self.port.take_rx_drops()
    }

    /// Sends frames.
    pub(crate) fn send(&mut self, frames: &[Vec<u8>]) -> Sent {
        self.try_send(frames).unwrap()
    }

    /// Sends frames. An error means that the port is broken.
    pub(crate) fn try_send(&mut self, frames: &[Vec<u8>]) -> std::io::Result<Sent> {
        let whole = self.pool.free();
        let packet = |frame: &Vec<u8>| {
            let common = frame.len() <= 1900;
            let mut packet = if common { self.pool.take() } else { self.pool.take_large() }.unwrap();
            assert!(packet.fill(frame));
            packet
        };
        let mut packets: Vec<Packet> = frames.iter().map(packet).collect();
        let sent = self.port.send(&mut self.pool, &mut packets);
        assert_eq!((packets.len(), self.pool.free()), (0, whole), "buffers come back");
        sent
    }

    /// The frames that are waiting.
    pub(crate) fn receive(&mut self) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        self.port.receive(&mut self.pool, &mut packets, usize::MAX).unwrap();
        let bytes = packets.iter().map(|packet| packet.bytes().to_vec()).collect();
        packets.into_iter().for_each(|packet| self.pool.give(packet));
        bytes
    }

    /// All frames up to one for which `last` holds.
    pub(crate) fn receive_until(&mut self, mut last: impl FnMut(&[u8]) -> bool) -> Vec<Vec<u8>> {
        let (mut all, end) = (Vec::new(), Instant::now() + TIMEOUT);
        loop {
            assert!(Instant::now() < end, "the last frame never arrives; {} did", all.len());
            // The kernel's own frames may follow.
            for frame in self.receive() {
                all.push(frame);
                if all.last().is_some_and(|frame: &Vec<u8>| last(frame)) {
                    return all;
                }
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Whether the port's file descriptor becomes readable within a time.
    pub(crate) fn readable(&self, within: Duration) -> bool {
        let mut fds = [PollFd::from_borrowed_fd(self.port.fd(), PollFlags::IN)];
        let time = Timespec { tv_sec: within.as_secs() as i64, tv_nsec: within.subsec_nanos().into() };
        poll(&mut fds, Some(&time)).unwrap() > 0
    }
}
