//! Attacks by more work than a guest is due.

use std::io;

use super::frames;
use crate::guest::{Guest, HEADER};
use crate::memory::GUEST;
use crate::place::Place;
use crate::ring::{NEXT, SIZE};

fn flood(place: &Place, frame: fn(&Place) -> Vec<u8>) -> io::Result<String> {
    let mut guest = place.guest()?;
    let mut sent = 0;
    while !place.is_over() {
        sent += guest.burst(|| frame(place))?;
        guest.recycle()?;
    }
    Ok(format!("{sent} frames"))
}

/// Begins flows: more than a host decides on, and fewer than fill the other host's uplink, for whose queue nobody has a share
/// (SECURITY.md).
fn begin_flows(place: &Place, frame: fn(&Place) -> Vec<u8>) -> io::Result<String> {
    let mut guest = place.guest()?;
    let mut sent = 0;
    while !place.is_over() {
        sent += guest.trickle(|| frame(place))?;
        guest.recycle()?;
    }
    Ok(format!("{sent} frames"))
}

/// Opens flow after flow, to the peer and to nobody.
pub fn new_flows(place: &Place) -> io::Result<String> {
    begin_flows(place, frames::random_flow)
}

/// Opens connection after connection.
pub fn syn_flood(place: &Place) -> io::Result<String> {
    begin_flows(place, frames::syn)
}

/// Sends to everybody.
pub fn broadcast_flood(place: &Place) -> io::Result<String> {
    flood(place, frames::broadcast)
}

/// Asks for everybody's MAC.
pub fn arp_flood(place: &Place) -> io::Result<String> {
    flood(place, frames::arp)
}

/// Kicks all rings without work.
pub fn kick_flood(place: &Place) -> io::Result<String> {
    let mut guest = place.guest()?;
    let mut kicks = 0_u64;
    while !place.is_over() {
        for ring in 0..guest.rings.len() {
            guest.kick(ring)?;
            kicks += 1;
        }
    }
    Ok(format!("{kicks} kicks"))
}

/// Sends one frame over and over in as many descriptors as a ring has.
pub fn longest_chains(place: &Place) -> io::Result<String> {
    let mut guest = place.guest()?;
    let frame = frames::datagram(place, 1, 1300);
    let whole = [&[0; HEADER][..], &frame].concat();
    let at = guest.rings[1].buffer(0);
    guest.memory.write(at, &whole)?;
    // The last descriptor has the rest.
    let (count, step) = (SIZE, whole.len() / usize::from(SIZE));
    for n in 0..count {
        let from = step * usize::from(n);
        let (len, flags) = if n + 1 < count { (step, NEXT) } else { (whole.len() - from, 0) };
        let to = [GUEST + at + from as u64, len as u64];
        guest.rings[1].describe(&guest.memory, n, to, flags, n + 1)?;
    }
    repeat(place, &mut guest, 0)
}

/// Sends one large frame over and over, to be cut into the smallest segments that a header can ask for.
pub fn tiny_segments(place: &Place) -> io::Result<String> {
    let mut guest = place.guest()?;
    let mut frame = frames::datagram(place, 1, 1300);
    let len = 60_000_usize;
    frame.resize(42 + len, 0x5a);
    // Lengths of the IPv4 packet and of the datagram; the sums are the device's.
    frame[16..18].copy_from_slice(&((28 + len) as u16).to_be_bytes());
    frame[38..40].copy_from_slice(&((8 + len) as u16).to_be_bytes());
    frame[24..26].fill(0);
    let sum = ipv4_sum(&frame[14..34]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    // NEEDS_CSUM, UDP_L4, headers of 42 bytes, segments of 8, the sum at 6 behind byte 34.
    let mut header = [1, 5, 42, 0, 8, 0, 34, 0, 6, 0, 0, 0];
    header[10] = 0;
    let whole = [&header[..], &frame].concat();
    let at = guest.rings[1].buffer(0);
    guest.memory.write(at, &whole)?;
    for n in 0..SIZE {
        guest.rings[1].describe(&guest.memory, n, [GUEST + at, whole.len() as u64], 0, 0)?;
    }
    repeat(place, &mut guest, SIZE - 1)
}

/// Offers the chains that begin at 0 to `last`, as often as there is room.
fn repeat(place: &Place, guest: &mut Guest, last: u16) -> io::Result<String> {
    let mut sent = 0_u64;
    while !place.is_over() {
        let room = SIZE - guest.rings[1].in_flight(&guest.memory)?.min(SIZE);
        let heads = (0..room).map(|n| n % (last + 1));
        guest.rings[1].offer(&guest.memory, heads)?;
        guest.kick(1)?;
        guest.recycle()?;
        sent += u64::from(room);
    }
    Ok(format!("{sent} frames"))
}

fn ipv4_sum(header: &[u8]) -> u16 {
    let mut sum: u32 = header.chunks(2).map(|p| u32::from(p[0]) << 8 | u32::from(p[1])).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Sends until its process is killed or half a minute is over.
pub fn burst_until_killed(place: &Place) -> io::Result<String> {
    let mut guest = place.guest()?;
    println!("begun");
    let end = std::time::Instant::now() + std::time::Duration::from_secs(30);
    let mut sent = 0;
    while std::time::Instant::now() < end {
        sent += guest.trickle(|| frames::datagram(place, 7, 600))?;
        guest.recycle()?;
    }
    Ok(format!("{sent} frames, and was not killed"))
}
