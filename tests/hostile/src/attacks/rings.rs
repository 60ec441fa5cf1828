//! Attacks by descriptors and ring indices.

use std::io;
use std::time::Duration;

use super::frames::datagram;
use crate::guest::{Guest, HEADER, Setup};
use crate::memory::GUEST;
use crate::place::Place;
use crate::ring::{BUFFER, INDIRECT, MEMORY, NEXT, Ring, SIZE, WRITE};

/// Rounds that a device survives; a stopped one gets a new guest, as a hostile guest would reset it.
const ROUNDS: u32 = 40;

/// Frames that a guest without receive buffers sends each millisecond.
const FRAMES: u32 = 4;

/// Brings guests up, and calls `spoil` a few times for each, until the time is over.
fn spoil_guests(
    place: &Place,
    mut spoil: impl FnMut(&Place, &mut Guest) -> io::Result<()>,
) -> io::Result<String> {
    let (mut guests, mut rounds) = (0, 0);
    while !place.is_over() {
        let mut guest = place.guest()?;
        guests += 1;
        for _ in 0..ROUNDS {
            if place.is_over() {
                break;
            }
            guest.put([0; HEADER], &datagram(place, 1, 100), 1)?;
            spoil(place, &mut guest)?;
            guest.kick(1)?;
            guest.kick(0)?;
            rounds += 1;
        }
    }
    Ok(format!("{guests} guests, {rounds} rounds"))
}

/// Offers one chain of a ring.
fn offer(guest: &mut Guest, ring: usize, head: u16) -> io::Result<()> {
    guest.rings[ring].offer(&guest.memory, [head])
}

fn describe(guest: &Guest, ring: usize, index: u16, to: [u64; 2], flags: u16, next: u16) -> io::Result<()> {
    guest.rings[ring].describe(&guest.memory, index, to, flags, next)
}

/// An address in a ring's buffers.
fn good(guest: &Guest, ring: usize, index: u16) -> u64 {
    GUEST + guest.rings[ring].buffer(index)
}

/// Fills both descriptor tables with words that are partly right, and offers all of them.
pub fn random_descriptors(place: &Place) -> io::Result<String> {
    spoil_guests(place, |place, guest| {
        for ring in [0, 1] {
            for index in 0..SIZE {
                let mut random = place.random();
                let inside = GUEST + random.below(MEMORY);
                let anywhere = random.next_u64();
                let address = random.one_of(&[inside, inside, inside, anywhere, 0]);
                let (short, long) = (random.below(5000), random.next_u64() & 0xffff_ffff);
                let len = random.one_of(&[short, short, short, long, 0]);
                let flags = random.below(8) as u16;
                let next = random.below(300) as u16;
                describe(guest, ring, index, [address, len], flags, next)?;
            }
            let heads: Vec<u16> = (0..16).map(|_| place.random().below(u64::from(SIZE) + 2) as u16).collect();
            guest.rings[ring].offer(&guest.memory, heads)?;
        }
        Ok(())
    })
}

/// Links descriptors to themselves and to each other.
pub fn loops(place: &Place) -> io::Result<String> {
    spoil_guests(place, |place, guest| {
        for ring in [0, 1] {
            let flags = NEXT | if ring == 0 { WRITE } else { 0 };
            let (a, b) = (place.random().below(256) as u16, place.random().below(256) as u16);
            describe(guest, ring, a, [good(guest, ring, a), 1], flags, b)?;
            describe(guest, ring, b, [good(guest, ring, b), 1], flags, a)?;
            offer(guest, ring, a)?;
        }
        Ok(())
    })
}

/// Puts tables into tables, and tables of wrong lengths.
pub fn nested_tables(place: &Place) -> io::Result<String> {
    spoil_guests(place, |place, guest| {
        let at = guest.rings[1].buffer(100);
        let inner = place.random().one_of(&[INDIRECT, INDIRECT | NEXT, NEXT]);
        let entries: Vec<u8> = (0..64).flat_map(|n| Ring::descriptor(GUEST + at, 64, inner, n + 1)).collect();
        guest.memory.write(at, &entries)?;
        let len = place.random().one_of(&[0, 1, 15, 16, 17, 1024, 4096, 1 << 20, 0xffff_fff0]);
        let flags = place.random().one_of(&[INDIRECT, INDIRECT | NEXT, INDIRECT | WRITE]);
        describe(guest, 1, 5, [GUEST + at, len], flags, 6)?;
        offer(guest, 1, 5)
    })
}

/// Offers buffers of no bytes, alone and as chains.
pub fn empty_descriptors(place: &Place) -> io::Result<String> {
    spoil_guests(place, |_, guest| {
        for ring in [0, 1] {
            let write = if ring == 0 { WRITE } else { 0 };
            for n in 0..SIZE {
                let flags = write | if n % 4 == 3 { 0 } else { NEXT };
                describe(guest, ring, n, [good(guest, ring, n), 0], flags, (n + 1) % SIZE)?;
            }
            guest.rings[ring].offer(&guest.memory, (0..SIZE).step_by(4))?;
        }
        Ok(())
    })
}

/// Names buffers that are far too long, and that end beyond the last address.
pub fn huge_lengths(place: &Place) -> io::Result<String> {
    spoil_guests(place, |place, guest| {
        let len = place.random().one_of(&[0xffff_ffff, 0x8000_0000, 1 << 20, 65_550, MEMORY, MEMORY + 1]);
        let address = place.random().one_of(&[GUEST, GUEST + MEMORY - 64, u64::MAX - 16, 1 << 63]);
        for ring in [0, 1] {
            describe(guest, ring, 9, [address, len], if ring == 0 { WRITE } else { 0 }, 0)?;
            offer(guest, ring, 9)?;
        }
        Ok(())
    })
}

