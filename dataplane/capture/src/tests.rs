//! Captures of every form, and broken ones.

use super::*;

fn two() -> Vec<Captured> {
    let at = |time, frame: Vec<u8>| Captured { time, original: frame.len(), frame };
    vec![at(1_700_000_000_123_456_789, (0..61).collect()), at(1_700_000_001_000_000_000, vec![7; 64])]
}

fn read(file: &[u8]) -> Result<Vec<Captured>, CaptureError> {
    let mut reader = Reader::new(file)?;
    let mut all = Vec::new();
    while let Some(captured) = reader.next()? {
        all.push(captured);
    }
    Ok(all)
}

fn written() -> Vec<u8> {
    let mut file = Vec::new();
    let mut writer = Writer::new(&mut file, ["in", "uplink0"]).unwrap();
    for (n, c) in two().iter().enumerate() {
        writer.frame(n, c.time, &c.frame, "forward").unwrap();
    }
    writer.flush().unwrap();
    file
}

/// A classic capture of one frame of four bytes, which was six bytes long.
fn classic(magic: u32, big: bool, link: u32) -> Vec<u8> {
    let word = |v: u32| if big { v.to_be_bytes() } else { v.to_le_bytes() };
    let mut file = word(magic).to_vec();
    file.extend([0; 16]);
    file.extend([link, 5, 999, 4, 6].map(word).concat());
    file.extend([1, 2, 3, 4]);
    file
}

/// A big-endian pcapng: one interface with these options, one block.
fn big_pcapng(options: &[u8], kind: u32, body: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut block = |kind: u32, body: &[u8]| {
        let len = (body.len() as u32 + 12).to_be_bytes();
        file.extend([&kind.to_be_bytes(), &len[..], body, &len[..]].concat());
    };
    block(0x0a0d_0d0a, &[&[0x1a, 0x2b, 0x3c, 0x4d, 0, 1, 0, 0][..], &[0xff; 8]].concat());
    block(5, &[1; 8]);
    block(1, &[&[0, 1, 0, 0, 0, 0, 0, 2][..], options].concat());
    block(kind, body);
    file
}

#[test]
fn what_is_written_reads_back() {
    assert_eq!(read(&written()).unwrap(), two());
}

#[test]
fn pcap_of_either_order_and_resolution() {
    for (magic, big, tick) in [
        (0xa1b2_c3d4u32, false, 1000u64),
        (0xa1b2_c3d4, true, 1000),
        (0xa1b2_3c4d, false, 1),
        (0xa1b2_3c4d, true, 1),
    ] {
        let expected = Captured { time: 5_000_000_000 + 999 * tick, frame: vec![1, 2, 3, 4], original: 6 };
        assert_eq!(read(&classic(magic, big, 1)).unwrap(), [expected]);
    }
}

#[test]
fn pcapng_of_either_order_and_every_packet_block() {
    // Ticks of 1/1024 s, ten seconds to add.
    let options = [0, 9, 0, 1, 0x8a, 0, 0, 0, 0, 14, 0, 8, 0, 0, 0, 0, 0, 0, 0, 10];
    let enhanced = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 2, 0, 0, 0, 3, 8, 9, 0, 0];
    let seen = |time| Captured { time, frame: vec![8, 9], original: 3 };
    assert_eq!(read(&big_pcapng(&options, 6, &enhanced)).unwrap(), [seen(11_000_000_000)]);
    assert_eq!(read(&big_pcapng(&options, 2, &enhanced)).unwrap(), [seen(11_000_000_000)]);
    // A simple one has no time, and is as long as the interface's limit lets it be.
    assert_eq!(read(&big_pcapng(&options, 3, &[0, 0, 0, 3, 8, 9, 0, 0])).unwrap(), [seen(0)]);
    assert_eq!(read(&big_pcapng(&options, 77, &[0; 400])).unwrap(), []);
}

#[test]
fn other_files_are_told_apart() {
    assert!(matches!(read(b"{}"), Err(CaptureError::Form)));
    assert!(matches!(read(b""), Err(CaptureError::Form)));
    assert!(matches!(read(b"\x1f\x8b\x08\x00\x00\x00"), Err(CaptureError::Form)));
    let error = read(&classic(0xa1b2_c3d4, false, 113)).unwrap_err();
    assert_eq!(error.to_string(), "its frames are of link type 113, not Ethernet (1)");
    let no_resolution = big_pcapng(&[0, 9, 0, 1, 99, 0, 0, 0], 5, &[]);
    assert!(matches!(read(&no_resolution), Err(CaptureError::Malformed { at: 48, .. })));
}

#[test]
fn lengths_are_believed_only_as_far_as_the_file_goes() {
    let mut file = classic(0xa1b2_c3d4, false, 1);
    file[32..36].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(read(&file), Err(CaptureError::Malformed { at: 24, .. })));
    file[32..36].copy_from_slice(&5u32.to_le_bytes());
    assert!(matches!(read(&file), Err(CaptureError::CutOff { at: 40, .. })));
    let mut file = written();
    let block = file.len() - 4;
    file[block] ^= 4;
    assert!(matches!(read(&file), Err(CaptureError::Malformed { .. })));
}

#[test]
fn a_capture_that_is_cut_off_gives_all_whole_frames_and_says_so() {
    let (pcap, pcapng) = (classic(0xa1b2_c3d4, false, 1), written());
    let second = pcap[24..].to_vec();
    for (file, begin, whole) in
        [([pcap.clone(), second].concat(), pcap.len(), 1), (pcapng.clone(), pcapng.len() - 32, 1)]
    {
        for end in begin + 1..file.len() {
            let mut reader = Reader::new(&file[..end]).unwrap();
            let frames: Vec<Captured> = std::iter::from_fn(|| reader.next().ok().flatten()).collect();
            assert_eq!(frames.len(), whole, "cut off at {end}");
            let mut reader = Reader::new(&file[..end]).unwrap();
            reader.next().unwrap().unwrap();
            let error = reader.next().unwrap_err();
            assert!(error.is_cut_off(), "cut off at {end}: {error}");
        }
        assert_eq!(read(&file).unwrap().len(), whole + 1);
    }
}

#[test]
fn too_many_interfaces_are_refused() {
    let mut file = Vec::new();
    Writer::new(&mut file, std::iter::repeat_n("x", 5000)).unwrap().flush().unwrap();
    assert!(matches!(read(&file), Err(CaptureError::Malformed { what: "the number of interfaces", .. })));
}

#[test]
fn no_file_panics() {
    for file in [written(), classic(0xa1b2_c3d4, true, 1), big_pcapng(&[], 6, &[0; 24])] {
        for n in 0..file.len() {
            // Ends that fall between blocks are whole files.
            let _ = read(&file[..n]);
            for value in [0, 1, 0x7f, 0xff] {
                let mut changed = file.clone();
                changed[n] = value;
                let _ = read(&changed);
            }
        }
    }
}
