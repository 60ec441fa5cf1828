//! Attacks by how a VMM connects, speaks and leaves.

use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::time::Duration;

use super::frames::datagram;
use crate::guest::{Guest, Setup};
use crate::place::Place;
use crate::socket::{MAX_FDS, connect, send};
use crate::target::Target;
use crate::vfio_user::{self, command, longs, words};
use crate::vhost_user::{self, request};

/// The first message of a conversation.
fn hello(place: &Place) -> Vec<u8> {
    if place.target == Target::Vf {
        vfio_user::version()
    } else {
        vhost_user::message(request::GET_FEATURES, 1, 0, &[])
    }
}

/// Connects and says nothing.
pub fn silence(place: &Place) -> io::Result<String> {
    let _open = place.connection()?;
    place.sit_out();
    Ok("said nothing".into())
}

/// Says half of what it began, and a header whose body never comes.
pub fn half_message(place: &Place) -> io::Result<String> {
    let whole = hello(place);
    let end = place.end();
    let half = end.saturating_duration_since(std::time::Instant::now()) / 2;
    let stream = place.connection()?;
    send(&stream, &whole[..whole.len() / 2], &[])?;
    std::thread::sleep(half);
    drop(stream);
    let stream = place.connection()?;
    let header = if place.target == Target::Vf {
        vfio_user::message(9, command::DMA_MAP, 1 << 20, 0, 0, &[0; 8])
    } else {
        vhost_user::message(request::SET_MEM_TABLE, 1, 1000, &[0; 8])
    };
    send(&stream, &header, &[])?;
    place.sit_out();
    Ok("left two messages unfinished".into())
}

/// Sends messages in single bytes.
pub fn byte_by_byte(place: &Place) -> io::Result<String> {
    let mut stream = place.connection()?;
    let mut sent = 0;
    while !place.is_over() {
        for byte in hello(place) {
            stream.write_all(&[byte])?;
            std::thread::sleep(Duration::from_millis(1));
            sent += 1;
        }
    }
    Ok(format!("{sent} bytes"))
}

/// Sends requests and never reads the replies, until the socket is full both ways.
pub fn never_reads(place: &Place) -> io::Result<String> {
    let guest = place.guest()?;
    rustix::io::ioctl_fionbio(guest.socket(), true)?;
    let message = if place.target == Target::Vf {
        let body = [longs(&[0]), words(&[7, 256])].concat();
        vfio_user::message(77, command::REGION_READ, 32, 0, 0, &body)
    } else {
        hello(place)
    };
    let mut sent = 0_u64;
    while !place.is_over() {
        match rustix::io::write(guest.socket(), &message) {
            Ok(n) if n == message.len() => sent += 1,
            // Full; or cut in the middle, after which nothing makes sense any more.
            Ok(_) => break,
            Err(rustix::io::Errno::AGAIN) => std::thread::sleep(Duration::from_millis(1)),
            Err(e) => return Err(e.into()),
        }
    }
    place.sit_out();
    Ok(format!("{sent} requests"))
}

/// Brings a guest up with a budget of one message, of two, and so on, and leaves when it is spent.
pub fn leaves_at_each_step(place: &Place) -> io::Result<String> {
    drop(place.guest()?);
    let mut steps = 0;
    for budget in 0..120 {
        steps = budget;
        if Guest::bring_up(place.target, place.socket(), &Setup { budget: Some(budget), ..Setup::default() })
            .is_ok()
        {
            break;
        }
    }
    // From then on, between frames.
    let mut left = 0;
    while !place.is_over() {
        let mut guest = place.guest()?;
        for _ in 0..place.random().below(4) {
            guest.trickle(|| datagram(place, 7, 300))?;
        }
        left += 1;
    }
    Ok(format!("left at each of {steps} steps, and {left} times under traffic"))
}

/// Connects a thousand times, and keeps a hundred connections.
pub fn connect_flood(place: &Place) -> io::Result<String> {
    let first = place.connection()?;
    let (mut done, mut kept) = (0, vec![first]);
    for n in 0..1000 {
        // A full backlog makes connect wait; another connection would too.
        let stream = rustix::net::socket_with(
            rustix::net::AddressFamily::UNIX,
            rustix::net::SocketType::STREAM,
            rustix::net::SocketFlags::NONBLOCK | rustix::net::SocketFlags::CLOEXEC,
            None,
        )?;
        let address = rustix::net::SocketAddrUnix::new(place.socket())?;
        if rustix::net::connect(&stream, &address).is_ok() {
            done += 1;
            if n % 10 == 0 {
                kept.push(stream.into());
            }
        }
    }
    place.sit_out();
    Ok(format!("{done} of 1,000 connected, {} kept", kept.len()))
}

/// Sends as many descriptors with each message as the kernel lets pass, whatever the message is.
pub fn descriptor_flood(place: &Place) -> io::Result<String> {
    let file = rustix::fs::memfd_create(crate::memory::NAME, rustix::fs::MemfdFlags::CLOEXEC)?;
    rustix::fs::ftruncate(&file, 4096)?;
    let mut sent = 0;
    drop(place.connection()?);
    while !place.is_over() {
        let Ok(stream) = connect(place.socket()) else { continue };
        for count in [MAX_FDS, 64, 33, 17, 9, 1] {
            let fds = vec![file.as_fd(); count];
            // Both a message that takes descriptors, and one that takes none; and some with half a message.
            let message = hello(place);
            let part = if count % 2 == 0 { &message[..message.len() / 2] } else { &message[..] };
            if send(&stream, part, &fds).is_err() {
                break;
            }
            sent += count;
        }
    }
    Ok(format!("{sent} descriptors"))
}
