//! Large frames of a VM (GSO): the NIC receives segments, however little room it has.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex};

use culvert_offload::EventFd;
use culvert_packet::craft::{self, Ends};
use culvert_packet::{ChecksumState, Gso, MacAddr, Offload, VportId, checksum, tcp};
use culvert_switch::{Opener, Packet, Pool, Sent, SwitchPort};

use crate::{enqueued, start, until};

const MSS: usize = 1400;
const HEADERS: usize = 54;

/// Frames with their offload metadata.
type Frames = Vec<(Vec<u8>, Offload)>;

/// A port of a VM that sends such frames.
struct Sender {
    frames: Arc<Mutex<Frames>>,
    interrupt: EventFd,
}

impl SwitchPort for Sender {
    fn receive(&mut self, pool: &mut Pool, packets: &mut Vec<Packet>, max: usize) -> io::Result<()> {
        let mut frames = self.frames.lock().unwrap();
        while packets.len() < max && !frames.is_empty() {
            let Some(mut packet) = pool.take_for(frames[0].0.len()) else { break };
            let (frame, offload) = frames.remove(0);
            assert!(packet.fill(&frame));
            packet.offload = offload;
            packets.push(packet);
        }
        Ok(())
    }

    fn send(&mut self, pool: &mut Pool, packets: &mut Vec<Packet>) -> io::Result<Sent> {
        packets.drain(..).for_each(|packet| pool.give(packet));
        Ok(Sent::default())
    }

    fn arm(&mut self) -> bool {
        self.frames.lock().unwrap().is_empty()
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.interrupt.as_fd()
    }
}

/// A TCP frame with `len` bytes of payload.
fn large(sequence: u32, len: usize) -> Vec<u8> {
    let ends = Ends {
        src_mac: MacAddr([2, 0, 0, 0, 0, 1]),
        dst_mac: MacAddr([2, 0, 0, 0, 0, 2]),
        src: IpAddr::from([10, 1, 1, 11]),
        dst: IpAddr::from([10, 1, 1, 12]),
    };
    let header = tcp::Header {
        src_port: 1000,
        dst_port: 2000,
        sequence,
        acknowledgment: 1,
        flags: tcp::Flags::ACK,
        window: 1000,
        urgent: 0,
    };
    let payload: Vec<u8> = (0..len).map(|n| (n / 7) as u8).collect();
    let mut frame = vec![0; HEADERS + len];
    let n = craft::tcp(&mut frame, &ends, &header, &payload).unwrap();
    frame.truncate(n);
    frame
}

/// Whether the IP and TCP checksums of a frame are correct (RFC 1071: the sum that includes the checksum is zero).
fn has_valid_checksums(frame: &[u8]) -> bool {
    let mut sum = checksum::Checksum::new();
    let len = (frame.len() - 34) as u32;
    sum.pseudo(&frame[26..30], &frame[30..34], culvert_packet::Protocol::TCP, len);
    checksum::of(&frame[14..34]) == 0 && sum.bytes(&frame[34..]).finish() == 0
}

#[test]
fn large_frames_are_segmented_without_loss_while_the_nic_has_little_room() {
    let (nic, bridge) = start();
    nic.state().room = 5;
    let lens = [60_000, 100, 1401, 20_000];
    let mut sequence = 0u32;
    let mut all = Vec::new();
    let mut payload = Vec::new();
    for len in lens {
        let frame = large(sequence, len);
        sequence += len as u32;
        payload.extend_from_slice(&frame[HEADERS..]);
        let gso = if len > MSS { Gso::TcpV4 } else { Gso::None };
        let offload = Offload { gso, mss: if len > MSS { MSS as u16 } else { 0 }, ..Offload::default() };
        all.push((frame, offload));
    }
    // A frame whose checksum the VM's driver left partial.
    let mut partial = large(sequence, 200);
    payload.extend_from_slice(&partial[HEADERS..]);
    let mut sum = checksum::Checksum::new();
    sum.pseudo(&[10, 1, 1, 11], &[10, 1, 1, 12], culvert_packet::Protocol::TCP, 220);
    partial[50..52].copy_from_slice(&sum.sum().to_be_bytes());
    let (checksum, start, offset) = (ChecksumState::Partial, 34, 16);
    all.push((partial, Offload { checksum, start, offset, ..Offload::default() }));

    let frames = Arc::new(Mutex::new(all));
    let open: Opener = Box::new(move || {
        Ok(Box::new(Sender { frames: Arc::clone(&frames), interrupt: EventFd::new().unwrap() }))
    });
    bridge.attach(VportId(10), 0, open).unwrap();
    let expected = 60_000_usize.div_ceil(MSS) + 1 + 2 + 20_000_usize.div_ceil(MSS) + 1;
    until("all segments are enqueued", || {
        nic.state().room = 5;
        enqueued(&nic, 10).len() == expected
    });
    let got = enqueued(&nic, 10);
    assert!(got.iter().all(|frame| has_valid_checksums(frame)), "a checksum is wrong");
    assert!(got.iter().all(|frame| frame.len() <= HEADERS + MSS), "a frame is too long");
    let mut at = 0;
    for frame in &got {
        assert_eq!(u32::from_be_bytes([frame[38], frame[39], frame[40], frame[41]]), at);
        at += (frame.len() - HEADERS) as u32;
    }
    assert_eq!(got.iter().flat_map(|frame| frame[HEADERS..].to_vec()).collect::<Vec<u8>>(), payload);
}

#[test]
fn a_vm_whose_frames_have_many_segments_leaves_a_neighbour_its_room() {
    const TINY: u16 = 32;
    let (nic, bridge) = start();
    nic.state().room = 0;
    let mut sequence = 0u32;
    let flood: Frames = std::iter::repeat_with(|| {
        sequence += 32_000;
        (large(sequence, 32_000), Offload { gso: Gso::TcpV4, mss: TINY, ..Offload::default() })
    })
    .take(16)
    .collect();
    let few: Frames = (0..200).map(|n| (large(n, 100), Offload::default())).collect();
    for (n, frames) in [flood, few].into_iter().enumerate() {
        let frames = Arc::new(Mutex::new(frames));
        let open: Opener = Box::new(move || {
            Ok(Box::new(Sender { frames: Arc::clone(&frames), interrupt: EventFd::new().unwrap() }))
        });
        bridge.attach(VportId(10 + n as u16), n as u16, open).unwrap();
    }
    until("the neighbour's frames are enqueued", || {
        nic.state().room = 70;
        enqueued(&nic, 11).len() == 200
    });
    let flooded = enqueued(&nic, 10).len();
    assert!(flooded < 8000, "{flooded} of 16,000 segments came first");
}
