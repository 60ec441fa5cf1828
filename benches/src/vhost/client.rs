//! One thread that runs the guests of a case: it sends, receives and counts.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::guest::{Guest, HEADER};
use super::traffic::Traffic;
use crate::clock::cycles;
use crate::generator::{Generator, Order};
use crate::ovs_dpdk::frame::check_inner;
use crate::shared_memory::SharedMemory;
use crate::work::{self, Kind};

/// Frames sent together.
const BURST: usize = 32;
/// Bytes written for each frame: its headers.
const HEAD: usize = 128;
/// Offset of an untagged frame's ports.
const PORTS: usize = HEADER + 34;
/// Limit for the arrival of a frame.
const PATIENCE: Duration = Duration::from_secs(5);

/// The guests of a case: the sender and the receiver, as far as they are on this host.
pub struct Client {
    sender: Option<Guest>,
    receiver: Option<Guest>,
    frames: Frames,
    /// Sum of the received ports, so that frames are really read.
    port_sum: u64,
    credit: Option<Credit>,
}

/// Flow control of frames from the wire, as TCP would do it: without it, most frames would be dropped while this thread does not
/// run.
struct Credit {
    /// Offset from the number of received frames to the limit of sent ones.
    ahead: u64,
    set_limit: Box<dyn Fn(u64)>,
}

/// Frames that may be in flight from the wire: fewer than the guest has buffers.
const WINDOW: u64 = 224;

/// The frames that a guest sends.
struct Frames {
    generator: Generator,
    order: Order,
    flows: u32,
}

/// The client's part of a measurement.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClientSample {
    /// Delivered frames: a guest has received them, or the switch has taken them to the wire.
    pub packets: u64,
    /// Duration.
    pub seconds: f64,
    /// Cycles of the client per frame, in rounds that moved frames.
    pub busy: f64,
    /// The fraction of the time in which the client waited for the switch.
    pub idle: f64,
}

impl Client {
    /// Guests connected to the sockets of this host's VMs, `a` and `b`.
    ///
    /// # Errors
    /// A port refuses the connection.
    pub fn connected(traffic: Traffic, socket: impl Fn(&str) -> PathBuf) -> Result<Self, String> {
        let guest = |there: bool, name: &str| there.then(|| Guest::connected(&socket(name))).transpose();
        Ok(Client::of(guest(traffic.sends(), "a")?, guest(traffic.receives(), "b")?))
    }

    /// Guests without a switch, to measure their own cost.
    ///
    /// # Errors
    /// Out of memory or file descriptors.
    pub fn alone(traffic: Traffic) -> Result<Self, String> {
        let guest = |there: bool| there.then(Guest::new).transpose();
        Ok(Client::of(guest(traffic.sends())?, guest(traffic.receives())?))
    }

    fn of(sender: Option<Guest>, receiver: Option<Guest>) -> Self {
        let frames = Frames { generator: generator(64), order: Order::default(), flows: 1 };
        Client { sender, receiver, frames, port_sum: 0, credit: None }
    }

    /// Sets the length of frames and the number of flows.
    pub fn prepare(&mut self, bytes: usize, flows: u32) {
        self.frames = Frames { generator: generator(bytes), order: Order::default(), flows };
        if let Some(guest) = &mut self.sender {
            guest.transmit.reclaim();
            let mut whole = vec![0; HEADER + bytes];
            self.frames.generator.write_payload(&mut whole[HEADER..]);
            guest.write_buffers(&whole);
        }
    }

    /// Starts flow control of the wire, which has sent `written` frames so far. `set_limit` sets how many it may send in all.
    pub fn give_credit(&mut self, written: u64, set_limit: impl Fn(u64) + 'static) {
        let ahead = written.wrapping_sub(self.delivered()).wrapping_add(WINDOW);
        set_limit(self.delivered().wrapping_add(ahead));
        self.credit = Some(Credit { ahead, set_limit: Box::new(set_limit) });
    }

