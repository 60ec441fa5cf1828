//! The file that a daemon keeps its connections in.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::{Relaxed, Release};

use culvert_packet::VportId;
use culvert_policy::{Connection, ConnectionId};
use rustix::fs::OFlags;
use rustix::process::geteuid;
use rustix::time::{ClockId, clock_gettime};

use super::format::{self, ALIVE, Boot, CHUNK, Header, Identity, MOST, Refused, SLOT, SLOTS, VPORTS};
use super::former::Former;
use super::lock::Lock;
use super::mapping::Mapping;
use crate::error::{Error, Result};

/// Zero bytes of a chunk.
static EMPTY: [u8; 8 * CHUNK] = [0; 8 * CHUNK];

/// A daemon's connections in a file, outside of the process: what a former daemon has left, and what this one has.
///
/// As long as this exists no other one of the same path can.
pub struct ConnectionFile {
    path: PathBuf,
    slots: u32,
    boot: Boot,
    former: Option<Former>,
    /// Nobody has asked for that yet.
    first: bool,
    now: Option<Written>,
    /// Keeps other daemons away.
    _lock: Lock,
}

/// The file of this daemon.
struct Written {
    file: File,
    map: Mapping,
    /// Chunks that have their memory.
    chunks: Vec<bool>,
    /// From the slow path's milliseconds to those of the system's clock.
    offset: u32,
    /// The system has had no room for a chunk; asked again when a second has passed.
    full: bool,
    /// Whether that was told.
    told: bool,
}

impl ConnectionFile {
    /// The file at `path`, or none yet, for a table of at most `limit` connections. A file that is of no use here is left
    /// out, and a warning says why.
    ///
    /// # Errors
    /// Another daemon has it, or the directory is not to be written to.
    pub fn open(path: &Path, limit: usize) -> Result<Self> {
        let system =
            |what: &str, source| Error::System { what: format!("{what} {}", path.display()), source };
        let lock = Lock::acquire(&beside(path, "lock")).map_err(|e| system("the lock of", e))?;
        let lock = lock.ok_or_else(|| Error::ConnectionsInUse { path: path.to_owned() })?;
        let boot = boot().map_err(|e| system("this machine's start, for", e))?;
        let slots = limit.min(MOST) as u32;
        let former = own(path).and_then(|file| Former::read(file, boot));
        let former = match former {
            Ok(former) => Some(former),
            Err(Refused::System(e)) if e.kind() == io::ErrorKind::NotFound => None,
            Err(error @ Refused::Boot) => {
                tracing::info!(path = %path.display(), %error, "connections of before are not taken over");
                None
            }
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "connections of before are not taken over");
                None
            }
        };
        Ok(ConnectionFile { path: path.to_owned(), slots, boot, former, first: true, now: None, _lock: lock })
    }

    /// Whether this is asked for the first time.
    pub(super) fn is_first(&mut self) -> bool {
        std::mem::take(&mut self.first)
    }

    /// What a former daemon has left, once.
    pub(super) fn take_former(&mut self) -> Option<Former> {
        self.former.take()
    }

    /// Makes this daemon's file, without connections and without its name: until [`publish`](Self::publish) it is the
    /// former one that counts. The slow path's time is `now` when the system's is `clock`.
    ///
    /// # Errors
    /// There is no room.
    pub(super) fn begin(&mut self, now: u32, clock: u64) -> io::Result<()> {
        let unnamed = beside(&self.path, "new");
        // It may be a daemon's that was killed before it had published it.
        match std::fs::remove_file(&unnamed) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(unnamed)?;
        let words = Header::words(self.slots);
        file.set_len(8 * words as u64)?;
        let map = Mapping::new(&file, words)?;
        let offset = (clock as u32).wrapping_sub(now);
        let chunks = vec![false; words.div_ceil(CHUNK)];
        let mut written = Written { file, map, chunks, offset, full: false, told: false };
        let header = Header { slots: self.slots, boot: self.boot, alive: clock };
        written.store(0, &header.encode())?;
        self.now = Some(written);
        Ok(())
    }

    /// Gives this daemon's file its name.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn publish(&self) -> io::Result<()> {
        std::fs::rename(beside(&self.path, "new"), &self.path)
    }

    /// Keeps nothing any more, and leaves nothing that a later daemon would take for the truth.
    pub(super) fn give_up(&mut self) {
        self.now = None;
        for path in [self.path.clone(), beside(&self.path, "new")] {
            if let Err(error) = std::fs::remove_file(&path)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(path = %path.display(), %error, "cannot be removed; do so before the next start");
            }
        }
    }

    /// Writes a connection as it is now.
    pub(crate) fn put(&mut self, id: ConnectionId, connection: &Connection) {
        if let Some(written) = &mut self.now {
            let seen = connection.last_seen.wrapping_add(written.offset);
            written.put(id.place(), connection, seen);
        }
    }

    /// Writes a connection that was last seen at `seen` of the system's clock.
    pub(super) fn put_seen(&mut self, id: ConnectionId, connection: &Connection, seen: u32) {
        if let Some(written) = &mut self.now {
            written.put(id.place(), connection, seen);
        }
    }

    /// A connection has ended.
    pub(crate) fn clear(&mut self, id: ConnectionId) {
        if let Some(written) = &self.now {
            let at = SLOTS + SLOT * id.place() as usize;
            if written.chunks.get(at / CHUNK) == Some(&true) {
                written.map.words()[at].store(0, Release);
            }
        }
    }

    /// Writes who has a vport's number now, its connections of before having ended. `None`: nobody.
    pub(super) fn vport(&mut self, id: VportId, identity: Option<Identity>) {
        let at = VPORTS + 2 * usize::from(id.0);
        if let Some(written) = &mut self.now {
            let words = identity.map_or([0; 2], |i| i.encode());
            if written.chunks.get(at / CHUNK) == Some(&false) && words == [0; 2] {
                return;
            }
            if let Err(error) = written.store(at, &words) {
                written.tell(&error);
            }
        }
    }

    /// This daemon is alive.
    pub(crate) fn alive(&mut self, now: u64) {
        if let Some(written) = &mut self.now {
            written.map.words()[ALIVE].store(now.to_le(), Relaxed);
            written.full = false;
        }
    }
}

