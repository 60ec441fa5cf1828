//! Writes this daemon's connection file.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::atomic::Ordering::{Relaxed, Release};

use culvert_packet::VportId;
use culvert_policy::{Connection, ConnectionId};

use super::format::{self, ALIVE_AT, CHUNK_WORDS, ENTRIES_AT, ENTRY_WORDS, Header, VPORTS_AT, VportIdentity};
use super::mapping::Mapping;

/// Zero bytes of a chunk.
static ZEROS: [u8; 8 * CHUNK_WORDS] = [0; 8 * CHUNK_WORDS];

/// Whether the file system has room for more chunks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Room {
    /// As far as is known.
    Available,
    /// A chunk was refused; the next [`put_alive`](Writer::put_alive) allows another attempt.
    Exhausted,
}

/// This daemon's connection file, mapped.
pub(super) struct Writer {
    file: File,
    map: Mapping,
    /// Whether each chunk has its blocks.
    allocated: Vec<bool>,
    /// The slow path's time plus this is the system's clock.
    clock_offset: u32,
    room: Room,
    has_warned: bool,
}

impl Writer {
    /// Creates a file without connections. The slow path's time is `now` when the system's clock is `header.alive`.
    ///
    /// # Errors
    /// The file exists, or the file system is full.
    pub(super) fn create(path: &Path, header: &Header, now: u32) -> io::Result<Self> {
        let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(path)?;
        let words = Header::file_words(header.entries);
        file.set_len(8 * words as u64)?;
        let map = Mapping::new(&file, words)?;
        let clock_offset = (header.alive as u32).wrapping_sub(now);
        let allocated = vec![false; words.div_ceil(CHUNK_WORDS)];
        let room = Room::Available;
        let mut writer = Writer { file, map, allocated, clock_offset, room, has_warned: false };
        writer.store(0, &header.encode())?;
        Ok(writer)
    }

    /// Writes a connection as it is now.
    pub(super) fn put(&mut self, id: ConnectionId, connection: &Connection) {
        self.put_seen_at(id, connection, connection.last_seen.wrapping_add(self.clock_offset));
    }

    /// Writes a connection that was last seen at `last_seen` of the system's clock.
    pub(super) fn put_seen_at(&mut self, id: ConnectionId, connection: &Connection, last_seen: u32) {
        let index = id.place();
        let at = ENTRIES_AT + ENTRY_WORDS * index as usize;
        // Connections beyond the file's last entry are not stored.
        let is_allocated = self.allocated.get(at / CHUNK_WORDS).copied().unwrap_or_default();
        if at + ENTRY_WORDS > self.map.words().len() || self.room == Room::Exhausted && !is_allocated {
            return;
        }
        if let Err(error) = self.store(at, &format::encode(index, connection, last_seen)) {
            self.room = Room::Exhausted;
            self.warn(&error);
        }
    }

    /// Removes a connection.
    pub(super) fn clear(&self, id: ConnectionId) {
        let at = ENTRIES_AT + ENTRY_WORDS * id.place() as usize;
        if self.allocated.get(at / CHUNK_WORDS) == Some(&true) {
            self.map.words()[at].store(0, Release);
        }
    }

    /// Writes the identity of a vport, or that there is none.
    pub(super) fn put_vport(&mut self, id: VportId, identity: Option<VportIdentity>) {
        let at = VPORTS_AT + 2 * usize::from(id.0);
        let words = identity.map_or([0; 2], |i| i.encode());
        if self.allocated.get(at / CHUNK_WORDS) == Some(&false) && words == [0; 2] {
            return;
        }
        if let Err(error) = self.store(at, &words) {
            self.warn(&error);
        }
    }

    /// Writes that this daemon is alive, by the system's clock.
    pub(super) fn put_alive(&mut self, clock: u64) {
        self.map.words()[ALIVE_AT].store(clock.to_le(), Relaxed);
        self.room = Room::Available;
    }

    /// Stores words of one chunk, the first of them last.
    fn store(&mut self, at: usize, words: &[u64]) -> io::Result<()> {
        let chunk = at / CHUNK_WORDS;
        match self.allocated.get_mut(chunk) {
            Some(true) => {}
            Some(is_allocated) => {
                // On a full file system a store to a hole ends the process (SIGBUS); a write only fails.
                let begin = 8 * CHUNK_WORDS * chunk;
                let len = ZEROS.len().min(8 * self.map.words().len() - begin);
                self.file.write_all_at(&ZEROS[..len], begin as u64)?;
                *is_allocated = true;
            }
            None => return Err(io::ErrorKind::InvalidInput.into()),
        }
        let (cells, Some((first, rest))) = (&self.map.words()[at..at + words.len()], words.split_first())
        else {
            return Ok(());
        };
        for (cell, word) in cells[1..].iter().zip(rest) {
            cell.store(word.to_le(), Relaxed);
        }
        cells[0].store(first.to_le(), Release);
        Ok(())
    }

    fn warn(&mut self, error: &io::Error) {
        if !self.has_warned {
            self.has_warned = true;
            tracing::warn!(%error, "the connection file is full: some connections will not survive a restart; free space beside the API's socket");
        }
    }
}
