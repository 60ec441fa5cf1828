//! Frames out of a capture file, as a MAC port takes them: what is not whole or does not fit is dropped with its reason.

use std::io::{BufReader, Read};

use culvert_capture::{Captured, Step};
use culvert_packet::Reason;

/// Blocks that hold no frame, passed over at a time.
const BLOCKS: usize = 64;
/// Shortest frame: an Ethernet header.
const SHORTEST: usize = 14;

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

/// A file that is being read.
pub(super) struct Reader<R>(culvert_capture::Reader<BufReader<R>>);

impl<R: Read> Reader<R> {
    /// Begins to read.
    ///
    /// # Errors
    /// It is no capture file.
    pub(super) fn new(file: R) -> Result<Self, String> {
        culvert_capture::Reader::new(BufReader::new(file)).map(Reader).map_err(|error| error.to_string())
    }

    /// The next frame, copied.
    pub(super) fn next(&mut self, into: &mut [u8]) -> Next {
        for _ in 0..BLOCKS {
            match self.0.step() {
                Ok(Step::Frame(captured)) => return take(&captured, into),
                Ok(Step::Other) => {}
                Ok(Step::End) => return Next::End,
                Err(error) => return Next::Broken(error.to_string()),
            }
        }
        Next::Later
    }
}

fn take(captured: &Captured, into: &mut [u8]) -> Next {
    let len = captured.frame.len();
    match into.get_mut(..len) {
        _ if len < captured.original => Next::Bad(Reason::Truncated),
        _ if len < SHORTEST => Next::Bad(Reason::Runt),
        None => Next::Bad(Reason::TooLong),
        Some(place) => {
            place.copy_from_slice(&captured.frame);
            Next::Frame(len)
        }
    }
}
