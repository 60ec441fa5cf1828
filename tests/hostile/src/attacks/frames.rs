//! Frames of the attacks, and attacks by what a frame's bytes are.

use std::io;

use culvert_packet::craft::{self, Ends};
use culvert_packet::{MacAddr, tcp};

use crate::guest::HEADER;
use crate::place::Place;

/// Longest frame that is made, without offloads.
const ROOM: usize = 2048;

fn crafted(make: impl FnOnce(&mut [u8]) -> Option<usize>) -> Vec<u8> {
    let mut frame = vec![0; ROOM];
    let len = make(&mut frame).unwrap_or(60);
    frame.truncate(len);
    frame
}

/// A datagram to the peer, to this port, of one flow.
#[must_use]
pub fn datagram(place: &Place, port: u16, len: usize) -> Vec<u8> {
    crafted(|out| craft::udp(out, &place.target.ends(), 1000, port, &vec![0x5a; len]).ok())
}

/// A datagram of a random flow, to the peer or to an address that no VM has.
#[must_use]
pub fn random_flow(place: &Place) -> Vec<u8> {
    let mut random = place.random();
    let (from, to, last) = (random.next_u64() as u16, random.next_u64() as u16, random.below(250) as u8);
    let dst = random.one_of(&[place.target.ends().dst, [10, 1, 1, last + 2].into()]);
    let ends = Ends { dst, ..place.target.ends() };
    crafted(|out| craft::udp(out, &ends, from.max(1), to.max(1), b"new").ok())
}

/// The first segment of a random TCP connection.
#[must_use]
pub fn syn(place: &Place) -> Vec<u8> {
    let mut random = place.random();
    let header = tcp::Header {
        src_port: (random.next_u64() as u16).max(1),
        dst_port: (random.next_u64() as u16).max(1),
        sequence: random.next_u64() as u32,
        acknowledgment: 0,
        flags: tcp::Flags::SYN,
        window: 1000,
        urgent: 0,
    };
    crafted(|out| craft::tcp(out, &place.target.ends(), &header, &[]).ok())
}

/// A datagram to all of the subnet.
#[must_use]
pub fn broadcast(place: &Place) -> Vec<u8> {
    let ends = Ends { dst: [10, 1, 1, 255].into(), dst_mac: MacAddr([0xff; 6]), ..place.target.ends() };
    crafted(|out| craft::udp(out, &ends, 1000, 1001, &[0x5a; 64]).ok())
}

/// An ARP request for any address of the subnet.
#[must_use]
pub fn arp(place: &Place) -> Vec<u8> {
    let ends = place.target.ends();
    let last = place.random().below(256) as u8;
    let mut frame = vec![0xff; 6];
    frame.extend_from_slice(&ends.src_mac.0);
    frame.extend_from_slice(&[0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1]);
    frame.extend_from_slice(&ends.src_mac.0);
    let own = if let std::net::IpAddr::V4(own) = ends.src { own.octets() } else { [0; 4] };
    frame.extend_from_slice(&own);
    frame.extend_from_slice(&[0, 0, 0, 0, 0, 0, 10, 1, 1, last]);
    frame
}

/// Sends frames of random bytes, whose addresses and types are often right.
pub fn random_frames(place: &Place) -> io::Result<String> {
    let mut guest = place.guest()?;
    let good = datagram(place, 1, 1000);
    let mut sent = 0;
    while !place.is_over() {
        sent += guest.burst(|| {
            let mut random = place.random();
            let len = random.below(1600) as usize;
            let right = random.one_of(&[0_usize, 6, 12, 14, 34, 42]).min(len);
            let mut frame = good[..right].to_vec();
            frame.extend(random.bytes(len - right));
            frame
        })?;
        guest.recycle()?;
    }
    Ok(format!("{sent} frames"))
}

/// Sends good frames behind random virtio headers.
pub fn random_headers(place: &Place) -> io::Result<String> {
    let mut guest = place.guest()?;
    let mut sent = 0;
    while !place.is_over() {
        for _ in 0..64 {
            let mut header = [0; HEADER];
            header.copy_from_slice(&place.random().bytes(HEADER));
            // Often a known kind of segmentation, and a checksum that may be right.
            header[0] &= place.random().one_of(&[1, 0xff]);
            header[1] = place.random().one_of(&[0, 1, 3, 4, 5, 0x81, header[1]]);
            let len = place.random().below(1400) as usize;
            sent += u64::from(guest.put(header, &datagram(place, 1, len), 1)?);
        }
        guest.kick(1)?;
        guest.recycle()?;
    }
    Ok(format!("{sent} frames"))
}
