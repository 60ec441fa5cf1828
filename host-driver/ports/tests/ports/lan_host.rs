//! A port in the hands of a test, with a pool of its own.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use culvert_packet::{MacAddr, craft};
use culvert_ports::{AfPacket, AfPacketOptions, AfXdp, AfXdpOptions};
use culvert_switch::{Packet, Pool, Sent, SwitchPort};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::Timespec;

use crate::namespace::{LIMIT, Namespace};

/// The port and its pool.
pub(crate) struct FdbEntry<P> {
    pub(crate) port: P,
    pub(crate) pool: Pool,
}

impl FdbEntry<AfPacket> {
    /// A packet socket in a namespace.
    pub(crate) fn on(namespace: &Namespace, interface: &'static str, options: AfPacketOptions) -> Self {
        FdbEntry::of(namespace.within(move || AfPacket::open(interface, &options).unwrap()))
    }
}

impl FdbEntry<AfXdp> {
    /// XDP sockets in a namespace.
    pub(crate) fn before(namespace: &Namespace, interface: &'static str, options: AfXdpOptions) -> Self {
        FdbEntry::of(namespace.within(move || AfXdp::open(interface, &options).unwrap()))
    }
}

impl<P: SwitchPort> FdbEntry<P> {
    /// A port with enough buffers.
    pub(crate) fn of(port: P) -> Self {
        FdbEntry { port, pool: Pool::new(4096, 32).unwrap() }
    }

    /// Sends frames.
    pub(crate) fn send(&mut self, frames: &[Vec<u8>]) -> Sent {
        self.try_send(frames).unwrap()
    }

    /// Sends frames, or sees that the port is broken.
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

    /// What is there now.
    pub(crate) fn receive(&mut self) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        self.port.receive(&mut self.pool, &mut packets, usize::MAX).unwrap();
        let bytes = packets.iter().map(|packet| packet.bytes().to_vec()).collect();
        packets.into_iter().for_each(|packet| self.pool.give(packet));
        bytes
    }

    /// Everything up to a frame for which `last` holds.
    pub(crate) fn receive_until(&mut self, mut last: impl FnMut(&[u8]) -> bool) -> Vec<Vec<u8>> {
        let (mut all, end) = (Vec::new(), Instant::now() + LIMIT);
        loop {
            assert!(Instant::now() < end, "the last frame never comes; {} have", all.len());
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

    /// Whether the port's file is readable, or gets so within a time.
    pub(crate) fn readable(&self, within: Duration) -> bool {
        let mut fds = [PollFd::from_borrowed_fd(self.port.fd(), PollFlags::IN)];
        let time = Timespec { tv_sec: within.as_secs() as i64, tv_nsec: within.subsec_nanos().into() };
        poll(&mut fds, Some(&time)).unwrap() > 0
    }
}

/// Ends of packets that no kernel would send by itself.
pub(crate) fn ends(dst: impl Into<IpAddr>) -> craft::Ends {
    let dst = dst.into();
    let src = match dst {
        IpAddr::V4(_) => Ipv4Addr::new(203, 0, 113, 1).into(),
        IpAddr::V6(_) => "2001:db8::1".parse().unwrap(),
    };
    craft::Ends { src_mac: MacAddr([2, 0, 0, 0, 0, 1]), dst_mac: MacAddr([2, 0, 0, 0, 0, 2]), src, dst }
}

/// A datagram to a port, with a number as its payload, and as long as is asked for.
pub(crate) fn datagram(port: u16, number: u32, len: usize) -> Vec<u8> {
    let mut payload = vec![0; len];
    payload[..4].copy_from_slice(&number.to_be_bytes());
    let mut frame = vec![0; len + 100];
    let len = craft::udp(&mut frame, &ends(Ipv4Addr::new(198, 51, 100, 1)), 1, port, &payload).unwrap();
    frame.truncate(len);
    frame
}

/// Whether a frame is one of [`datagram`]'s.
pub(crate) fn is_ours(frame: &[u8]) -> bool {
    frame.get(..12) == datagram(1, 0, 4).get(..12)
}

/// The number in it.
pub(crate) fn number(frame: &[u8]) -> u32 {
    u32::from_be_bytes(*frame[42..].first_chunk().unwrap())
}
