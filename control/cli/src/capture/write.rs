//! Writes pcapng, time in nanoseconds.

use std::io::{self, Write};

use super::ETHERNET;

/// A capture that is being written.
pub(crate) struct Writer<W> {
    output: W,
}

impl<W: Write> Writer<W> {
    /// A capture with these interfaces.
    pub(crate) fn new<'n>(output: W, interfaces: impl IntoIterator<Item = &'n str>) -> io::Result<Self> {
        let mut writer = Self { output };
        let mut section = vec![0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 0, 0];
        // Of unknown length.
        section.extend([0xff; 8]);
        writer.block(0x0a0d_0d0a, &section)?;
        for name in interfaces {
            let mut body = vec![ETHERNET as u8, 0, 0, 0, 0, 0, 0, 0];
            option(&mut body, 2, name.as_bytes());
            option(&mut body, 9, &[9]);
            option(&mut body, 0, &[]);
            writer.block(1, &body)?;
        }
        Ok(writer)
    }

    /// Adds a frame that was seen at an interface.
    pub(crate) fn frame(
        &mut self,
        interface: usize,
        time: u64,
        frame: &[u8],
        comment: &str,
    ) -> io::Result<()> {
        let mut body = Vec::with_capacity(64 + frame.len() + comment.len());
        let len = frame.len() as u32;
        for field in [interface as u32, (time >> 32) as u32, time as u32, len, len] {
            body.extend(field.to_le_bytes());
        }
        body.extend(frame);
        body.resize(body.len().next_multiple_of(4), 0);
        option(&mut body, 1, comment.as_bytes());
        option(&mut body, 0, &[]);
        self.block(6, &body)
    }

    /// Hands everything to the system.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.output.flush()
    }

    fn block(&mut self, kind: u32, body: &[u8]) -> io::Result<()> {
        let len = (body.len() as u32 + 12).to_le_bytes();
        for part in [&kind.to_le_bytes(), &len, body, &len] {
            self.output.write_all(part)?;
        }
        Ok(())
    }
}

fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    let value = &value[..value.len().min(usize::from(u16::MAX))];
    body.extend(code.to_le_bytes());
    body.extend((value.len() as u16).to_le_bytes());
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
}
