//! What passed a MAC port, as a pcapng file (draft-ietf-opsawg-pcapng).

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Bytes of a frame that are kept once `full` bytes were written.
const HEADERS: usize = 160;

/// A capture that is being written. Frames are whole at first and then only their first bytes, so that the file stays
/// bounded in what it costs to read while every packet is in it.
pub struct Capture {
    out: BufWriter<File>,
    full: u64,
    left: u64,
}

impl Capture {
    /// Begins a file. `full`: bytes after which frames are cut short; `limit`: bytes after which nothing is written.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn create(path: &Path, interface: &str, full: u64, limit: u64) -> std::io::Result<Self> {
        let mut out = BufWriter::with_capacity(1 << 18, File::create(path)?);
        block(&mut out, 0x0a0d_0d0a, &[&0x1a2b_3c4du32.to_le_bytes(), &[1, 0, 0, 0], &[0xff; 8]])?;
        // Interface description: Ethernet, no snap length; its name; time stamps in nanoseconds.
        let mut name = interface.as_bytes().to_vec();
        name.resize(name.len().next_multiple_of(4), 0);
        let name_len = (interface.len() as u16).to_le_bytes();
        let options: [&[u8]; 8] = [
            &[1, 0, 0, 0],
            &[0; 4],
            &[2, 0],
            &name_len,
            &name,
            &[9, 0, 1, 0, 9, 0, 0, 0],
            &[0, 0, 0, 0],
            &[],
        ];
        block(&mut out, 1, &options)?;
        Ok(Capture { out, full, left: limit })
    }

    /// Adds a frame. Nothing is reported here: a full disk ends the capture.
    pub fn frame(&mut self, header: &[u8], payload: &[u8]) {
        let len = header.len() + payload.len();
        let kept = if self.full > 0 { len } else { len.min(HEADERS) };
        let size = kept.next_multiple_of(4) as u64 + 32;
        if self.left < size {
            return;
        }
        self.left -= size;
        self.full = self.full.saturating_sub(size);
        let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64);
        let from_header = header.len().min(kept);
        let padding = [0; 3];
        let parts: [&[u8]; 8] = [
            &[0; 4],
            &((time >> 32) as u32).to_le_bytes(),
            &(time as u32).to_le_bytes(),
            &(kept as u32).to_le_bytes(),
            &(len as u32).to_le_bytes(),
            &header[..from_header],
            &payload[..kept - from_header],
            &padding[..kept.next_multiple_of(4) - kept],
        ];
        if block(&mut self.out, 6, &parts).is_err() {
            self.left = 0;
        }
    }

    /// Whether nothing can be written any more.
    pub fn is_over(&self) -> bool {
        self.left == 0
    }

    /// Brings what was written to the file.
    pub fn flush(&mut self) {
        if self.out.flush().is_err() {
            self.left = 0;
        }
    }
}

fn block(out: &mut impl Write, kind: u32, parts: &[&[u8]]) -> std::io::Result<()> {
    let len = (12 + parts.iter().map(|p| p.len()).sum::<usize>()) as u32;
    out.write_all(&kind.to_le_bytes())?;
    out.write_all(&len.to_le_bytes())?;
    for part in parts {
        out.write_all(part)?;
    }
    out.write_all(&len.to_le_bytes())
}
