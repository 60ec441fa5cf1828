//! What a port's turn may cost: guests that send frames of many segments, or in many descriptors, and their neighbours.
//! A switch without threads, so that each poll is one turn of each port.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::{Arc, Mutex};

use culvert_flow::tables::Vport;
use culvert_flow::{FlowHot, FlowRecord, HashSecret, Port, key};
use culvert_offload::{DeviceInfo as _, EventFd, FlowTables as _, TableWrite};
use culvert_packet::craft::{self, Ends};
use culvert_packet::segment::{MAX_HEADERS, Segmentation};
use culvert_packet::{Gso, MacAddr, Offload, VportId, parse};
use culvert_switch::{Opener, Packet, Pool, Sent, Switch, SwitchPort, SwitchSettings};

/// The flooder, its neighbour, and whom each sends to.
const FLOODER: u16 = 0;
const NEIGHBOUR: u16 = 1;
const FLOODED: u16 = 2;
const FRIEND: u16 = 3;
/// The most segments in one turn: its budget, and what one part of a frame is beyond it.
const MOST: usize = 64 + 64;

/// A guest's end of its port.
#[derive(Default)]
struct GuestEnds {
    to_switch: VecDeque<(Vec<u8>, Offload)>,
    from_switch: Vec<(Vec<u8>, Offload)>,
    /// Descriptors of each frame beyond the first.
    descriptors: u64,
}

#[derive(Clone)]
struct Guest(Arc<Mutex<GuestEnds>>);

/// The switch's end.
struct GuestPort {
    guest: Guest,
    descriptors: u64,
    never: EventFd,
}

impl SwitchPort for GuestPort {
    fn receive(&mut self, pool: &mut Pool, packets: &mut Vec<Packet>, max: usize) -> io::Result<()> {
        let mut ends = self.guest.0.lock().unwrap();
        while packets.len() < max
            && let Some((frame, _)) = ends.to_switch.front()
            && let Some(mut packet) = pool.take_for(frame.len())
        {
            assert!(packet.fill(frame));
            packet.offload = ends.to_switch.pop_front().unwrap().1;
            packets.push(packet);
            self.descriptors += ends.descriptors;
        }
        Ok(())
    }

    fn send(&mut self, pool: &mut Pool, packets: &mut Vec<Packet>) -> io::Result<Sent> {
        let mut ends = self.guest.0.lock().unwrap();
        let mut sent = Sent::default();
        for packet in packets.drain(..) {
            sent.packets += packet.segments().map_or(1, |s| s.count()) as u64;
            sent.descriptors += ends.descriptors;
            ends.from_switch.push((packet.bytes().to_vec(), packet.offload));
            pool.give(packet);
        }
        Ok(sent)
    }

    fn take_rx_descriptors(&mut self) -> u64 {
        std::mem::take(&mut self.descriptors)
    }

    fn arm(&mut self) -> bool {
        true
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.never.as_fd()
    }
}

impl Guest {
    fn opener(&self) -> Opener {
        let guest = self.clone();
        Box::new(move || {
            let never = EventFd::new().map_err(io::Error::other)?;
            Ok(Box::new(GuestPort { guest: guest.clone(), descriptors: 0, never }) as Box<dyn SwitchPort>)
        })
    }

    fn send(&self, n: usize, frame: &[u8], offload: Offload) {
        let frames = std::iter::repeat_n((frame.to_vec(), offload), n);
        self.0.lock().unwrap().to_switch.extend(frames);
    }

    fn waiting(&self) -> usize {
        self.0.lock().unwrap().to_switch.len()
    }

    /// Takes what has come, cut into segments.
    fn take(&self) -> Vec<Vec<u8>> {
        let come = std::mem::take(&mut self.0.lock().unwrap().from_switch);
        come.iter().flat_map(|(frame, offload)| segments(frame, offload)).collect()
    }
}

fn segments(frame: &[u8], offload: &Offload) -> Vec<Vec<u8>> {
    let Some(cut) = Segmentation::of(frame, offload) else { return vec![frame.to_vec()] };
    let mut header = [0; MAX_HEADERS];
    let one = |n| {
        let (len, payload) = cut.segment(frame, n, &mut header);
        [&header[..len], &frame[payload]].concat()
    };
    (0..cut.count()).map(one).collect()
}

