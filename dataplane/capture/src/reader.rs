//! Reads captures, frame by frame: pcap of either byte order and resolution (draft-ietf-opsawg-pcap), pcapng
//! (draft-ietf-opsawg-pcapng).

use std::io::{self, Read};

use crate::error::CaptureError;
use crate::{Captured, ETHERNET, LONGEST};

/// Longest pcapng block that is looked into; those of other kinds are passed over, however long.
const LONGEST_BLOCK: usize = LONGEST + (1 << 16);
/// Interfaces that one section may describe.
const MAX_INTERFACES: usize = 4096;
/// Kinds of blocks.
const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const OLD_PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const PACKET: u32 = 6;

/// What a capture has next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A frame.
    Frame(Captured),
    /// A block without a frame.
    Other,
    /// Nothing more.
    End,
}

/// A capture that is being read. What is kept of it is bounded.
pub struct Reader<R> {
    input: R,
    /// Bytes read.
    at: u64,
    big: bool,
    form: Form,
    /// Time of the last frame, for those that have none of their own.
    last: u64,
}

enum Form {
    /// Nanoseconds of a tick.
    Pcap(u64),
    PcapNg(Vec<Interface>),
}

/// An interface of a pcapng section.
#[derive(Clone, Copy)]
struct Interface {
    link: u16,
    /// Longest frame that it keeps; 0: no limit.
    snap: u32,
    /// Ticks in a second.
    ticks: u64,
    /// Seconds to add to its times.
    offset: i64,
}

impl<R: Read> Reader<R> {
    /// Reads the file's head.
    ///
    /// # Errors
    /// It is no capture, or one of something else than Ethernet.
    pub fn new(input: R) -> Result<Self, CaptureError> {
        let mut reader = Self { input, at: 0, big: false, form: Form::Pcap(1000), last: 0 };
        let magic: [u8; 4] = match reader.array("its head") {
            Err(CaptureError::CutOff { .. }) => return Err(CaptureError::Form),
            other => other?,
        };
        reader.big = magic[0] == 0xa1;
        match magic {
            [0xd4, 0xc3, 0xb2, 0xa1] | [0xa1, 0xb2, 0xc3, 0xd4] => reader.pcap_head(1000)?,
            [0x4d, 0x3c, 0xb2, 0xa1] | [0xa1, 0xb2, 0x3c, 0x4d] => reader.pcap_head(1)?,
            [0x0a, 0x0d, 0x0d, 0x0a] => {
                reader.form = Form::PcapNg(Vec::new());
                reader.section()?;
            }
            _ => return Err(CaptureError::Form),
        }
        Ok(reader)
    }

    /// The next frame; `None` at the end.
    ///
    /// # Errors
    /// The file is broken, or cut off behind the frames that were read.
    #[expect(clippy::should_implement_trait, reason = "errors are its callers' to see before the next frame")]
    pub fn next(&mut self) -> Result<Option<Captured>, CaptureError> {
        loop {
            match self.step()? {
                Step::Frame(captured) => return Ok(Some(captured)),
                Step::Other => {}
                Step::End => return Ok(None),
            }
        }
    }

