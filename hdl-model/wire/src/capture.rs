//! Frames of a MAC port, recorded in a pcapng file of bounded size.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use culvert_capture::Writer;

/// Bytes of a frame that are kept once `full` bytes were written.
const HEADERS: usize = 160;

/// A capture that is being written. Frames are whole at first and then only their first bytes, so that the file stays
/// bounded in what it costs to read while every packet is in it.
pub struct Capture {
    out: Writer<BufWriter<File>>,
    full: u64,
    left: u64,
}

impl Capture {
    /// Begins a file. `full`: bytes after which frames are cut short; `limit`: bytes after which nothing is written.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn create(path: &Path, interface: &str, full: u64, limit: u64) -> std::io::Result<Self> {
        let out = Writer::new(BufWriter::with_capacity(1 << 18, File::create(path)?), [interface])?;
        Ok(Capture { out, full, left: limit })
    }

    /// Adds a frame. Nothing is reported here: a full disk ends the capture.
    pub fn frame(&mut self, header: &[u8], payload: &[u8]) {
        let len = header.len() + payload.len();
        let kept = if self.full > 0 { len } else { len.min(HEADERS) };
        let size = Writer::<File>::frame_len(kept) as u64;
        if self.left < size {
            return;
        }
        self.left -= size;
        self.full = self.full.saturating_sub(size);
        let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64);
        let from_header = header.len().min(kept);
        let pieces = [&header[..from_header], &payload[..kept - from_header]];
        if self.out.pieces(0, time, pieces, len).is_err() {
            self.left = 0;
        }
    }

    /// Whether nothing can be written any more.
    pub fn is_over(&self) -> bool {
        self.left == 0
    }

    /// Flushes buffered frames to the file.
    pub fn flush(&mut self) {
        if self.out.flush().is_err() {
            self.left = 0;
        }
    }
}
