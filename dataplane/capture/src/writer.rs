//! Writes pcapng, time in nanoseconds.

use std::io::{self, Write};

use crate::ETHERNET;

/// A capture that is being written.
pub struct Writer<W> {
    output: W,
}

impl<W: Write> Writer<W> {
    /// Begins a capture with these interfaces.
    ///
    /// # Errors
    /// The output cannot be written.
    pub fn new<'n>(output: W, interfaces: impl IntoIterator<Item = &'n str>) -> io::Result<Self> {
        let mut writer = Self { output };
        let mut section = vec![0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 0, 0];
        // Of unknown length.
        section.extend([0xff; 8]);
        writer.block(0x0a0d_0d0a, &[&section])?;
        for name in interfaces {
            let mut body = vec![ETHERNET as u8, 0, 0, 0, 0, 0, 0, 0];
            option(&mut body, 2, name.as_bytes());
            option(&mut body, 9, &[9]);
            option(&mut body, 0, &[]);
            writer.block(1, &[&body])?;
        }
        Ok(writer)
    }

    /// Adds a frame that was seen at an interface, with a comment if it is not empty.
    ///
    /// # Errors
    /// The output cannot be written.
    pub fn frame(&mut self, interface: usize, time: u64, frame: &[u8], comment: &str) -> io::Result<()> {
        self.packet(interface, time, [frame, &[]], frame.len(), comment)
    }

    /// Adds the beginning of a frame, in two pieces, that was `original` bytes long.
    ///
    /// # Errors
    /// The output cannot be written.
    pub fn pieces(
        &mut self,
        interface: usize,
        time: u64,
        pieces: [&[u8]; 2],
        original: usize,
    ) -> io::Result<()> {
        self.packet(interface, time, pieces, original, "")
    }

    /// Bytes that a frame takes in the file, of which so many are kept.
    pub const fn frame_len(kept: usize) -> usize {
        kept.next_multiple_of(4) + 32
    }

    fn packet(
        &mut self,
        interface: usize,
        time: u64,
        pieces: [&[u8]; 2],
        original: usize,
        comment: &str,
    ) -> io::Result<()> {
        let kept = pieces[0].len() + pieces[1].len();
        let mut head = [0; 20];
        let fields = [interface as u32, (time >> 32) as u32, time as u32, kept as u32, original as u32];
        for (bytes, field) in head.chunks_exact_mut(4).zip(fields) {
            bytes.copy_from_slice(&field.to_le_bytes());
        }
        let mut options = Vec::new();
        if !comment.is_empty() {
            option(&mut options, 1, comment.as_bytes());
            option(&mut options, 0, &[]);
        }
        let padding = &[0; 3][..kept.next_multiple_of(4) - kept];
        self.block(6, &[&head, pieces[0], pieces[1], padding, &options])
    }

    /// Hands everything to the system.
    ///
    /// # Errors
    /// The output cannot be written.
    pub fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }

    fn block(&mut self, kind: u32, parts: &[&[u8]]) -> io::Result<()> {
        let body: usize = parts.iter().map(|part| part.len()).sum();
        let len = (body as u32 + 12).to_le_bytes();
        self.output.write_all(&kind.to_le_bytes())?;
        self.output.write_all(&len)?;
        for part in parts {
            self.output.write_all(part)?;
        }
        self.output.write_all(&len)
    }
}

fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    let value = &value[..value.len().min(usize::from(u16::MAX))];
    body.extend(code.to_le_bytes());
    body.extend((value.len() as u16).to_le_bytes());
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
}