struct Bed {
    switch: Switch,
    guests: [Guest; 4],
    now: u32,
}

fn frame(from: u16, len: usize) -> Vec<u8> {
    let mac = |n| MacAddr([2, 0, 0, 0, 0, n as u8]);
    let ends = Ends {
        src_mac: mac(from),
        dst_mac: mac(from + 2),
        src: [10, 1, 1, 1 + from as u8].into(),
        dst: [10, 1, 1, 3 + from as u8].into(),
    };
    let payload: Vec<u8> = (0..len).map(|n| (n % 251) as u8).collect();
    let mut frame = vec![0; len + 64];
    let len = craft::udp(&mut frame, &ends, 1000, 2000, &payload).unwrap();
    frame.truncate(len);
    frame
}

impl Bed {
    /// Flooder and neighbour at one worker; with two, their receivers at the other.
    fn new(workers: usize) -> Self {
        let settings = SwitchSettings {
            buffers: 2048,
            large_buffers: 256,
            workers: vec![None; workers],
            ..SwitchSettings::new(1 << 10, HashSecret([7; 9]))
        };
        let switch = Switch::inline(&settings).unwrap();
        let guests = [0; 4].map(|_| Guest(Arc::default()));
        // Vports go to the workers in turn.
        for n in if workers == 1 { [0, 1, 2, 3] } else { [0, 2, 1, 3] } {
            switch.attach(Port::Vport(VportId(n)), guests[usize::from(n)].opener()).unwrap();
        }
        let up = Vport { flags: Vport::PRESENT | Vport::UP, quota: 100, ..Vport::default() };
        let vports: Vec<_> = (0..4).map(|number| (number, Vport { number, ..up })).collect();
        switch.write(TableWrite::Vports(&vports)).unwrap();
        for from in [FLOODER, NEIGHBOUR] {
            let frame = frame(from, 10);
            let hot = FlowHot { out: Port::Vport(VportId(from + 2)).bits(), ..FlowHot::default() };
            let key = key::outbound(VportId(from), &frame, &parse(&frame).unwrap());
            switch.insert(&[FlowRecord { key, hot, ..FlowRecord::default() }]).unwrap();
        }
        Bed { switch, guests, now: 0 }
    }

    fn poll(&mut self) {
        self.now += 1;
        self.switch.poll(self.now);
    }

    fn guest(&self, n: u16) -> &Guest {
        &self.guests[usize::from(n)]
    }

    fn assert_nothing_lost(&mut self) {
        // What is still on its way to another worker, and buffers on their way back.
        (0..8).for_each(|_| self.poll());
        assert_eq!(self.switch.drops().unwrap(), []);
        let (free, all) = self.switch.free_buffers().unwrap();
        assert_eq!(free, all);
    }
}

const USO: Offload = Offload { gso: Gso::Udp, mss: 32, ..PLAIN };
const PLAIN: Offload = Offload {
    checksum: culvert_packet::ChecksumState::None,
    gso: Gso::None,
    mss: 0,
    start: 0,
    offset: 0,
    inner_l3: 0,
    inner_l4: 0,
    outer_l3: 0,
    outer_l4: 0,
};

#[test]
fn frames_of_tiny_segments_cost_no_neighbour_a_turn() {
    for workers in [1, 2] {
        let mut bed = Bed::new(workers);
        let large = frame(FLOODER, 64_000);
        let expected = segments(&large, &USO);
        assert_eq!(expected.len(), 2000);
        bed.guest(FLOODER).send(4, &large, USO);
        let mut got = Vec::new();
        let mut turns = 0;
        while got.len() < 4 * expected.len() {
            bed.guest(NEIGHBOUR).send(8, &frame(NEIGHBOUR, 100), PLAIN);
            bed.poll();
            let part = bed.guest(FLOODED).take();
            assert!(part.len() <= MOST, "{workers} workers: {} segments in a turn", part.len());
            got.extend(part);
            turns += 1;
            assert!(turns < 1000, "{workers} workers: {} segments have come", got.len());
            let served = bed.guest(FRIEND).take().len();
            // What another worker handed over comes in that one's next turn, and costs the flooder's as much.
            assert!(served == 8 || workers == 2, "{served} of the neighbour's frames in turn {turns}");
        }
        // A budget each turn, no more.
        assert!(turns >= got.len() / 64 - 4, "{turns} turns");
        for (n, frames) in got.chunks(expected.len()).enumerate() {
            assert!(frames == expected, "{workers} workers: frame {n} is not what was sent, or out of order");
        }
        bed.assert_nothing_lost();
    }
}

