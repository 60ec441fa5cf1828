//! Attacks by the files that a VMM gives a device to signal it by, or to be signalled by.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use rustix::event::{EventfdFlags, epoll, eventfd};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};

use super::frames::datagram;
use crate::guest::{Guest, Vmm};
use crate::place::Place;
use crate::vhost_user::request;

/// Makes a file the interrupt of a ring.
fn set_call(guest: &mut Guest, ring: usize, fd: BorrowedFd<'_>) -> io::Result<()> {
    match &mut guest.vmm {
        Vmm::Vfio(client) => client.set_vector(ring as u32, fd),
        Vmm::Vhost(client) => client.set_file(request::SET_VRING_CALL, ring as u64, fd),
    }
}

/// Clears O_NONBLOCK, which sender and receiver of an eventfd share.
fn make_blocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    Ok(fcntl_setfl(fd, fcntl_getfl(fd)? - OFlags::NONBLOCK)?)
}

/// Keeps traffic up in both directions, so that there are interrupts.
fn traffic(place: &Place, guest: &mut Guest) -> io::Result<u64> {
    let sent = guest.trickle(|| datagram(place, 7, 100))?;
    guest.recycle()?;
    Ok(sent)
}

/// Fills the eventfds, so that the next write to them blocks.
pub fn full_calls(place: &Place) -> io::Result<String> {
    let mut guest = place.guest()?;
    let mut sent = 0;
    while !place.is_over() {
        for call in &guest.calls {
            // Emptied and filled without waiting, since the device writes to it, too.
            fcntl_setfl(call, OFlags::NONBLOCK)?;
            let _empty = rustix::io::read(call, &mut [0; 8]);
            let _full = rustix::io::write(call, &(u64::MAX - 1).to_ne_bytes());
            make_blocking(call.as_fd())?;
        }
        sent += traffic(place, &mut guest)?;
    }
    Ok(format!("{sent} frames"))
}

/// Keeps the eventfds all but full, so that whoever looks first and writes then may still block.
pub fn emptied_calls(place: &Place) -> io::Result<String> {
    let mut guest = place.guest()?;
    let calls = guest.calls.iter().map(|call| call.try_clone()).collect::<io::Result<Vec<_>>>()?;
    let (mut sent, end) = (0, place.end());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while Instant::now() < end {
                for call in &calls {
                    let _blocking = make_blocking(call.as_fd());
                    let nonblocking = fcntl_setfl(call, OFlags::NONBLOCK);
                    let _emptied = nonblocking.and_then(|()| rustix::io::read(call, &mut [0; 8]));
                    let _filled = rustix::io::write(call, &(u64::MAX - 2).to_ne_bytes());
                    let _blocking = make_blocking(call.as_fd());
                }
            }
        });
        while !place.is_over() {
            sent += traffic(place, &mut guest)?;
        }
        Ok(format!("{sent} frames"))
    })
}

fn full_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::NONBLOCK)?;
    while rustix::io::write(&writer, &[0; 4096]).is_ok() {}
    make_blocking(writer.as_fd())?;
    Ok((reader, writer))
}

fn full_socket() -> io::Result<(UnixStream, UnixStream)> {
    let (one, other) = UnixStream::pair()?;
    one.set_nonblocking(true)?;
    while rustix::io::write(&one, &[0; 4096]).is_ok() {}
    one.set_nonblocking(false)?;
    Ok((one, other))
}

/// Gives these files as interrupts; which of them are taken, and frames sent with them.
fn other_files(place: &Place, files: &[(&str, OwnedFd)]) -> io::Result<String> {
    let mut seen = Vec::new();
    drop(place.guest()?);
    for (name, file) in files {
        let Ok(mut guest) = place.guest() else { continue };
        let taken = (0..guest.rings.len()).filter(|ring| set_call(&mut guest, *ring, file.as_fd()).is_ok());
        let taken: Vec<usize> = taken.collect();
        seen.push(format!("{name}: {} taken", taken.len()));
        for _ in 0..20 {
            // A connection that was closed over it is an answer, too.
            if traffic(place, &mut guest).is_err() {
                break;
            }
        }
    }
    Ok(seen.join(", "))
}

/// Pipes and sockets that are full.
pub fn pipe_calls(place: &Place) -> io::Result<String> {
    let (_reader, pipe) = full_pipe()?;
    let (socket, _other) = full_socket()?;
    other_files(place, &[("pipe", pipe), ("socket", socket.into())])
}

/// Pipes and sockets whose other end is closed: a write raises SIGPIPE.
pub fn closed_calls(place: &Place) -> io::Result<String> {
    let (reader, pipe) = full_pipe()?;
    let (socket, other) = full_socket()?;
    drop((reader, other));
    let (gone, _) = rustix::pipe::pipe()?;
    other_files(place, &[("pipe", pipe), ("socket", socket.into()), ("reader", gone)])
}

/// What else can be written to, or not.
fn odd_files() -> io::Result<Vec<(&'static str, OwnedFd)>> {
    let file = File::from(rustix::fs::memfd_create("call", rustix::fs::MemfdFlags::CLOEXEC)?);
    let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::empty())?;
    let semaphore = eventfd(u32::MAX, EventfdFlags::SEMAPHORE)?;
    let folder = File::open("/")?;
    Ok(vec![
        ("file", file.into()),
        ("timer", timer),
        ("semaphore", semaphore),
        ("folder", folder.into()),
        ("epoll", epoll::create(epoll::CreateFlags::CLOEXEC)?),
        ("null", File::options().write(true).open("/dev/null")?.into()),
        ("full", File::options().write(true).open("/dev/full")?.into()),
    ])
}

/// Files, timers, epolls, folders.
pub fn other_calls(place: &Place) -> io::Result<String> {
    other_files(place, &odd_files()?)
}

/// Kicks by files that are no eventfds, or always readable.
pub fn other_kicks(place: &Place) -> io::Result<String> {
    let mut files = odd_files()?;
    files.push(("pipe", full_pipe()?.0));
    files.push(("zero", File::open("/dev/zero")?.into()));
    let mut seen = Vec::new();
    drop(place.guest()?);
    for (name, file) in &files {
        let Ok(mut guest) = place.guest() else { continue };
        let Vmm::Vhost(client) = &mut guest.vmm else { break };
        let taken = (0..2).filter(|n| client.set_file(request::SET_VRING_KICK, *n, file.as_fd()).is_ok());
        seen.push(format!("{name}: {} taken", taken.count()));
        for _ in 0..20 {
            if traffic(place, &mut guest).is_err() {
                break;
            }
        }
    }
    Ok(seen.join(", "))
}
