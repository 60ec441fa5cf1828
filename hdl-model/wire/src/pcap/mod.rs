//! Capture files as a wire: receives the frames of one at a bounded pace, and writes frames to another.

mod reader;
#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use culvert_packet::Reason;
use rustix::event::Timespec;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};

use self::reader::{Next, Reader};
use super::{Capture, Received, Wire};

/// Frames a second if nothing else is said.
pub const PACE: u32 = 1000;
/// How much may be caught up after a pause: a short burst.
const CATCH_UP: Duration = Duration::from_millis(5);
/// The engine is not woken more often than that.
const SHORTEST_SLEEP: Duration = Duration::from_millis(1);

/// What tells a file from its replacement: device, number, and time of the last change.
type Identity = (u64, u64, i64, i64);

/// Where frames come from.
struct Input {
    path: PathBuf,
    reader: Option<Reader<File>>,
    /// The file that was read last.
    last: Option<Identity>,
}

/// The wire.
pub struct Pcap {
    input: Option<Input>,
    output: Option<Capture>,
    interval: Duration,
    /// When the next frame may come.
    next: Instant,
    /// Wakes the engine while there are frames.
    timer: OwnedFd,
}

impl Pcap {
    /// Receives the frames of the file `input`, at most `pace` a second, and writes frames to the pcapng file `output`, which
    /// is created or emptied. The input need not exist yet: it is read once, as a whole, when it appears, and so is each file
    /// that replaces it. So complete it elsewhere and move it there.
    ///
    /// # Errors
    /// The output cannot be written, or the input is something else than a file.
    pub fn open(input: Option<&Path>, output: Option<&Path>, pace: u32) -> io::Result<Self> {
        if let Some(path) = input
            && fs::metadata(path).is_ok_and(|found| !found.is_file())
        {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        let output = output.map(|path| Capture::create(path, "wire", u64::MAX, u64::MAX)).transpose()?;
        let input = input.map(|path| Input { path: path.to_owned(), reader: None, last: None });
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        let interval = Duration::from_secs(1) / pace.max(1);
        Ok(Pcap { input, output, interval, next: Instant::now(), timer })
    }

    /// Starts or stops the periodic timer.
    fn set_timer(&self, on: bool) {
        let period = if on { self.interval.max(SHORTEST_SLEEP) } else { Duration::ZERO };
        let period = Timespec { tv_sec: period.as_secs() as i64, tv_nsec: i64::from(period.subsec_nanos()) };
        let spec = Itimerspec { it_interval: period, it_value: period };
        if let Err(error) = timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &spec) {
            tracing::warn!(%error, "no timer for a capture file: its frames may be late");
        }
    }

    /// Opens an input file that has appeared.
    fn look_for_input(&mut self) {
        let Some(input) = self.input.as_mut().filter(|input| input.reader.is_none()) else { return };
        let Ok(found) = fs::metadata(&input.path) else { return };
        let identity = Some((found.dev(), found.ino(), found.mtime(), found.mtime_nsec()));
        if !found.is_file() || input.last == identity {
            return;
        }
        input.last = identity;
        let opened = File::open(&input.path).map_err(|e| e.to_string()).and_then(Reader::new);
        match opened {
            Ok(reader) => {
                input.reader = Some(reader);
                self.set_timer(true);
            }
            Err(error) => tracing::warn!(file = %input.path.display(), "cannot be read: {error}"),
        }
    }

    /// Clears the timer's expirations.
    fn clear_timer(&self) {
        // It fails only when the timer has not gone off.
        let _ = rustix::io::read(&self.timer, &mut [0; 8]);
    }
}

impl Wire for Pcap {
    fn receive(&mut self, into: &mut [u8]) -> Received {
        let Some(input) = &mut self.input else { return Received::Nothing };
        let Some(reader) = &mut input.reader else { return Received::Nothing };
        let now = Instant::now();
        if now < self.next {
            self.clear_timer();
            return Received::Nothing;
        }
        let end = match reader.next(into) {
            Next::Frame(len) => Ok(Received::Frame(len)),
            Next::Bad(reason) => Ok(Received::Bad(reason)),
            Next::Later => Ok(Received::Nothing),
            Next::End => Err(None),
            Next::Broken(why) => Err(Some(why)),
        };
        match end {
            Ok(received) => {
                self.next = self.next.max(now.checked_sub(CATCH_UP).unwrap_or(now)) + self.interval;
                received
            }
            Err(why) => {
                if let Some(why) = why {
                    tracing::warn!(file = %input.path.display(), "the rest of the file is left out: {why}");
                }
                input.reader = None;
                self.set_timer(false);
                self.clear_timer();
                Received::Nothing
            }
        }
    }

    fn send(&mut self, header: &[u8], payload: &[u8]) -> Result<(), Reason> {
        match &mut self.output {
            Some(output) if output.is_over() => Err(Reason::UplinkDown),
            Some(output) => {
                output.frame(header, payload);
                Ok(())
            }
            // There is no output.
            None => Ok(()),
        }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }

    fn link(&mut self) -> bool {
        self.look_for_input();
        let Some(output) = &mut self.output else { return true };
        output.flush();
        !output.is_over()
    }

    fn lost(&mut self) -> u64 {
        0
    }
}
