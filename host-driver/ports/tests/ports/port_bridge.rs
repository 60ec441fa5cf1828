//! Two ports joined on a thread, as a switch with nothing to decide would: frames of one leave by the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use culvert_packet::encap::{Fill, Template};
use culvert_packet::{Gso, parse_outer};
use culvert_switch::{Packet, Pool, Sent, SwitchPort};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::Timespec;

/// What happens to a frame on its way.
#[derive(Clone, Debug)]
pub(crate) enum Way {
    /// Nothing.
    Plain,
    /// It gets outer headers from VM to wire, and loses them from wire to VM.
    Overlay { template: Box<Template>, vsid: u32 },
}

/// What passed in one direction.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct HandoffPacket {
    pub(crate) taken: u64,
    /// Of those: yet to be segmented.
    pub(crate) large: u64,
    pub(crate) sent: Sent,
    pub(crate) lost: u64,
}

/// The thread.
pub(crate) struct PortBridge {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<[HandoffPacket; 2]>,
}

impl PortBridge {
    /// Joins the port of a VM to the one of a wire.
    pub(crate) fn new(vm: impl SwitchPort + 'static, wire: impl SwitchPort + 'static, way: Way) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || run(vm, wire, &way, &stopped));
        PortBridge { stop, thread }
    }

    /// Ends it. What passed from VM to wire, and from wire to VM.
    pub(crate) fn end(self) -> [HandoffPacket; 2] {
        self.stop.store(true, Ordering::Release);
        self.thread.join().unwrap()
    }
}

fn run(
    mut vm: impl SwitchPort,
    mut wire: impl SwitchPort,
    way: &Way,
    stop: &AtomicBool,
) -> [HandoffPacket; 2] {
    let mut pool = Pool::new(1024, 64).unwrap();
    let (whole, mut passed) = (pool.free(), [HandoffPacket::default(); 2]);
    while !stop.load(Ordering::Acquire) {
        let out = pass(&mut pool, &mut vm, &mut wire, |packet| outwards(packet, way), &mut passed[0]);
        let back = pass(&mut pool, &mut wire, &mut vm, |packet| inwards(packet, way), &mut passed[1]);
        assert_eq!(pool.free(), whole, "buffers come back");
        if !out && !back && vm.arm() && wire.arm() {
            let mut fds = [vm.fd(), wire.fd()].map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
            poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 50_000_000 })).unwrap();
        }
    }
    passed[0].lost = vm.take_rx_drops();
    passed[1].lost = wire.take_rx_drops();
    passed
}

fn pass(
    pool: &mut Pool,
    from: &mut impl SwitchPort,
    to: &mut impl SwitchPort,
    work: impl Fn(&mut Packet) -> bool,
    passed: &mut HandoffPacket,
) -> bool {
    let mut packets = Vec::with_capacity(32);
    from.receive(pool, &mut packets, 32).unwrap();
    let any = !packets.is_empty();
    let mut going = Vec::with_capacity(32);
    for mut packet in packets {
        passed.taken += 1;
        passed.large += u64::from(packet.offload.gso != Gso::None);
        if work(&mut packet) { going.push(packet) } else { pool.give(packet) }
    }
    let sent = to.send(pool, &mut going).unwrap();
    passed.sent.packets += sent.packets;
    passed.sent.bytes += sent.bytes;
    passed.sent.full += sent.full;
    passed.sent.down += sent.down;
    passed.sent.refused += sent.refused;
    any
}

fn outwards(packet: &mut Packet, way: &Way) -> bool {
    let Way::Overlay { template, vsid } = way else { return true };
    let (mut outer, inner_len) = ([0; 128], packet.bytes().len());
    let len = template.write(&Fill { inner_len, ecn: 0, entropy: 0x1234, vsid: *vsid }, &mut outer).unwrap();
    packet.prepend(&outer[..len])
}

fn inwards(packet: &mut Packet, way: &Way) -> bool {
    let Way::Overlay { vsid, .. } = way else { return true };
    match parse_outer(packet.bytes()) {
        Ok(Some(outer)) if outer.vsid == *vsid => {
            let (from, len) = (usize::from(outer.inner), usize::from(outer.inner_len));
            packet.edit(|frame| frame.cut(from, len)) == Some(true)
        }
        _ => false,
    }
}