/// Names buffers where no memory is, also just before and behind it.
pub fn unmapped_addresses(place: &Place) -> io::Result<String> {
    spoil_guests(place, |place, guest| {
        let any = place.random().next_u64();
        let all = [0, 8, GUEST - 64, GUEST + MEMORY, GUEST + MEMORY - 10, u64::MAX - 63, any];
        let address = place.random().one_of(&all);
        describe(guest, 1, 7, [address, 128], 0, 0)?;
        offer(guest, 1, 7)?;
        describe(guest, 0, 7, [address, 2048], WRITE, 0)?;
        offer(guest, 0, 7)
    })
}

/// Lets the available indices jump forwards and backwards.
pub fn index_jumps(place: &Place) -> io::Result<String> {
    spoil_guests(place, |place, guest| {
        for ring in [0, 1] {
            let any = place.random().next_u64() as u16;
            let jump = place.random().one_of(&[SIZE + 1, u16::MAX, 0x8000, any]);
            let ring = &guest.rings[ring];
            ring.show(&guest.memory, ring.offered().wrapping_add(jump))?;
        }
        Ok(())
    })
}

/// Offers chains that begin, or go on, beyond the descriptor table.
pub fn heads_beyond(place: &Place) -> io::Result<String> {
    spoil_guests(place, |place, guest| {
        let head = place.random().one_of(&[SIZE, SIZE + 1, 0x7fff, u16::MAX]);
        describe(guest, 1, 3, [good(guest, 1, 3), 64], NEXT, head)?;
        let first = place.random().one_of(&[3, head]);
        offer(guest, 1, first)?;
        offer(guest, 0, head)
    })
}

/// Lays used ring and descriptor table, or used and available ring, over each other.
pub fn overlapping_rings(place: &Place) -> io::Result<String> {
    let mut guests = 0;
    let mut refused = 0;
    drop(place.guest()?);
    while !place.is_over() {
        // The used ring is 16 KiB behind the table and 8 KiB behind the available ring.
        let used_moves = place.random().one_of(&[-0x4000, -0x4000 + 64, -0x2000, -0x2000 + 8, 0x4000, 3]);
        let setup = Setup { used_moves, ..Setup::default() };
        match place.guest_with(&setup) {
            Ok(mut guest) => {
                for _ in 0..20 {
                    guest.burst(|| datagram(place, 1, 200))?;
                }
                guests += 1;
            }
            Err(_) => refused += 1,
        }
    }
    Ok(format!("{guests} guests, {refused} refused"))
}

/// Sets rings up with sizes that are none.
pub fn strange_sizes(place: &Place) -> io::Result<String> {
    let (mut guests, mut refused) = (0, 0);
    drop(place.guest()?);
    while !place.is_over() {
        let size = place.random().one_of(&[0, 1, 2, 3, 255, 257, 512, 1024, 2048, 32_768, 32_769, 65_535]);
        match place.guest_with(&Setup { size, ..Setup::default() }) {
            Ok(mut guest) => {
                for _ in 0..5 {
                    guest.burst(|| datagram(place, 1, 200))?;
                }
                guests += 1;
            }
            Err(_) => refused += 1,
        }
    }
    Ok(format!("{guests} guests, {refused} refused"))
}

/// Writes random bytes into the rings, and puts them right again, while frames are offered.
pub fn changing_rings(place: &Place) -> io::Result<String> {
    spoil_guests(place, |place, guest| {
        for _ in 0..50 {
            let ring = place.random().below(2) as usize;
            let part = place.random().below(3) as usize;
            let at = guest.rings[ring].parts()[part] + 2 * place.random().below(600);
            let mut was = [0; 2];
            guest.memory.read(at, &mut was)?;
            guest.memory.store(at, place.random().next_u64() as u16)?;
            guest.put([0; HEADER], &datagram(place, 1, 300), 1)?;
            guest.kick(1)?;
            guest.memory.write(at, &was)?;
        }
        Ok(())
    })
}

/// Offers buffers whose direction is wrong.
pub fn writable_transmit(place: &Place) -> io::Result<String> {
    spoil_guests(place, |_, guest| {
        describe(guest, 1, 11, [good(guest, 1, 11), 100], WRITE | NEXT, 12)?;
        describe(guest, 1, 12, [good(guest, 1, 12), 100], 0, 0)?;
        offer(guest, 1, 11)?;
        describe(guest, 0, 11, [good(guest, 0, 11), BUFFER], 0, 0)?;
        offer(guest, 0, 11)
    })
}

/// Uses up the receive ring and never fills it again; the peer's frames come all the same.
pub fn no_receive_buffers(place: &Place) -> io::Result<String> {
    let mut guest = place.guest()?;
    let mut sent = 0;
    while !place.is_over() {
        // The peer answers each. Not a flood, which would fill the other host's uplink.
        for _ in 0..FRAMES {
            sent += u64::from(guest.put([0; HEADER], &datagram(place, 7, 400), 1)?);
        }
        guest.kick(1)?;
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(format!("{sent} frames, {} buffers left", guest.rings[0].in_flight(&guest.memory)?))
}
