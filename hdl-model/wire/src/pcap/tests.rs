//! Capture files in all their forms, good and bad, and the pace at which their frames come.

use std::io::Cursor;
use std::path::Path;
use std::time::{Duration, Instant};

use culvert_packet::Reason;

use super::reader::{Next, Reader};
use super::{Pcap, Wire};
use crate::{Capture, Received};

const LIMIT: Duration = Duration::from_secs(10);

fn frame(n: u8) -> Vec<u8> {
    (0..60 + n).map(|i| i ^ n).collect()
}

/// Numbers in one byte order.
struct Order(bool);

impl Order {
    fn word(&self, value: u32) -> [u8; 4] {
        if self.0 { value.to_be_bytes() } else { value.to_le_bytes() }
    }

    fn half(&self, value: u16) -> [u8; 2] {
        if self.0 { value.to_be_bytes() } else { value.to_le_bytes() }
    }

    /// draft-ietf-opsawg-pcap: the header, then a header before each frame.
    fn pcap(&self, magic: u32, link: u32, frames: &[Vec<u8>]) -> Vec<u8> {
        let mut file = self.word(magic).to_vec();
        file.extend([self.half(2), self.half(4)].concat());
        file.extend([0, 0, 65535, link].map(|word| self.word(word)).concat());
        for frame in frames {
            let len = frame.len() as u32;
            file.extend([1, 2, len, len].map(|word| self.word(word)).concat());
            file.extend(frame);
        }
        file
    }

    /// draft-ietf-opsawg-pcapng, 3.1: type, length, body, length.
    fn block(&self, kind: u32, body: &[u8]) -> Vec<u8> {
        let padded = body.len().next_multiple_of(4);
        let len = self.word(12 + padded as u32);
        [&self.word(kind), &len, body, &vec![0; padded - body.len()], &len[..]].concat()
    }

    fn section(&self) -> Vec<u8> {
        self.block(0x0a0d_0d0a, &[&self.word(0x1a2b_3c4d), &self.half(1)[..], &[0, 0], &[0xff; 8]].concat())
    }

    fn interface(&self, link: u16) -> Vec<u8> {
        self.block(1, &[&self.half(link)[..], &[0, 0], &self.word(0)].concat())
    }

    fn enhanced(&self, interface: u32, frame: &[u8], whole: usize) -> Vec<u8> {
        let words = [interface, 0, 0, frame.len() as u32, whole as u32].map(|word| self.word(word)).concat();
        self.block(6, &[&words, frame].concat())
    }

    fn simple(&self, frame: &[u8]) -> Vec<u8> {
        self.block(3, &[&self.word(frame.len() as u32), frame].concat())
    }
}

const LITTLE: Order = Order(false);
const BIG: Order = Order(true);

/// What a reader makes of a file, to its end.
fn read(file: Vec<u8>, room: usize) -> Vec<Result<Vec<u8>, Next>> {
    let mut reader = Reader::new(Cursor::new(file)).unwrap();
    let (mut all, mut into) = (Vec::new(), vec![0; room]);
    loop {
        match reader.next(&mut into) {
            Next::Frame(len) => all.push(Ok(into[..len].to_vec())),
            Next::Later => {}
            Next::End => return all,
            Next::Broken(why) => {
                all.push(Err(Next::Broken(why)));
                return all;
            }
            bad => all.push(Err(bad)),
        }
    }
}

#[test]
fn both_formats_are_read_in_both_byte_orders() {
    let frames: Vec<_> = (0..5).map(frame).collect();
    let wanted: Vec<_> = frames.iter().cloned().map(Ok).collect();
    for order in [LITTLE, BIG] {
        // Time stamps in microseconds, and in nanoseconds.
        for magic in [0xa1b2_c3d4, 0xa1b2_3c4d] {
            assert_eq!(read(order.pcap(magic, 1, &frames), 2000), wanted, "pcap {magic:#x}");
        }
        let mut file = [order.section(), order.interface(1)].concat();
        for (n, frame) in frames.iter().enumerate() {
            file.extend(if n % 2 == 0 { order.enhanced(0, frame, frame.len()) } else { order.simple(frame) });
            // A block of an unknown kind.
            file.extend(order.block(0x0bad, &[n as u8; 7]));
        }
        assert_eq!(read(file, 2000), wanted, "pcapng");
    }
}

#[test]
fn a_section_begins_anew_with_its_own_byte_order_and_interfaces() {
    let first = [LITTLE.section(), LITTLE.interface(1), LITTLE.enhanced(0, &frame(1), 61)].concat();
    let second = [BIG.section(), BIG.interface(1), BIG.enhanced(0, &frame(2), 62)].concat();
    assert_eq!(read([first, second].concat(), 2000), [Ok(frame(1)), Ok(frame(2))]);
}

#[test]
fn many_blocks_without_a_frame_do_not_hold_the_engine_up() {
    let mut file = [LITTLE.section(), LITTLE.interface(1)].concat();
    file.extend(LITTLE.block(5, &[0; 12]).repeat(1000));
    file.extend(LITTLE.simple(&frame(0)));
    let mut reader = Reader::new(Cursor::new(file.clone())).unwrap();
    assert_eq!(reader.next(&mut [0; 2000]), Next::Later);
    assert_eq!(read(file, 2000), [Ok(frame(0))]);
}

