//! Capture files: reads pcap and pcapng, writes pcapng with a comment on every frame.

use std::fmt;

/// Longest frame that is taken: anything longer is a broken file.
const LONGEST: usize = 1 << 18;
/// Ethernet (LINKTYPE_ETHERNET).
const ETHERNET: u32 = 1;

/// A captured frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Captured {
    /// Nanoseconds since the epoch.
    pub(crate) time: u64,
    /// First byte of Ethernet first, no FCS.
    pub(crate) frame: Vec<u8>,
}

/// A file that is no capture, or a broken one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// Neither pcap nor pcapng.
    Form,
    /// Not Ethernet.
    Link(u32),
    /// Ends or contradicts itself at this byte.
    At(usize),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Broken::Form => f.write_str("it is neither pcap nor pcapng"),
            Broken::Link(kind) => write!(f, "its frames are of link type {kind}, not Ethernet (1)"),
            Broken::At(offset) => write!(f, "it ends too early or contradicts itself at byte {offset}"),
        }
    }
}

/// Reads a capture of either form.
pub(crate) fn read(bytes: &[u8]) -> Result<Vec<Captured>, Broken> {
    match bytes.first_chunk() {
        Some([0xd4, 0xc3, 0xb2, 0xa1]) => pcap(bytes, false, 1000),
        Some([0xa1, 0xb2, 0xc3, 0xd4]) => pcap(bytes, true, 1000),
        Some([0x4d, 0x3c, 0xb2, 0xa1]) => pcap(bytes, false, 1),
        Some([0xa1, 0xb2, 0x3c, 0x4d]) => pcap(bytes, true, 1),
        Some([0x0a, 0x0d, 0x0d, 0x0a]) => pcapng(bytes),
        _ => Err(Broken::Form),
    }
}

/// Fields of one byte order.
struct Fields<'b> {
    bytes: &'b [u8],
    big: bool,
}

impl<'b> Fields<'b> {
    fn array<const N: usize>(&self, at: usize) -> Result<[u8; N], Broken> {
        self.bytes.get(at..).and_then(|b| b.first_chunk()).copied().ok_or(Broken::At(at))
    }

    fn u32(&self, at: usize) -> Result<u32, Broken> {
        let bytes = self.array(at)?;
        Ok(if self.big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }

    fn u16(&self, at: usize) -> Result<u16, Broken> {
        let bytes = self.array(at)?;
        Ok(if self.big { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) })
    }

    fn frame(&self, at: usize, len: usize) -> Result<&'b [u8], Broken> {
        let end = at.checked_add(len).filter(|_| len <= LONGEST).ok_or(Broken::At(at))?;
        self.bytes.get(at..end).ok_or(Broken::At(at))
    }
}

fn pcap(bytes: &[u8], big: bool, tick_ns: u64) -> Result<Vec<Captured>, Broken> {
    let fields = Fields { bytes, big };
    // The upper bits hold the FCS length (draft-ietf-opsawg-pcap section 4).
    let link = fields.u32(20)? & 0xffff;
    if link != ETHERNET {
        return Err(Broken::Link(link));
    }
    let mut out = Vec::new();
    let mut at = 24;
    while at < bytes.len() {
        let (seconds, fraction) = (u64::from(fields.u32(at)?), u64::from(fields.u32(at + 4)?));
        let frame = fields.frame(at + 16, fields.u32(at + 8)? as usize)?;
        out.push(Captured { time: seconds * 1_000_000_000 + fraction * tick_ns, frame: frame.to_vec() });
        at += 16 + frame.len();
    }
    Ok(out)
}

/// Section, interface, enhanced and simple packet blocks; others are passed over.
fn pcapng(bytes: &[u8]) -> Result<Vec<Captured>, Broken> {
    let mut fields = Fields { bytes, big: false };
    // Of each interface: ticks in a second.
    let mut interfaces: Vec<u64> = Vec::new();
    let mut out: Vec<Captured> = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        if fields.array(at)? == [0x0a, 0x0d, 0x0d, 0x0a] {
            fields.big = match fields.array(at + 8)? {
                [0x1a, 0x2b, 0x3c, 0x4d] => true,
                [0x4d, 0x3c, 0x2b, 0x1a] => false,
                _ => return Err(Broken::At(at + 8)),
            };
            interfaces.clear();
        }
        let kind = fields.u32(at)?;
        let len = fields.u32(at + 4)? as usize;
        let end = at.checked_add(len).filter(|end| len >= 12 && len % 4 == 0 && *end <= bytes.len());
        let end = end.ok_or(Broken::At(at + 4))?;
        let block = Fields { bytes: &bytes[..end - 4], big: fields.big };
        match kind {
            1 => {
                let link = u32::from(block.u16(at + 8)?);
                if link != ETHERNET {
                    return Err(Broken::Link(link));
                }
                interfaces.push(resolution(&block, at + 16));
            }
            3 => {
                let original = block.u32(at + 8)? as usize;
                let time = out.last().map_or(0, |c| c.time);
                let frame = block.frame(at + 12, original.min(end - 4 - (at + 12)))?;
                out.push(Captured { time, frame: frame.to_vec() });
            }
            6 => {
                let ticks = *interfaces.get(block.u32(at + 8)? as usize).ok_or(Broken::At(at + 8))?;
                let time = u64::from(block.u32(at + 12)?) << 32 | u64::from(block.u32(at + 16)?);
                let frame = block.frame(at + 28, block.u32(at + 20)? as usize)?;
                let ns = u128::from(time) * 1_000_000_000 / u128::from(ticks);
                out.push(Captured { time: ns as u64, frame: frame.to_vec() });
            }
            _ => {}
        }
        at = end;
    }
    Ok(out)
}