#[test]
fn a_neighbour_at_the_receivers_worker_is_served_while_a_flood_is_handed_over() {
    // The flood comes from worker 0; FRIEND is at worker 1, like FLOODED, and is sent to by a guest of its own worker.
    let mut bed = Bed::new(2);
    let large = frame(FLOODER, 64_000);
    bed.guest(FLOODER).send(64, &large, USO);
    let (mut most, mut all) = (0, 0);
    for _ in 0..2100 {
        bed.poll();
        let n = bed.guest(FLOODED).take().len();
        (most, all) = (most.max(n), all + n);
    }
    assert!(most <= MOST, "{most} segments in a turn");
    assert_eq!(all, 64 * 2000);
    bed.assert_nothing_lost();
}

#[test]
fn large_and_plain_frames_get_the_same_work() {
    let mut bed = Bed::new(1);
    // Segments as of a TCP stream: a frame is 45 of them and 64 KiB of bytes.
    bed.guest(FLOODER).send(200, &frame(FLOODER, 64_000), Offload { mss: 1448, ..USO });
    bed.guest(NEIGHBOUR).send(2000, &frame(NEIGHBOUR, 100), PLAIN);
    let before = bed.guest(FLOODER).waiting();
    for _ in 0..40 {
        bed.poll();
    }
    let (large, plain) = (bed.guest(FLOODED).take().len(), bed.guest(FRIEND).take().len());
    assert_eq!(plain, 40 * 32, "a burst each turn");
    assert!((40 * 40..40 * 64).contains(&large), "{large} segments");
    assert!(before - bed.guest(FLOODER).waiting() < 60);
}

#[test]
fn descriptors_are_paid_for_in_later_turns() {
    let mut bed = Bed::new(1);
    bed.guest(FLOODER).0.lock().unwrap().descriptors = 255;
    bed.guest(FLOODER).send(1000, &frame(FLOODER, 100), PLAIN);
    bed.guest(NEIGHBOUR).send(1000, &frame(NEIGHBOUR, 100), PLAIN);
    for _ in 0..31 {
        bed.poll();
    }
    // 32 frames and 8,160 descriptors are 1,052 units: the port has no turn in the next fifteen.
    assert_eq!(bed.guest(FRIEND).take().len(), 31 * 32);
    assert_eq!(bed.guest(FLOODED).take().len(), 2 * 32);
}

#[test]
fn a_sender_pays_for_a_receivers_tiny_buffers() {
    let mut bed = Bed::new(1);
    bed.guest(FLOODED).0.lock().unwrap().descriptors = 255;
    bed.guest(FLOODER).send(1000, &frame(FLOODER, 100), PLAIN);
    bed.guest(NEIGHBOUR).send(1000, &frame(NEIGHBOUR, 100), PLAIN);
    for _ in 0..31 {
        bed.poll();
    }
    assert_eq!((bed.guest(FRIEND).take().len(), bed.guest(FLOODED).take().len()), (31 * 32, 2 * 32));
}

#[test]
fn a_port_that_goes_gives_up_what_waits_for_its_turn() {
    let mut bed = Bed::new(1);
    bed.guest(FLOODER).send(4, &frame(FLOODER, 64_000), USO);
    bed.poll();
    let port = Port::Vport(VportId(FLOODER));
    bed.switch.detach(port).unwrap();
    assert_eq!(bed.switch.drops().unwrap(), [(culvert_packet::Reason::QueueStopped, 4)]);
    let (free, all) = bed.switch.free_buffers().unwrap();
    assert_eq!(free, all);
}