#[test]
fn a_frame_that_is_not_whole_or_does_not_fit_is_dropped_with_its_reason() {
    let file = [
        LITTLE.section(),
        LITTLE.interface(1),
        LITTLE.enhanced(0, &frame(0), 1500),
        LITTLE.enhanced(0, &[1; 13], 13),
        LITTLE.enhanced(0, &[2; 101], 101),
        LITTLE.enhanced(0, &frame(3), 63),
    ];
    let wanted = [
        Err(Next::Bad(Reason::Truncated)),
        Err(Next::Bad(Reason::Runt)),
        Err(Next::Bad(Reason::TooLong)),
        Ok(frame(3)),
    ];
    assert_eq!(read(file.concat(), 100), wanted);
}

#[test]
fn what_cannot_be_read_ends_the_file() {
    let begun = [LITTLE.section(), LITTLE.interface(1), LITTLE.simple(&frame(0))].concat();
    let broken = |more: &[u8]| {
        let mut all = read([&begun, more].concat(), 2000);
        assert_eq!(all.remove(0), Ok(frame(0)));
        assert!(matches!(&all[..], [Err(Next::Broken(why))] if why.len() < 80), "{all:?}");
    };
    broken(&LITTLE.simple(&frame(1))[..20]);
    broken(&[6, 0, 0, 0, 0xff, 0xff, 0xff, 0x7f, 0, 0, 0, 0]);
    broken(&LITTLE.enhanced(1, &frame(1), 61));
    broken(&[LITTLE.interface(101), LITTLE.enhanced(1, &frame(1), 61)].concat());
    broken(&LITTLE.interface(1).repeat(5000));
    broken(&LITTLE.block(6, &[0; 4]));
    // A caplen beyond its block.
    let mut lies = LITTLE.enhanced(0, &frame(1), 61);
    lies[20..24].copy_from_slice(&u32::MAX.to_le_bytes());
    broken(&lies);
    for no_capture in [&b""[..], b"GET / HTTP/1.1\r\n\r\n and more", &[0; 100]] {
        assert!(Reader::new(Cursor::new(no_capture)).is_err());
    }
}

/// Frames that come within a time.
fn frames(wire: &mut Pcap, time: Duration, most: usize) -> Vec<Vec<u8>> {
    let (mut all, mut into, end) = (Vec::new(), [0; 2000], Instant::now() + time);
    while Instant::now() < end && all.len() < most {
        match wire.receive(&mut into) {
            Received::Frame(len) => all.push(into[..len].to_vec()),
            Received::Bad(reason) => panic!("{reason:?}"),
            Received::Nothing => std::thread::sleep(Duration::from_millis(1)),
        }
    }
    all
}

/// Puts a capture of these frames at a place, at once.
fn put(path: &Path, frames: &[Vec<u8>]) {
    let new = path.with_extension("new");
    let mut capture = Capture::create(&new, "test", u64::MAX, u64::MAX).unwrap();
    frames.iter().for_each(|f| capture.frame(&f[..20], &f[20..]));
    capture.flush();
    std::fs::rename(new, path).unwrap();
}

#[test]
fn a_file_is_read_once_when_it_appears_and_so_is_the_next_one_in_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("in.pcapng");
    let mut wire = Pcap::open(Some(&path), None, 100_000).unwrap();
    assert!(wire.link());
    assert_eq!(frames(&mut wire, Duration::from_millis(20), 1), Vec::<Vec<u8>>::new());
    for n in [1, 2] {
        put(&path, &[frame(n), frame(n + 10)]);
        assert!(wire.link());
        assert_eq!(frames(&mut wire, LIMIT, 2), [frame(n), frame(n + 10)]);
        assert!(wire.link());
        assert_eq!(frames(&mut wire, Duration::from_millis(20), 1), Vec::<Vec<u8>>::new());
    }
}

#[test]
fn frames_come_no_faster_than_the_pace_also_after_a_pause() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("in.pcapng");
    put(&path, &vec![frame(0); 200]);
    let mut wire = Pcap::open(Some(&path), None, 1000).unwrap();
    wire.link();
    let start = Instant::now();
    std::thread::sleep(Duration::from_millis(100));
    let come = frames(&mut wire, LIMIT, 200).len();
    // 200 frames at one a millisecond, of which the pause has made good a few at most.
    assert_eq!(come, 200);
    assert!(start.elapsed() >= Duration::from_millis(290), "{:?}", start.elapsed());
}

#[test]
fn the_timer_wakes_while_there_are_frames_and_only_then() {
    let wakes = |wire: &Pcap, limit: Duration| {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let limit = Timespec::try_from(limit).unwrap();
        poll(&mut [PollFd::from_borrowed_fd(wire.fd(), PollFlags::IN)], Some(&limit)).unwrap() == 1
    };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("in.pcapng");
    let mut wire = Pcap::open(Some(&path), None, 1000).unwrap();
    wire.link();
    assert!(!wakes(&wire, Duration::from_millis(30)));
    put(&path, &[frame(0)]);
    wire.link();
    assert!(wakes(&wire, LIMIT));
    assert_eq!(frames(&mut wire, LIMIT, 1), [frame(0)]);
    assert_eq!(frames(&mut wire, Duration::from_millis(20), 1), Vec::<Vec<u8>>::new());
    assert!(!wakes(&wire, Duration::from_millis(30)));
}

#[test]
fn what_is_sent_can_be_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out.pcapng");
    let mut wire = Pcap::open(None, Some(&path), 1).unwrap();
    let (one, two) = (frame(1), frame(2));
    wire.send(&one[..10], &one[10..]).unwrap();
    wire.send(&[], &two).unwrap();
    assert!(wire.link());
    assert_eq!(read(std::fs::read(&path).unwrap(), 2000), [Ok(one), Ok(two)]);
}

#[test]
fn a_folder_and_an_output_nowhere_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    assert!(Pcap::open(Some(dir.path()), None, 1).is_err());
    assert!(Pcap::open(None, Some(&dir.path().join("no/where")), 1).is_err());
}
