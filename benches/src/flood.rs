//! A flood of new connections: a port that sends a SYN of another connection in each frame, and a wire that answers ARP for the
//! next hop and counts frames.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use culvert_offload::EventFd;
use culvert_packet::craft::{self, Ends};
use culvert_packet::{MacAddr, arp, tcp};
use culvert_switch::{Packet, Pool, Sent, SwitchPort};

/// State that the ports share.
#[derive(Debug, Default)]
pub struct Flood {
    /// Whether SYNs are sent.
    pub open: AtomicBool,
    /// Encapsulated frames that the wire has received.
    pub left: AtomicU64,
}

/// The port of a VM that opens connections as fast as the switch polls it.
pub struct SynPort {
    flood: Arc<Flood>,
    syn: Vec<u8>,
    /// Sum of the segment without ports and checksum (RFC 1071).
    sum: u32,
    next: u32,
    end: u32,
    never: EventFd,
}

/// Offset of the TCP header of an untagged IPv4 frame.
const TCP: usize = 34;
/// Multiplier from a connection's number to its pair of ports: odd, so that no pair is used twice.
const SPREAD: u32 = 2_654_435_761;

impl SynPort {
    /// A port that opens `count` connections between two addresses, each with other ports.
    ///
    /// # Errors
    /// Out of file descriptors.
    pub fn new(flood: Arc<Flood>, ends: &Ends, count: u32) -> io::Result<Self> {
        let header = tcp::Header { flags: tcp::Flags::SYN, window: 64_240, ..tcp::Header::default() };
        let mut syn = vec![0; 128];
        let len = craft::tcp(&mut syn, ends, &header, &[]).map_err(|e| io::Error::other(e.as_str()))?;
        syn.truncate(len);
        let sum = u32::from(!u16::from_be_bytes([syn[TCP + 16], syn[TCP + 17]]));
        let never = EventFd::new().map_err(io::Error::other)?;
        Ok(SynPort { flood, syn, sum, next: 0, end: count, never })
    }

    fn write(&mut self, frame: &mut [u8]) {
        let ports = self.next.wrapping_mul(SPREAD);
        self.next += 1;
        frame.copy_from_slice(&self.syn);
        frame[TCP..TCP + 4].copy_from_slice(&ports.to_be_bytes());
        let sum = self.sum + (ports >> 16) + (ports & 0xffff);
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = (sum & 0xffff) + (sum >> 16);
        frame[TCP + 16..TCP + 18].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    }
}

impl SwitchPort for SynPort {
    fn receive(&mut self, pool: &mut Pool, packets: &mut Vec<Packet>, most: usize) -> io::Result<()> {
        while packets.len() < most && self.next < self.end && self.flood.open.load(Relaxed) {
            let Some(mut packet) = pool.take() else { break };
            if packet.set(0, self.syn.len()) {
                self.write(packet.bytes_mut());
            }
            packets.push(packet);
        }
        Ok(())
    }

    fn send(&mut self, pool: &mut Pool, packets: &mut Vec<Packet>) -> io::Result<Sent> {
        let sent = Sent { packets: packets.len() as u64, ..Sent::default() };
        packets.drain(..).for_each(|packet| pool.give(packet));
        Ok(sent)
    }

    fn arm(&mut self) -> bool {
        self.next >= self.end || !self.flood.open.load(Relaxed)
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.never.as_fd()
    }
}

/// The port to the wire, on which every next hop answers.
pub struct WirePort {
    flood: Arc<Flood>,
    answers: VecDeque<Vec<u8>>,
    never: EventFd,
}

/// MAC of every next hop.
const NEXT_HOP: MacAddr = MacAddr([2, 0, 0, 0, 0, 0x77]);

impl WirePort {
    /// A wire without traffic of its own.
    ///
    /// # Errors
    /// Out of file descriptors.
    pub fn new(flood: Arc<Flood>) -> io::Result<Self> {
        let never = EventFd::new().map_err(io::Error::other)?;
        Ok(WirePort { flood, answers: VecDeque::new(), never })
    }

    fn take_frame(&mut self, frame: &[u8]) {
        if frame.get(12..14) != Some(&[8, 6]) {
            self.flood.left.fetch_add(1, Relaxed);
            return;
        }
        let asked = frame.get(14..).and_then(|body| arp::Packet::parse(body).ok());
        if let Some(asked) = asked.filter(|a| a.sender != a.target) {
            let mut answer = vec![0; 64];
            if craft::arp(&mut answer, &asked.reply(NEXT_HOP)).is_ok() {
                self.answers.push_back(answer);
            }
        }
    }
}

impl SwitchPort for WirePort {
    fn receive(&mut self, pool: &mut Pool, packets: &mut Vec<Packet>, most: usize) -> io::Result<()> {
        while packets.len() < most
            && let Some(answer) = self.answers.pop_front()
            && let Some(mut packet) = pool.take()
        {
            let _fits = packet.fill(&answer);
            packets.push(packet);
        }
        Ok(())
    }

    fn send(&mut self, pool: &mut Pool, packets: &mut Vec<Packet>) -> io::Result<Sent> {
        let mut sent = Sent { packets: packets.len() as u64, ..Sent::default() };
        for packet in packets.drain(..) {
            sent.bytes += packet.bytes().len() as u64;
            self.take_frame(packet.bytes());
            pool.give(packet);
        }
        Ok(sent)
    }

    fn arm(&mut self) -> bool {
        self.answers.is_empty()
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.never.as_fd()
    }
}
