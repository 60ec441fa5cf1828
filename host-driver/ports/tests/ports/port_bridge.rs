//! Forwards all frames between two ports, on a thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use culvert_packet::encap::{Fill, Template};
use culvert_packet::{Gso, parse_outer};
use culvert_switch::{Packet, Pool, Sent, SwitchPort};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::Timespec;

/// How frames are changed in between.
#[derive(Clone, Debug)]
pub(crate) enum Encapsulation {
    /// Not at all.
    None,
    /// Outer headers are added from VM to wire, and removed from wire to VM.
    Overlay { template: Box<Template>, vsid: u32 },
}

/// Counters of one direction.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct BridgeCounters {
    pub(crate) received: u64,
    /// Of those: packets to be segmented.
    pub(crate) large: u64,
    pub(crate) sent: Sent,
    /// Drops of the receiving port.
    pub(crate) rx_drops: u64,
}

/// The bridge.
pub(crate) struct PortBridge {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<[BridgeCounters; 2]>,
}

impl PortBridge {
    /// Starts to forward between the port of a VM and the one of a wire.
    pub(crate) fn new(
        vm: impl SwitchPort + 'static,
        wire: impl SwitchPort + 'static,
        encapsulation: Encapsulation,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || run(vm, wire, &encapsulation, &stopped));
        PortBridge { stop, thread }
    }

    /// Ends it. Returns the counters from VM to wire, and from wire to VM.
    pub(crate) fn end(self) -> [BridgeCounters; 2] {
        self.stop.store(true, Ordering::Release);
        self.thread.join().unwrap()
    }
}

fn run(
    mut vm: impl SwitchPort,
    mut wire: impl SwitchPort,
    encapsulation: &Encapsulation,
    stop: &AtomicBool,
) -> [BridgeCounters; 2] {
    let mut pool = Pool::new(1024, 64).unwrap();
    let (whole, mut counters) = (pool.free(), [BridgeCounters::default(); 2]);
    while !stop.load(Ordering::Acquire) {
        let out = forward(
            &mut pool,
            &mut vm,
            &mut wire,
            |packet| encapsulate(packet, encapsulation),
            &mut counters[0],
        );
        let back = forward(
            &mut pool,
            &mut wire,
            &mut vm,
            |packet| decapsulate(packet, encapsulation),
            &mut counters[1],
        );
        assert_eq!(pool.free(), whole, "buffers come back");
        if !out && !back && vm.arm() && wire.arm() {
            let mut fds = [vm.fd(), wire.fd()].map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
            poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 50_000_000 })).unwrap();
        }
    }
    counters[0].rx_drops = vm.take_rx_drops();
    counters[1].rx_drops = wire.take_rx_drops();
    counters
}

fn forward(
    pool: &mut Pool,
    from: &mut impl SwitchPort,
    to: &mut impl SwitchPort,
    change: impl Fn(&mut Packet) -> bool,
    counters: &mut BridgeCounters,
) -> bool {
    let mut packets = Vec::with_capacity(32);
    from.receive(pool, &mut packets, 32).unwrap();
    let any = !packets.is_empty();
    let mut outgoing = Vec::with_capacity(32);
    for mut packet in packets {
        counters.received += 1;
        counters.large += u64::from(packet.offload.gso != Gso::None);
        if change(&mut packet) { outgoing.push(packet) } else { pool.give(packet) }
    }
    let sent = to.send(pool, &mut outgoing).unwrap();
    counters.sent.packets += sent.packets;
    counters.sent.bytes += sent.bytes;
    counters.sent.full += sent.full;
    counters.sent.down += sent.down;
    counters.sent.refused += sent.refused;
    any
}

fn encapsulate(packet: &mut Packet, encapsulation: &Encapsulation) -> bool {
    let Encapsulation::Overlay { template, vsid } = encapsulation else { return true };
    let (mut outer, inner_len) = ([0; 128], packet.bytes().len());
    let len = template.write(&Fill { inner_len, ecn: 0, entropy: 0x1234, vsid: *vsid }, &mut outer).unwrap();
    packet.prepend(&outer[..len])
}

fn decapsulate(packet: &mut Packet, encapsulation: &Encapsulation) -> bool {
    let Encapsulation::Overlay { vsid, .. } = encapsulation else { return true };
    match parse_outer(packet.bytes()) {
        Ok(Some(outer)) if outer.vsid == *vsid => {
            let (from, len) = (usize::from(outer.inner), usize::from(outer.inner_len));
            packet.edit(|frame| frame.cut(from, len)) == Some(true)
        }
        _ => false,
    }
}
