//! Attacks by messages whose form is right and whose content is not.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};

use super::frames::datagram;
use crate::guest::Vmm;
use crate::memory::{GUEST, USER};
use crate::place::Place;
use crate::random::Random;
use crate::ring::MEMORY;
use crate::socket::send;
use crate::vfio_user::{self, Client};
use crate::vhost_user;

/// A number that is likely to mean something.
fn number(random: &mut Random) -> u64 {
    let (any, small, page) = (random.next_u64(), random.below(64), random.below(512) << 12);
    let near = [GUEST, USER, GUEST + page, USER + page];
    let (inside, edge) =
        (random.one_of(&near), random.one_of(&[MEMORY, 4096, 0, u64::MAX, 1 << 32, 1 << 63]));
    random.one_of(&[any, small, small, inside, inside, edge])
}

/// Throws away what has arrived, so that the other side never waits for room.
fn swallow(socket: BorrowedFd<'_>) {
    let mut room = vec![0; 1 << 16];
    let flags = rustix::net::RecvFlags::DONTWAIT;
    while rustix::net::recv(socket, &mut room[..], flags).is_ok_and(|(n, _)| n > 0) {}
}

/// Sends messages of random commands, fields, lengths and descriptors, while frames pass.
pub fn random_messages(place: &Place) -> io::Result<String> {
    let file = rustix::fs::memfd_create(crate::memory::NAME, rustix::fs::MemfdFlags::CLOEXEC)?;
    rustix::fs::ftruncate(&file, MEMORY)?;
    let event = rustix::event::eventfd(0, rustix::event::EventfdFlags::NONBLOCK)?;
    let (mut sent, mut connections) = (0, 0);
    while !place.is_over() {
        let mut guest = place.guest()?;
        connections += 1;
        // The lesser part breaks the framing.
        for _ in 0..200 {
            let mut random = place.random();
            let command = random.below(24) as u32;
            let longs: Vec<u64> = (0..random.below(8)).map(|_| number(&mut random)).collect();
            let mut body: Vec<u8> = longs.iter().flat_map(|v| v.to_le_bytes()).collect();
            if random.below(2) == 0 && body.len() >= 8 {
                // Numbers of regions and rings are often small words.
                body[..4].copy_from_slice(&(random.below(4) as u32).to_le_bytes());
            }
            let framed = random.below(50) != 0;
            let len = if framed { body.len() as u32 } else { random.next_u64() as u32 };
            let (flags, id) = (random.one_of(&[0, 0, 0, 16, 1, 0x21]), random.next_u64() as u16);
            let fd = random.one_of(&[file.as_fd(), event.as_fd()]);
            let count = random.one_of(&[0, 0, 1, 1, 2]);
            let message = match guest.vmm {
                Vmm::Vfio(_) => {
                    let size = if framed { 16 + len } else { len };
                    vfio_user::message(id, command as u16, size, flags, 0, &body)
                }
                Vmm::Vhost(_) => vhost_user::message(command, 1 | (flags & 8), len, &body),
            };
            let stream = match &guest.vmm {
                Vmm::Vfio(client) => &client.stream,
                Vmm::Vhost(client) => &client.stream,
            };
            if send(stream, &message, &vec![fd; count]).is_err() {
                break;
            }
            sent += 1;
            swallow(guest.socket());
            if guest.trickle(|| datagram(place, 7, 200)).is_err() || place.is_over() {
                break;
            }
        }
    }
    Ok(format!("{sent} messages on {connections} connections"))
}

/// Reads and writes regions at random offsets and lengths.
pub fn random_regions(place: &Place) -> io::Result<String> {
    let (mut good, mut refused, mut connections) = (0, 0, 0);
    while !place.is_over() {
        let mut client: Client = place.vfio_user()?;
        connections += 1;
        while !place.is_over() {
            match random_access(place, &mut client) {
                Ok(()) => good += 1,
                Err(e)
                    if e.kind() == io::ErrorKind::UnexpectedEof || e.kind() == io::ErrorKind::BrokenPipe =>
                {
                    break;
                }
                Err(_) => refused += 1,
            }
        }
    }
    Ok(format!("{good} done, {refused} refused, {connections} connections"))
}

fn random_access(place: &Place, client: &mut Client) -> io::Result<()> {
    let mut random = place.random();
    let region = random.one_of(&[0, 0, 0, 1, 2, 4, 7, 7, 8, 9, 0xffff_ffff]);
    let (near, any) = (random.below(0x5000), random.next_u64());
    let offset = random.one_of(&[near, near, near, any, u64::MAX, 0xffc]);
    let len = random.one_of(&[0, 1, 2, 3, 4, 8, 16, 4096, 1 << 20, 0xffff_ffff]);
    let data = random.bytes((len as usize).min(64));
    if random.below(2) == 0 {
        client.write(region, offset, &data)
    } else {
        client.read(region, offset, len).map(drop)
    }
}
