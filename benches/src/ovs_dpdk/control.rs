//! The control file that the benchmark and the frame source in Open vSwitch's process share.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use crate::generator::Generator;
use crate::shared_memory::SharedMemory;
use crate::work::Kind;

/// Name of the environment variable with the file's path.
pub const VARIABLE: &str = "CULVERT_FRAMES";
/// The DPDK port whose frames the source writes.
pub const SOURCE: &str = "net_null0";
/// The DPDK port that takes frames that leave.
pub const SINK: &str = "net_null1";
/// Length of the file.
pub const LEN: usize = 4096;
/// Offset of the [`Shape`].
const SHAPE: u64 = 0;
/// Offset of the number of written frames.
const WRITTEN: u64 = 64;
/// Offset of the length of the captured frame; 0 while the benchmark waits for one.
const TAKEN: u64 = 128;
/// Offset of the limit of written frames; 0: no limit.
pub const LIMIT: usize = 192;
/// Offset of the captured frame.
const FRAME: u64 = 2048;

/// What the source does with the buffers that the port hands out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Frees them: no traffic.
    Silent,
    /// Writes frames and frees them: the cost of the source alone.
    Alone,
    /// Writes frames, which Open vSwitch receives.
    Given,
}

/// What the source writes. It is encoded in one word, so that it changes atomically.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// What the source does.
    pub mode: Mode,
    /// Direction and encapsulation.
    pub kind: Kind,
    /// Length of inner frames.
    pub bytes: u16,
    /// Number of flows.
    pub flows: u32,
    /// Whether flows differ by port alone.
    pub pair: bool,
}

impl Shape {
    /// The word in the file.
    pub fn bits(self) -> u64 {
        let kind = Kind::ALL.iter().position(|k| *k == self.kind).unwrap_or(0);
        let kind = kind as u64 | u64::from(self.pair) << 7;
        self.mode as u64 | kind << 8 | u64::from(self.bytes) << 16 | u64::from(self.flows) << 32
    }

    /// A generator of its frames.
    pub fn generator(self) -> Generator {
        if self.pair {
            Generator::pair(self.kind, self.bytes.into())
        } else {
            Generator::new(self.kind, self.bytes.into())
        }
    }

    /// Decodes the word in the file; `None` for no traffic.
    pub fn from_bits(bits: u64) -> Option<Self> {
        let mode = match bits as u8 {
            1 => Mode::Alone,
            2 => Mode::Given,
            _ => return None,
        };
        let kind = *Kind::ALL.get(usize::from((bits >> 8) as u8 & 0x7f))?;
        let pair = (bits >> 15) & 1 != 0;
        Some(Shape { mode, kind, bytes: (bits >> 16) as u16, flows: (bits >> 32) as u32, pair })
    }
}

/// The benchmark's end of the file.
pub struct Control(File);

impl Control {
    /// Creates the file.
    ///
    /// # Errors
    /// It cannot be created.
    pub fn create(path: &Path) -> io::Result<Self> {
        let file = File::options().read(true).write(true).create_new(true).open(path)?;
        file.set_len(LEN as u64)?;
        Ok(Control(file))
    }

    /// Sets what the source writes from now on.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn set_shape(&self, shape: Shape) -> io::Result<()> {
        self.0.write_all_at(&shape.bits().to_ne_bytes(), SHAPE)
    }

    /// Number of frames written so far.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn written(&self) -> io::Result<u64> {
        self.word(WRITTEN)
    }

    /// Requests a capture of the next frame that leaves.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn request_frame(&self) -> io::Result<()> {
        self.0.write_all_at(&[0; 8], TAKEN)
    }

    /// The captured frame; empty until one has left.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn taken(&self) -> io::Result<Vec<u8>> {
        let mut frame = vec![0; (self.word(TAKEN)? as usize).min(LEN - FRAME as usize)];
        self.0.read_exact_at(&mut frame, FRAME)?;
        Ok(frame)
    }

    /// Maps the file.
    ///
    /// # Errors
    /// It cannot be mapped.
    pub fn map(&self) -> io::Result<SharedMemory> {
        SharedMemory::of(self.0.try_clone()?, LEN)
    }

    fn word(&self, at: u64) -> io::Result<u64> {
        let mut bytes = [0; 8];
        self.0.read_exact_at(&mut bytes, at)?;
        Ok(u64::from_ne_bytes(bytes))
    }
}

/// The file's words, by index.
pub mod words {
    /// The shape.
    pub const SHAPE: usize = (super::SHAPE / 8) as usize;
    /// The number of frames.
    pub const WRITTEN: usize = (super::WRITTEN / 8) as usize;
    /// The limit of written frames.
    pub const LIMIT: usize = super::LIMIT / 8;
    /// The length of the captured frame.
    pub const TAKEN: usize = (super::TAKEN / 8) as usize;
    /// Its bytes, up to the file's end.
    pub const FRAME: usize = (super::FRAME / 8) as usize;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_survives_the_file() {
        for kind in Kind::ALL {
            for pair in [false, true] {
                let shape = Shape { mode: Mode::Given, kind, bytes: 1500, flows: 1_000_000, pair };
                assert_eq!(Shape::from_bits(shape.bits()), Some(shape));
            }
        }
        assert_eq!(Shape::from_bits(0), None);
        assert_eq!(Shape::from_bits(0x7f02), None);
    }
}