    /// The next block, with a frame or without: for those that may not spend long on a file of many other blocks.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub fn step(&mut self) -> Result<Step, CaptureError> {
        let step = match self.form {
            Form::Pcap(tick) => self.pcap_frame(tick)?,
            Form::PcapNg(_) => self.pcapng_block()?,
        };
        if let Step::Frame(captured) = &step {
            self.last = captured.time;
        }
        Ok(step)
    }

    fn pcap_head(&mut self, tick: u64) -> Result<(), CaptureError> {
        let head: [u8; 20] = self.array("its head")?;
        // The upper half holds the length of the FCS (section 4).
        let link = self.u32(&head, 16) as u16;
        self.form = Form::Pcap(tick);
        if link == ETHERNET { Ok(()) } else { Err(CaptureError::Link(link)) }
    }

    fn pcap_frame(&mut self, tick: u64) -> Result<Step, CaptureError> {
        let begin = self.at;
        let Some(head) = self.array_or_end::<16>("a frame's head")? else { return Ok(Step::End) };
        let [seconds, fraction, kept, original] = [0, 4, 8, 12].map(|at| self.u32(&head, at));
        let kept = kept as usize;
        if kept > LONGEST {
            return Err(CaptureError::Malformed { what: "the length of the frame", at: begin });
        }
        let frame = self.bytes(kept, "a frame")?;
        let time = u64::from(seconds) * 1_000_000_000 + u64::from(fraction) * tick;
        Ok(Step::Frame(Captured { time, frame, original: kept.max(original as usize) }))
    }

    fn pcapng_block(&mut self) -> Result<Step, CaptureError> {
        let begin = self.at;
        let Some(kind) = self.array_or_end::<4>("a block")? else { return Ok(Step::End) };
        if kind == SECTION.to_be_bytes() {
            return self.section().map(|()| Step::Other);
        }
        let kind = self.u32(&kind, 0);
        let len = self.array::<4>("a block")?;
        let len = self.u32(&len, 0);
        let malformed = |what| CaptureError::Malformed { what, at: begin };
        // Kind, length, body, length again; in units of four bytes.
        let body_len = len.checked_sub(12).filter(|n| n.is_multiple_of(4)).map(|n| n as usize);
        let body_len = body_len.ok_or(malformed("the length of the block"))?;
        if !matches!(kind, INTERFACE | OLD_PACKET | SIMPLE_PACKET | PACKET) {
            self.skip(body_len as u64)?;
            return self.trailer(begin, len).map(|()| Step::Other);
        }
        if body_len > LONGEST_BLOCK {
            return Err(malformed("the length of the block"));
        }
        let what = if kind == INTERFACE { "a block" } else { "a frame" };
        let body = self.bytes(body_len, what)?;
        self.trailer(begin, len)?;
        if kind == INTERFACE {
            let interface = self.interface(&body).ok_or(malformed("the block"))?;
            return self.add(interface).then_some(Step::Other).ok_or(malformed("the number of interfaces"));
        }
        let (interface, captured) = self.packet(kind, &body).ok_or(malformed("the block"))?;
        if interface.link != ETHERNET {
            return Err(CaptureError::Link(interface.link));
        }
        Ok(Step::Frame(captured))
    }

    /// `false`: the section has too many.
    fn add(&mut self, interface: Interface) -> bool {
        let Form::PcapNg(interfaces) = &mut self.form else { return false };
        let room = interfaces.len() < MAX_INTERFACES;
        if room {
            interfaces.push(interface);
        }
        room
    }

    /// A section's head, behind its kind: sets the byte order of what follows.
    fn section(&mut self) -> Result<(), CaptureError> {
        let begin = self.at - 4;
        let head: [u8; 8] = self.array("the section's head")?;
        self.big = match head[4..] {
            [0x1a, 0x2b, 0x3c, 0x4d] => true,
            [0x4d, 0x3c, 0x2b, 0x1a] => false,
            _ => return Err(CaptureError::Malformed { what: "the byte order of the section", at: begin }),
        };
        self.form = Form::PcapNg(Vec::new());
        let len = self.u32(&head, 0);
        let rest = len.checked_sub(16).filter(|_| len.is_multiple_of(4));
        let rest =
            rest.ok_or(CaptureError::Malformed { what: "the length of the section's head", at: begin })?;
        self.skip(rest.into())?;
        self.trailer(begin, len)
    }

    fn trailer(&mut self, begin: u64, len: u32) -> Result<(), CaptureError> {
        let again = self.array::<4>("a block")?;
        if self.u32(&again, 0) == len {
            return Ok(());
        }
        Err(CaptureError::Malformed { what: "the length of the block", at: begin })
    }

    fn interface(&self, body: &[u8]) -> Option<Interface> {
        let mut found = Interface {
            link: self.get_u16(body, 0)?,
            snap: self.get_u32(body, 4)?,
            ticks: 1_000_000,
            offset: 0,
        };
        let mut at = 8;
        while let (Some(code), Some(len)) = (self.get_u16(body, at), self.get_u16(body, at + 2)) {
            let value = body.get(at + 4..at + 4 + usize::from(len))?;
            match (code, value) {
                (0, _) => break,
                // if_tsresol: a negative power of two or of ten.
                (9, &[power]) if power & 0x80 != 0 => {
                    found.ticks = 1u64.checked_shl(u32::from(power & 0x7f))?;
                }
                (9, &[power]) => found.ticks = 10u64.checked_pow(power.into())?,
                // if_tsoffset
                (14, value) => {
                    let bytes = value.first_chunk().copied()?;
                    found.offset =
                        if self.big { i64::from_be_bytes(bytes) } else { i64::from_le_bytes(bytes) };
                }
                _ => {}
            }
            at += 4 + usize::from(len).next_multiple_of(4);
        }
        Some(found)
    }

    fn packet(&self, kind: u32, body: &[u8]) -> Option<(Interface, Captured)> {
        let Form::PcapNg(interfaces) = &self.form else { return None };
        if kind == SIMPLE_PACKET {
            let interface = *interfaces.first()?;
            let original = self.get_u32(body, 0)?;
            let limit = if interface.snap == 0 { u32::MAX } else { interface.snap };
            let kept = (original.min(limit) as usize).min(body.len() - 4);
            return Some((interface, self.captured(self.last, body, 4, kept, original)?));
        }
        let number = match kind {
            OLD_PACKET => u32::from(self.get_u16(body, 0)?),
            _ => self.get_u32(body, 0)?,
        };
        let interface = *interfaces.get(number as usize)?;
        let ticks = u64::from(self.get_u32(body, 4)?) << 32 | u64::from(self.get_u32(body, 8)?);
        let since = i128::from(ticks) * 1_000_000_000 / i128::from(interface.ticks);
        let time = since + i128::from(interface.offset) * 1_000_000_000;
        let time = u64::try_from(time.max(0)).unwrap_or(u64::MAX);
        let (kept, original) = (self.get_u32(body, 12)?, self.get_u32(body, 16)?);
        Some((interface, self.captured(time, body, 20, kept as usize, original)?))
    }

    fn captured(&self, time: u64, body: &[u8], at: usize, kept: usize, original: u32) -> Option<Captured> {
        let frame = body.get(at..)?.get(..kept).filter(|_| kept <= LONGEST)?;
        Some(Captured { time, frame: frame.to_vec(), original: kept.max(original as usize) })
    }

    fn u32(&self, bytes: &[u8], at: usize) -> u32 {
        self.get_u32(bytes, at).unwrap_or_default()
    }

    fn get_u32(&self, bytes: &[u8], at: usize) -> Option<u32> {
        let bytes = bytes.get(at..)?.first_chunk().copied()?;
        Some(if self.big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }

    fn get_u16(&self, bytes: &[u8], at: usize) -> Option<u16> {
        let bytes = bytes.get(at..)?.first_chunk().copied()?;
        Some(if self.big { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) })
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], CaptureError> {
        let at = self.at;
        self.array_or_end(what)?.ok_or(CaptureError::CutOff { what, at })
    }

    /// `None`: the file ends before the first of the bytes.
    fn array_or_end<const N: usize>(&mut self, what: &'static str) -> Result<Option<[u8; N]>, CaptureError> {
        let (mut bytes, at) = ([0; N], self.at);
        match self.fill(&mut bytes)? {
            0 => Ok(None),
            n if n == N => Ok(Some(bytes)),
            _ => Err(CaptureError::CutOff { what, at }),
        }
    }

    fn bytes(&mut self, len: usize, what: &'static str) -> Result<Vec<u8>, CaptureError> {
        let (mut bytes, at) = (vec![0; len], self.at);
        if self.fill(&mut bytes)? == len { Ok(bytes) } else { Err(CaptureError::CutOff { what, at }) }
    }

    fn skip(&mut self, len: u64) -> Result<(), CaptureError> {
        let at = self.at;
        let passed = io::copy(&mut self.input.by_ref().take(len), &mut io::sink())?;
        self.at += passed;
        if passed == len { Ok(()) } else { Err(CaptureError::CutOff { what: "a block", at }) }
    }

    /// As many bytes as there are, at most `bytes` holds.
    fn fill(&mut self, bytes: &mut [u8]) -> Result<usize, CaptureError> {
        let mut filled = 0;
        while filled < bytes.len() {
            match self.input.read(&mut bytes[filled..]) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
        }
        self.at += filled as u64;
        Ok(filled)
    }
}
