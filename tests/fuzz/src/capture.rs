//! Capture files: pcap and pcapng.

use culvert_capture::{Reader, Step, Writer};

use crate::frames;
use crate::target::Target;

/// The target.
pub const TARGET: Target = Target { name: "capture", run, seeds };

/// A pcapng file of ours, and pcap files of both byte orders.
fn seeds() -> Vec<Vec<u8>> {
    let frames = frames::tenant();
    let mut ours = Vec::new();
    let mut writer = Writer::new(&mut ours, ["uplink0", "vf0"]).expect("memory");
    for (n, frame) in frames[..4].iter().enumerate() {
        writer.frame(n % 2, 1_000_000 * n as u64, frame, "a comment").expect("memory");
    }
    writer.flush().expect("memory");
    let pcap = |words: fn(u32) -> [u8; 4]| {
        let mut file = [0xa1b2_c3d4, 0x0002_0004, 0, 0, 262_144, 1].map(words).concat();
        for frame in &frames[..2] {
            let len = frame.len() as u32;
            file.extend([[1, 2, len, len].map(words).concat(), frame.clone()].concat());
        }
        file
    };
    // A simple packet, an obsolete one, and a block that is passed over.
    let block = |kind: u32, body: &[u8]| {
        let len = (body.len() as u32 + 12).to_le_bytes();
        [&kind.to_le_bytes()[..], &len, body, &len].concat()
    };
    let section = block(0x0a0d_0d0a, &[&[0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 0, 0][..], &[0xff; 8]].concat());
    let interface = block(1, &[1, 0, 0, 0, 0, 0, 0, 0, 9, 0, 1, 0, 0x86, 0, 0, 0, 0, 0, 0, 0]);
    let simple = block(3, &[&60u32.to_le_bytes()[..], &[7; 60]].concat());
    let obsolete = block(2, &[&[0; 12][..], &60u32.to_le_bytes(), &60u32.to_le_bytes(), &[7; 60]].concat());
    let other = [section, interface, simple, obsolete, block(4, &[0; 8])].concat();
    vec![ours, pcap(u32::to_le_bytes), pcap(u32::to_be_bytes), other]
}

/// Runs one input.
pub fn run(file: &[u8]) {
    let Ok(mut reader) = Reader::new(file) else { return };
    let (mut bytes, mut steps) = (0, 0);
    loop {
        match reader.step() {
            Ok(Step::Frame(captured)) => {
                assert!(captured.frame.len() <= captured.original);
                bytes += captured.frame.len();
                // Each frame stands in the file.
                assert!(bytes <= file.len());
            }
            Ok(Step::Other) => {}
            Ok(Step::End) | Err(_) => return,
        }
        steps += 1;
        assert!(12 * steps <= file.len(), "a block has twelve bytes at least");
    }
}