/// Ticks in a second, from an interface's options; microseconds where it does not say.
fn resolution(block: &Fields<'_>, mut at: usize) -> u64 {
    while let (Ok(code), Ok(len)) = (block.u16(at), block.u16(at + 2)) {
        match (code, block.array::<1>(at + 4)) {
            (0, _) => break,
            (9, Ok([value])) if value & 0x80 != 0 => return 1u64.checked_shl(u32::from(value & 0x7f)).unwrap_or(1),
            (9, Ok([value])) => return 10u64.checked_pow(value.into()).unwrap_or(1),
            _ => at += 4 + usize::from(len).next_multiple_of(4),
        }
    }
    1_000_000
}

/// Writes pcapng, time in nanoseconds.
pub(crate) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// A capture with these interfaces.
    pub(crate) fn new(interfaces: &[String]) -> Self {
        let mut writer = Self { bytes: Vec::new() };
        let mut section = vec![0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 0, 0];
        section.extend([0xff; 8]);
        writer.block(0x0a0d_0d0a, &section);
        for name in interfaces {
            let mut body = vec![ETHERNET as u8, 0, 0, 0, 0, 0, 0, 0];
            option(&mut body, 2, name.as_bytes());
            option(&mut body, 9, &[9]);
            option(&mut body, 0, &[]);
            writer.block(1, &body);
        }
        writer
    }

    /// Adds a frame seen at an interface.
    pub(crate) fn frame(&mut self, interface: u32, time: u64, frame: &[u8], comment: &str) {
        let mut body = Vec::new();
        let len = frame.len() as u32;
        for field in [interface, (time >> 32) as u32, time as u32, len, len] {
            body.extend(field.to_le_bytes());
        }
        body.extend(frame);
        body.resize(body.len().next_multiple_of(4), 0);
        if !comment.is_empty() {
            option(&mut body, 1, comment.as_bytes());
            option(&mut body, 0, &[]);
        }
        self.block(6, &body);
    }

    /// The file.
    pub(crate) fn finish(self) -> Vec<u8> {
        self.bytes
    }

    fn block(&mut self, kind: u32, body: &[u8]) {
        let len = (body.len() as u32 + 12).to_le_bytes();
        self.bytes.extend(kind.to_le_bytes());
        self.bytes.extend(len);
        self.bytes.extend(body);
        self.bytes.extend(len);
    }
}

fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    let len = value.len().min(usize::from(u16::MAX)) as u16;
    body.extend(code.to_le_bytes());
    body.extend(len.to_le_bytes());
    body.extend(&value[..usize::from(len)]);
    body.resize(body.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> Vec<Captured> {
        vec![
            Captured { time: 1_700_000_000_123_456_789, frame: (0..61).collect() },
            Captured { time: 1_700_000_001_000_000_000, frame: vec![7; 64] },
        ]
    }

    #[test]
    fn what_is_written_reads_back() {
        let mut writer = Writer::new(&["in".into(), "uplink0".into()]);
        for (n, c) in two().iter().enumerate() {
            writer.frame(n as u32, c.time, &c.frame, "forward");
        }
        assert_eq!(read(&writer.finish()), Ok(two()));
    }

    #[test]
    fn pcap_of_either_order_and_resolution() {
        for (magic, big, tick) in [
            (0xa1b2_c3d4u32, false, 1000u64),
            (0xa1b2_c3d4, true, 1000),
            (0xa1b2_3c4d, false, 1),
            (0xa1b2_3c4d, true, 1),
        ] {
            let word = |v: u32| if big { v.to_be_bytes() } else { v.to_le_bytes() };
            let mut file = word(magic).to_vec();
            file.extend([0; 16]);
            file.extend(word(1));
            for v in [5, 999, 4, 4] {
                file.extend(word(v));
            }
            file.extend([1, 2, 3, 4]);
            let expected = Captured { time: 5_000_000_000 + 999 * tick, frame: vec![1, 2, 3, 4] };
            assert_eq!(read(&file), Ok(vec![expected]));
        }
    }

    #[test]
    fn broken_files_are_told_from_good_ones() {
        assert_eq!(read(b"{}"), Err(Broken::Form));
        let mut writer = Writer::new(&["in".into()]);
        writer.frame(0, 1, &[0; 60], "");
        let file = writer.finish();
        for len in 1..file.len() {
            // Ends that fall between blocks are whole files; none may panic.
            let _ = read(&file[..len]);
            for value in [0, 0xff] {
                let mut changed = file.clone();
                changed[len] = value;
                let _ = read(&changed);
            }
        }
        assert!(matches!(read(&file[..file.len() - 1]), Err(Broken::At(_))));
    }
}
