//! What the benchmark tells the frame source in Open vSwitch's process, and hears from it: a file that the source maps.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use crate::generator::Generator;
use crate::vhost::memory::Memory;
use crate::work::Kind;

/// Name of the environment variable with the file's path.
pub const VARIABLE: &str = "CULVERT_FRAMES";
/// The DPDK port whose frames the source writes.
pub const SOURCE: &str = "net_null0";
/// The DPDK port that takes what leaves.
pub const SINK: &str = "net_null1";
/// Length of the file.
pub const LEN: usize = 4096;
/// Byte at which the [`Shape`] lies.
const SHAPE: u64 = 0;
/// Byte at which the number of frames that were written lies.
const WRITTEN: u64 = 64;
/// Byte at which the length of a frame that left lies, or 0 while one is asked for.
const TAKEN: u64 = 128;
/// Byte at which it lies how many frames may have been written in all; 0: as many as there are buffers for.
pub const LIMIT: usize = 192;
/// Byte at which that frame lies.
const FRAME: u64 = 2048;

/// What happens to the buffers that the port hands out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// They go back: no traffic.
    Silent,
    /// They become frames and go back: what frames alone cost.
    Alone,
    /// They become frames that Open vSwitch receives.
    Given,
}

/// What the source writes. All of it is one word, so that it changes at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// What happens to it.
    pub mode: Mode,
    /// What is to be done to the frames.
    pub kind: Kind,
    /// Length of inner frames.
    pub bytes: u16,
    /// How many flows.
    pub flows: u32,
    /// Whether they differ by port alone.
    pub pair: bool,
}

impl Shape {
    /// As it lies in the file.
    pub fn bits(self) -> u64 {
        let kind = Kind::ALL.iter().position(|k| *k == self.kind).unwrap_or(0);
        let kind = kind as u64 | u64::from(self.pair) << 7;
        self.mode as u64 | kind << 8 | u64::from(self.bytes) << 16 | u64::from(self.flows) << 32
    }

    /// What writes its frames.
    pub fn generator(self) -> Generator {
        if self.pair {
            Generator::pair(self.kind, self.bytes.into())
        } else {
            Generator::new(self.kind, self.bytes.into())
        }
    }

    /// From the file; `None` if it says nothing yet.
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
    /// Makes the file.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn create(path: &Path) -> io::Result<Self> {
        let file = File::options().read(true).write(true).create_new(true).open(path)?;
        file.set_len(LEN as u64)?;
        Ok(Control(file))
    }

    /// Tells the source what to write from now on.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn tell(&self, shape: Shape) -> io::Result<()> {
        self.0.write_all_at(&shape.bits().to_ne_bytes(), SHAPE)
    }

    /// Frames that were written so far.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn written(&self) -> io::Result<u64> {
        self.word(WRITTEN)
    }

    /// Asks for the next frame that leaves.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn ask(&self) -> io::Result<()> {
        self.0.write_all_at(&[0; 8], TAKEN)
    }

    /// The frame that was asked for, once it has left; empty until then.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn taken(&self) -> io::Result<Vec<u8>> {
        let mut frame = vec![0; (self.word(TAKEN)? as usize).min(LEN - FRAME as usize)];
        self.0.read_exact_at(&mut frame, FRAME)?;
        Ok(frame)
    }

    /// The file, to be mapped.
    ///
    /// # Errors
    /// It cannot be mapped.
    pub fn map(&self) -> io::Result<Memory> {
        Memory::of(self.0.try_clone()?, LEN)
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
    /// The most frames that may have been written.
    pub const LIMIT: usize = super::LIMIT / 8;
    /// The length of the frame that left.
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