    /// One round: receives everything, then sends a burst. Returns the number of frames.
    #[inline]
    fn poll(&mut self, send: bool) -> usize {
        let mut moved = 0;
        // Receiving comes first, so that the receive ring, which is as long as the transmit ring, rarely overflows.
        if let Some(guest) = &mut self.receiver {
            let sum = &mut self.port_sum;
            moved += guest.receive.take(|memory, at, _| {
                *sum = sum.wrapping_add(u64::from(u32::from_ne_bytes(memory.read(at + PORTS))));
            });
            if let Some(credit) = self.credit.as_ref().filter(|_| moved > 0) {
                (credit.set_limit)(guest.receive.frames.wrapping_add(credit.ahead));
            }
        }
        if let Some(guest) = self.sender.as_mut().filter(|_| send) {
            moved += self.frames.send(guest, BURST);
        }
        moved
    }

    /// Number of delivered frames.
    fn delivered(&self) -> u64 {
        match (&self.receiver, &self.sender) {
            (Some(guest), _) => guest.receive.frames,
            (None, Some(guest)) => guest.transmit.taken,
            (None, None) => 0,
        }
    }

    /// Sends and receives for `time`. Without a switch (`served` is false), the client also acts as the device, at almost no
    /// cost.
    pub fn run(&mut self, time: Duration, served: bool) -> ClientSample {
        let (start, before) = (Instant::now(), self.delivered());
        let (mut idle, mut busy, mut last) = (0, 0, cycles());
        while start.elapsed() < time {
            for _ in 0..64 {
                let moved = self.poll(true);
                if !served {
                    self.serve();
                }
                let now = cycles();
                *(if moved == 0 { &mut idle } else { &mut busy }) += now - last;
                last = now;
            }
        }
        let packets = self.delivered() - before;
        let all = (idle + busy).max(1) as f64;
        let busy = busy as f64 / packets.max(1) as f64;
        ClientSample { packets, seconds: start.elapsed().as_secs_f64(), busy, idle: idle as f64 / all }
    }

    fn serve(&self) {
        let len = self.frames.generator.len();
        for guest in self.sender.iter().chain(&self.receiver) {
            guest.serve(len);
        }
    }

    /// Receives frames in flight, without sending, until none arrives any more. Returns the total of sent and of received
    /// frames.
    pub fn drain(&mut self) -> (u64, u64) {
        let mut quiet = Instant::now();
        let end = quiet + PATIENCE;
        while quiet.elapsed() < Duration::from_millis(10) && Instant::now() < end {
            if self.poll(false) > 0 || self.reclaim() {
                quiet = Instant::now();
            }
        }
        let taken = self.sender.as_ref().map_or(0, |guest| guest.transmit.taken);
        (taken, self.receiver.as_ref().map_or(0, |guest| guest.receive.frames))
    }

    /// Whether the switch still has frames to take.
    fn reclaim(&mut self) -> bool {
        self.sender.as_mut().is_some_and(|guest| {
            guest.transmit.reclaim();
            guest.transmit.in_flight() > 0
        })
    }

    /// Checks that frames arrive unchanged.
    ///
    /// # Errors
    /// None arrives, or a different one.
    pub fn verify(&mut self, bytes: usize) -> Result<(), String> {
        let Some(guest) = &mut self.receiver else { return Ok(()) };
        let (mut frame, end) = (Vec::new(), Instant::now() + PATIENCE);
        while frame.is_empty() && Instant::now() < end {
            if let Some(sender) = &mut self.sender {
                self.frames.send(sender, 1);
            }
            let mut copy = |memory: &SharedMemory, at: usize, len: u32| {
                frame = (0..len as usize).map(|n| memory.read::<1>(at + n)[0]).skip(HEADER).collect();
            };
            guest.receive.take(&mut copy);
            if let Some(credit) = &self.credit {
                (credit.set_limit)(guest.receive.frames.wrapping_add(credit.ahead));
            }
        }
        check_inner(work::pair_frame(INNER, 0, bytes), &frame)
    }

    /// Kicks that the switch requested.
    pub fn kicks(&self) -> u64 {
        let guests = self.sender.iter().chain(&self.receiver);
        guests.map(|guest| guest.transmit.ring.kicks + guest.receive.ring.kicks).sum()
    }
}

/// Frames as guests send them.
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
        // A virtio header without offloads.
        let mut head = [0; HEADER + HEAD];
        guest.transmit.send(most, HEADER + len, |memory, at| {
            generator.write(order.next(flows), &mut head[HEADER..]);
            memory.write(at, &head[..written]);
        })
    }
}
