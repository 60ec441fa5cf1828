//! Frames out of a capture file, in either format: pcap (draft-ietf-opsawg-pcap) and pcapng (draft-ietf-opsawg-pcapng).

use std::io::Read;

use culvert_packet::Reason;
use pcap_parser::pcapng::Block;
use pcap_parser::traits::{PcapNGPacketBlock as _, PcapReaderIterator};
use pcap_parser::{Linktype, PcapBlockOwned, PcapError, create_reader};

/// Longest block of a file.
const BUFFER: usize = 1 << 20;
/// Blocks that hold no frame, passed over at a time.
const BLOCKS: usize = 64;
/// Interfaces that one section may describe.
const INTERFACES: usize = 4096;

/// What a file has next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// A frame of so many bytes.
    Frame(usize),
    /// A frame that is dropped, and why.
    Bad(Reason),
    /// No frame yet: ask again.
    Later,
    /// Nothing more.
    End,
    /// Nothing more that can be read.
    Broken(String),
}

/// A file that is being read. What is kept of it is bounded.
pub(super) struct Reader {
    blocks: Box<dyn PcapReaderIterator + Send>,
    /// Whether each interface of the section is an Ethernet one.
    interfaces: Vec<bool>,
}

/// What a block holds.
enum Content<'a> {
    Frame { interface: usize, data: &'a [u8], whole: usize },
    Interface(Linktype),
    Section,
    Other,
}

fn content<'a>(block: &'a PcapBlockOwned<'a>) -> Content<'a> {
    match block {
        // The file's header is the description of its only interface.
        PcapBlockOwned::LegacyHeader(header) => Content::Interface(header.network),
        PcapBlockOwned::Legacy(frame) => {
            Content::Frame { interface: 0, data: frame.data, whole: frame.origlen as usize }
        }
        PcapBlockOwned::NG(Block::SectionHeader(_)) => Content::Section,
        PcapBlockOwned::NG(Block::InterfaceDescription(interface)) => Content::Interface(interface.linktype),
        PcapBlockOwned::NG(Block::EnhancedPacket(frame)) => Content::Frame {
            interface: frame.if_id as usize,
            data: frame.packet_data(),
            whole: frame.origlen as usize,
        },
        PcapBlockOwned::NG(Block::SimplePacket(frame)) => {
            Content::Frame { interface: 0, data: frame.packet_data(), whole: frame.origlen as usize }
        }
        PcapBlockOwned::NG(_) => Content::Other,
    }
}

impl Reader {
    /// Begins to read.
    ///
    /// # Errors
    /// It is no capture file.
    pub(super) fn new(file: impl Read + Send + 'static) -> Result<Self, String> {
        let blocks = create_reader(BUFFER, file).map_err(|error| match error {
            PcapError::Eof => "it is empty".to_owned(),
            _ => "it is neither pcap nor pcapng".to_owned(),
        })?;
        Ok(Reader { blocks, interfaces: Vec::new() })
    }

    /// The next frame, copied.
    pub(super) fn next(&mut self, into: &mut [u8]) -> Next {
        for _ in 0..BLOCKS {
            let (used, next) = match self.blocks.next() {
                Ok((used, block)) => (used, take(&content(&block), &mut self.interfaces, into)),
                Err(PcapError::Eof) => return Next::End,
                Err(PcapError::Incomplete(_)) => {
                    let before = self.blocks.data().len();
                    if let Err(error) = self.blocks.refill() {
                        return broken(&error);
                    }
                    if self.blocks.data().len() == before && !self.blocks.reader_exhausted() {
                        return broken(&PcapError::<()>::BufferTooSmall);
                    }
                    continue;
                }
                Err(error) => return broken(&error),
            };
            self.blocks.consume(used);
            if let Some(next) = next {
                return next;
            }
        }
        Next::Later
    }
}

/// In words of ours: the parser's would hold the rest of the file.
fn broken<I>(error: &PcapError<I>) -> Next {
    let why = match error {
        PcapError::UnexpectedEof => "it ends in the middle of a block",
        PcapError::BufferTooSmall => "a block is too long",
        PcapError::ReadError => "it cannot be read",
        _ => "a block is malformed",
    };
    Next::Broken(why.to_owned())
}

/// What is to be made of a block; `None`: go on.
fn take(content: &Content<'_>, interfaces: &mut Vec<bool>, into: &mut [u8]) -> Option<Next> {
    match content {
        Content::Section => interfaces.clear(),
        Content::Interface(_) if interfaces.len() >= INTERFACES => {
            return Some(Next::Broken(format!("more than {INTERFACES} interfaces")));
        }
        Content::Interface(link) => interfaces.push(*link == Linktype::ETHERNET),
        Content::Frame { interface, data, whole } => {
            return Some(match (interfaces.get(*interface), into.get_mut(..data.len())) {
                (None, _) => {
                    Next::Broken(format!("a frame of interface {interface}, which is not described"))
                }
                (Some(false), _) => Next::Broken("frames of something else than Ethernet".to_owned()),
                _ if data.len() < *whole => Next::Bad(Reason::Truncated),
                _ if data.len() < 14 => Next::Bad(Reason::Runt),
                (_, None) => Next::Bad(Reason::TooLong),
                (_, Some(place)) => {
                    place.copy_from_slice(data);
                    Next::Frame(data.len())
                }
            });
        }
        Content::Other => {}
    }
    None
}
