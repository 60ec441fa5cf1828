//! One thread that plays the guests of a case: sends what finds room, takes what has come, and counts.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::Way;
use super::guest::{Guest, HEADER};
use super::memory::Memory;
use crate::clock::cycles;
use crate::generator::{Generator, Order};
use crate::peers::frame::check_inner;
use crate::work::{self, Kind};

/// Frames that are sent together.
const BURST: usize = 32;
/// Bytes that are written for each frame: its headers.
const HEAD: usize = 128;
/// Where an untagged frame's ports are.
const PORTS: usize = HEADER + 34;
/// Time in which something must come.
const PATIENCE: Duration = Duration::from_secs(5);

/// The guests of a case: who sends, who receives.
pub struct Client {
    sender: Option<Guest>,
    receiver: Option<Guest>,
    frames: Frames,
    /// Sum of the ports that were read: frames are looked at.
    seen: u64,
    credit: Option<Credit>,
}

/// What comes from the wire is held back as TCP would: else most of it would find no room whenever this thread does not run.
struct Credit {
    /// What is to be added to the number of received frames.
    ahead: u64,
    tell: Box<dyn Fn(u64)>,
}

/// Frames that may be on their way from the wire: fewer than the guest has buffers for.
const WINDOW: u64 = 224;

/// What a guest sends.
struct Frames {
    generator: Generator,
    order: Order,
    flows: u32,
}

/// What a window of time showed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// Frames at the end of their way: a guest has received them, or the switch has taken them to the wire.
    pub packets: u64,
    /// The window.
    pub seconds: f64,
    /// Cycles of the client per frame, in turns with something to do.
    pub busy: f64,
    /// The part of the time in which the client found nothing to do: the switch is what it waits for.
    pub idle: f64,
}

impl Client {
    /// Guests at the sockets of those who are on this host.
    ///
    /// # Errors
    /// A port refuses them.
    pub fn connected(way: Way, socket: impl Fn(&str) -> PathBuf) -> Result<Self, String> {
        let guest = |there: bool, name: &str| there.then(|| Guest::connected(&socket(name))).transpose();
        Ok(Client::of(guest(way.sends(), "a")?, guest(way.receives(), "b")?))
    }

    /// Guests without a switch, to see what they cost.
    ///
    /// # Errors
    /// There is no memory.
    pub fn alone(way: Way) -> Result<Self, String> {
        let guest = |there: bool| there.then(Guest::new).transpose();
        Ok(Client::of(guest(way.sends())?, guest(way.receives())?))
    }

    fn of(sender: Option<Guest>, receiver: Option<Guest>) -> Self {
        let frames = Frames { generator: generator(64), order: Order::default(), flows: 1 };
        Client { sender, receiver, frames, seen: 0, credit: None }
    }

    /// From now on, frames are so long and of so many flows.
    pub fn prepare(&mut self, bytes: usize, flows: u32) {
        self.frames = Frames { generator: generator(bytes), order: Order::default(), flows };
        if let Some(guest) = &mut self.sender {
            guest.transmit.reclaim();
            let mut whole = vec![0; HEADER + bytes];
            self.frames.generator.write_payload(&mut whole[HEADER..]);
            guest.write_buffers(&whole);
        }
    }

    /// The wire, which has written so many frames so far, is told from now on how many it may have written in all.
    pub fn give_credit(&mut self, written: u64, tell: impl Fn(u64) + 'static) {
        let ahead = written.wrapping_sub(self.arrived()).wrapping_add(WINDOW);
        tell(self.arrived().wrapping_add(ahead));
        self.credit = Some(Credit { ahead, tell: Box::new(tell) });
    }

    /// One turn: everything that has come, then a burst. Returns how many frames that were.
    #[inline]
    fn turn(&mut self, send: bool) -> usize {
        let mut moved = 0;
        // Taken before anything is sent: so a receive ring, which is as long as a transmit ring, seldom overflows.
        if let Some(guest) = &mut self.receiver {
            let seen = &mut self.seen;
            moved += guest.receive.take(|memory, at, _| {
                *seen = seen.wrapping_add(u64::from(u32::from_ne_bytes(memory.read(at + PORTS))));
            });
            if let Some(credit) = self.credit.as_ref().filter(|_| moved > 0) {
                (credit.tell)(guest.receive.frames.wrapping_add(credit.ahead));
            }
        }
        if let Some(guest) = self.sender.as_mut().filter(|_| send) {
            moved += self.frames.send(guest, BURST);
        }
        moved
    }