impl Written {
    fn put(&mut self, place: u32, connection: &Connection, seen: u32) {
        let at = SLOTS + SLOT * place as usize;
        // A table that has more port_table than the file keeps those that fit.
        let there = self.chunks.get(at / CHUNK).copied().unwrap_or_default();
        if at + SLOT > self.map.words().len() || self.full && !there {
            return;
        }
        if let Err(error) = self.store(at, &format::encode(place, connection, seen)) {
            self.full = true;
            self.tell(&error);
        }
    }

    /// Stores words of one chunk, the first of them last.
    fn store(&mut self, at: usize, words: &[u64]) -> io::Result<()> {
        let chunk = at / CHUNK;
        match self.chunks.get_mut(chunk) {
            Some(true) => {}
            Some(there) => {
                // A store to memory that the system has no room for would end the process; a write is only refused.
                let begin = 8 * CHUNK * chunk;
                let len = EMPTY.len().min(8 * self.map.words().len() - begin);
                self.file.write_all_at(&EMPTY[..len], begin as u64)?;
                *there = true;
            }
            None => return Err(io::ErrorKind::InvalidInput.into()),
        }
        let (port_table, Some((first, rest))) =
            (&self.map.words()[at..at + words.len()], words.split_first())
        else {
            return Ok(());
        };
        for (place, word) in port_table[1..].iter().zip(rest) {
            place.store(word.to_le(), Relaxed);
        }
        port_table[0].store(first.to_le(), Release);
        Ok(())
    }

    fn tell(&mut self, error: &io::Error) {
        if !self.told {
            self.told = true;
            tracing::warn!(%error, "no room to keep more connections for the next start: make room beside the API's socket");
        }
    }
}

/// The system's monotonic clock, in milliseconds: the same for all processes from one start of the machine to the next.
pub(crate) fn clock() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1000 + now.tv_nsec as u64 / 1_000_000
}

/// Opens a file that a daemon like this one has made: others could let in what they like by it.
fn own(path: &Path) -> std::result::Result<File, Refused> {
    // Neither another file by way of this name, nor a pipe that nobody writes to.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = File::options().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
    let found = file.metadata()?;
    let ours = found.is_file() && found.uid() == geteuid().as_raw() && found.mode() & 0o077 == 0;
    if ours { Ok(file) } else { Err(Refused::Owner) }
}

fn beside(path: &Path, extension: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(extension);
    name.into()
}

/// The machine's start, as the kernel names it (random(4)).
fn boot() -> io::Result<Boot> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    let id = u128::from_str_radix(&digits, 16).map_err(io::Error::other)?;
    Ok(Boot(id.to_be_bytes()))
}
