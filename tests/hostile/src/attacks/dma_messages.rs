//! Attacks by memory that a VF can reach by messages only: the client serves them, or does not.

use std::collections::VecDeque;
use std::io;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::memory::GUEST;
use crate::place::Place;
use crate::vfio_user::{CONFIG, Client, Message, command, dma_map, dma_unmap, flag};

/// Length of the memory without a file.
const LEN: u64 = 0x10_0000;

/// Maps memory without a file, with all rings in it, and kicks: the device must ask for each descriptor.
fn begin(place: &Place) -> io::Result<Client> {
    let mut client = place.vfio_user()?;
    client.call(command::DMA_MAP, &dma_map(0, GUEST, LEN), &[])?;
    client.call(command::DMA_MAP, &dma_map(0, GUEST + (1 << 32), LEN), &[])?;
    client.write(CONFIG, 4, &6_u16.to_le_bytes())?;
    run(&mut client)?;
    Ok(client)
}

/// Lets the device run with rings in that memory, without waiting for a reply. The common configuration lies where the board has
/// it.
fn run(client: &mut Client) -> io::Result<()> {
    for status in [0_u8, 1, 3] {
        client.post(0, 0x14, &[status])?;
    }
    client.post(0, 8, &1_u32.to_le_bytes())?;
    client.post(0, 12, &1_u32.to_le_bytes())?;
    client.post(0, 0x14, &[0x0b])?;
    for queue in 0..2_u16 {
        client.post(0, 0x16, &queue.to_le_bytes())?;
        client.post(0, 0x18, &16_u16.to_le_bytes())?;
        let at = GUEST + 0x4000 * u64::from(queue);
        for (register, address) in [(0x20, at), (0x28, at + 0x1000), (0x30, at + 0x2000)] {
            client.post(0, register, &(address as u32).to_le_bytes())?;
            client.post(0, register + 4, &((address >> 32) as u32).to_le_bytes())?;
        }
        client.post(0, 0x1c, &1_u16.to_le_bytes())?;
    }
    client.post(0, 0x14, &[0x0f])?;
    kick(client)
}

fn kick(client: &mut Client) -> io::Result<()> {
    client.post(0, 0x3004, &1_u16.to_le_bytes())?;
    client.post(0, 0x3000, &0_u16.to_le_bytes())
}

/// The device's next request, if one comes within 20 ms.
fn next(client: &mut Client) -> io::Result<Option<Message>> {
    if let Some(request) = client.requests.pop_front() {
        return Ok(Some(request));
    }
    if !readable(&client.stream)? {
        return Ok(None);
    }
    let message = client.receive()?;
    Ok(Some(message).filter(|m| m.flags & flag::REPLY == 0))
}

fn readable(stream: &UnixStream) -> io::Result<bool> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut asked = [PollFd::new(stream, PollFlags::IN)];
    Ok(poll(&mut asked, Some(&Timespec { tv_sec: 0, tv_nsec: 20_000_000 }))? > 0)
}

/// Bytes that a read wants: an available index that is always ahead, so that the device goes on.
fn content(request: &Message) -> (Vec<u8>, Vec<u8>) {
    let head = request.body.get(..16).unwrap_or_default().to_vec();
    let count = request.body.get(8..16).and_then(|b| b.first_chunk()).map_or(0, |b| u64::from_le_bytes(*b));
    (head, vec![1; count.min(1 << 20) as usize])
}

/// Answers nothing, and begins anew whenever the device has given up.
pub fn unanswered(place: &Place) -> io::Result<String> {
    let mut client = begin(place)?;
    let (mut requests, mut rounds) = (0, 0);
    while !place.is_over() {
        match next(&mut client)? {
            Some(_) => requests += 1,
            None => {
                run(&mut client)?;
                rounds += 1;
            }
        }
    }
    Ok(format!("{requests} requests left unanswered in {rounds} rounds"))
}

/// Answers each request as it should, 200 ms later.
pub fn slow(place: &Place) -> io::Result<String> {
    let mut client = begin(place)?;
    let mut answered = 0;
    while !place.is_over() {
        let Some(request) = next(&mut client)? else {
            kick(&mut client)?;
            continue;
        };
        std::thread::sleep(Duration::from_millis(200));
        let (head, data) = content(&request);
        let body = if request.command == command::DMA_READ { [head, data].concat() } else { head };
        client.answer(request.id, request.command, 0, 0, &body)?;
        answered += 1;
    }
    Ok(format!("{answered} answered"))
}

/// Answers with what was not asked for.
pub fn wrong(place: &Place) -> io::Result<String> {
    let mut client = begin(place)?;
    let mut answered = 0;
    let mut old: VecDeque<u16> = VecDeque::new();
    while !place.is_over() {
        let Some(request) = next(&mut client)? else {
            run(&mut client)?;
            continue;
        };
        let (head, data) = content(&request);
        let (id, read) = (request.id, request.command);
        let good = [head.clone(), data].concat();
        match place.random().below(9) {
            0 => client.answer(id, read, flag::ERROR, 5, &[])?,
            1 => client.answer(id, read, flag::ERROR, 0, &good)?,
            2 => client.answer(id, read, 0, 0, &good[..good.len().saturating_sub(1)])?,
            3 => client.answer(id, read, 0, 0, &[good, vec![7; 4096]].concat())?,
            4 => client.answer(id.wrapping_add(1), read, 0, 0, &good)?,
            5 => client.answer(id, command::DMA_WRITE, 0, 0, &good)?,
            6 => {
                client.answer(id, read, 0, 0, &good)?;
                client.answer(id, read, 0, 0, &good)?;
            }
            7 => client.answer(old.pop_front().unwrap_or(0), read, 0, 0, &good)?,
            _ => client.answer(id, read, 0, 0, &[])?,
        }
        old.push_back(id);
        old.truncate(16);
        answered += 1;
    }
    Ok(format!("{answered} answered"))
}

/// Unmaps one range while the device waits for bytes of the other, and answers it only then, as QEMU's main loop does.
pub fn unmap_while_reading(place: &Place) -> io::Result<String> {
    let mut client = begin(place)?;
    let (mut longest, mut rounds) = (Duration::ZERO, 0);
    while !place.is_over() {
        let Some(request) = next(&mut client)? else {
            run(&mut client)?;
            continue;
        };
        let begin = std::time::Instant::now();
        let other = GUEST + (1 << 32);
        // An answer that takes more than two seconds ends the attack.
        client.call(command::DMA_UNMAP, &dma_unmap(other, LEN), &[])?;
        longest = longest.max(begin.elapsed());
        let (head, data) = content(&request);
        client.answer(request.id, request.command, 0, 0, &[head, data].concat())?;
        client.call(command::DMA_MAP, &dma_map(0, other, LEN), &[])?;
        rounds += 1;
    }
    Ok(format!("{rounds} rounds, DMA_UNMAP took {} ms at most", longest.as_millis()))
}