    /// Frames that have come to the end of their way.
    fn arrived(&self) -> u64 {
        match (&self.receiver, &self.sender) {
            (Some(guest), _) => guest.receive.frames,
            (None, Some(guest)) => guest.transmit.taken,
            (None, None) => 0,
        }
    }

    /// Sends and receives for so long. If nobody serves the guests, it is done here, at next to no cost.
    pub fn run(&mut self, time: Duration, served: bool) -> Seen {
        let (start, before) = (Instant::now(), self.arrived());
        let (mut idle, mut busy, mut last) = (0, 0, cycles());
        while start.elapsed() < time {
            for _ in 0..64 {
                let moved = self.turn(true);
                if !served {
                    self.serve();
                }
                let now = cycles();
                *(if moved == 0 { &mut idle } else { &mut busy }) += now - last;
                last = now;
            }
        }
        let packets = self.arrived() - before;
        let all = (idle + busy).max(1) as f64;
        let busy = busy as f64 / packets.max(1) as f64;
        Seen { packets, seconds: start.elapsed().as_secs_f64(), busy, idle: idle as f64 / all }
    }

    fn serve(&self) {
        let len = self.frames.generator.len();
        for guest in self.sender.iter().chain(&self.receiver) {
            guest.serve(len);
        }
    }

    /// Sends nothing more and takes what is still under way, until nothing has come for a while. Frames that were sent and that
    /// came, since the beginning.
    pub fn settle(&mut self) -> (u64, u64) {
        let mut quiet = Instant::now();
        let end = quiet + PATIENCE;
        while quiet.elapsed() < Duration::from_millis(10) && Instant::now() < end {
            if self.turn(false) > 0 || self.reclaim() {
                quiet = Instant::now();
            }
        }
        let taken = self.sender.as_ref().map_or(0, |guest| guest.transmit.taken);
        (taken, self.receiver.as_ref().map_or(0, |guest| guest.receive.frames))
    }

    /// `true`: the switch has yet to take frames.
    fn reclaim(&mut self) -> bool {
        self.sender.as_mut().is_some_and(|guest| {
            guest.transmit.reclaim();
            guest.transmit.under_way() > 0
        })
    }

    /// Sees that frames come as they were sent, every byte of them.
    ///
    /// # Errors
    /// None comes, or another one.
    pub fn verify(&mut self, bytes: usize) -> Result<(), String> {
        let Some(guest) = &mut self.receiver else { return Ok(()) };
        let (mut frame, end) = (Vec::new(), Instant::now() + PATIENCE);
        while frame.is_empty() && Instant::now() < end {
            if let Some(sender) = &mut self.sender {
                self.frames.send(sender, 1);
            }
            let mut copy = |memory: &Memory, at: usize, len: u32| {
                frame = (0..len as usize).map(|n| memory.read::<1>(at + n)[0]).skip(HEADER).collect();
            };
            guest.receive.take(&mut copy);
            if let Some(credit) = &self.credit {
                (credit.tell)(guest.receive.frames.wrapping_add(credit.ahead));
            }
        }
        check_inner(work::pair_frame(INNER, 0, bytes), &frame)
    }

    /// Kicks that the switch asked for.
    pub fn kicks(&self) -> u64 {
        let guests = self.sender.iter().chain(&self.receiver);
        guests.map(|guest| guest.transmit.ring.kicks + guest.receive.ring.kicks).sum()
    }
}

/// Frames as guests see them.
const INNER: Kind = Kind { decap: false, encap: culvert_packet::Encap::Vxlan };

fn generator(bytes: usize) -> Generator {
    Generator::pair(INNER, bytes)
}

impl Frames {
    #[inline(always)]
    fn send(&mut self, guest: &mut Guest, most: usize) -> usize {
        let (order, generator, flows) = (&mut self.order, &self.generator, self.flows);
        let len = generator.len();
        let written = HEADER + len.min(HEAD);
        // The header asks for nothing.
        let mut head = [0; HEADER + HEAD];
        guest.transmit.send(most, HEADER + len, |memory, at| {
            generator.write(order.next(flows), &mut head[HEADER..]);
            memory.write(at, &head[..written]);
        })
    }
}
