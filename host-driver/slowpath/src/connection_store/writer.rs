//! Writes this daemon's connection file.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use culvert_packet::VportId;
use culvert_policy::{Connection, ConnectionId};

use super::format::{self, ALIVE_AT, ENTRIES_AT, ENTRY_WORDS, Header, VPORTS_AT, VportIdentity};

/// Bytes of an entry.
const ENTRY: usize = 8 * ENTRY_WORDS;
/// Changes that wait for [`Writer::flush`] at most.
const MAX_CHANGES: usize = 1024;

/// This daemon's connection file.
///
/// It is written by calls, not mapped: an access to a mapping of a file that was cut would end the process
/// (SIGBUS), while a call fails or makes the file longer again. A call costs as much as the rest of a new connection, so
/// changes are written in bursts: before any packet that they decide on has left. An entry lies in one page, so that a daemon
/// that is killed leaves the old or the new one. The last entry is never written, so that a file which was cut stays too short.
pub(super) struct Writer {
    file: File,
    entries: u32,
    /// The slow path's time plus this is the system's clock.
    clock_offset: u32,
    /// Changed entries by index, in order.
    changes: Vec<(u32, [u64; ENTRY_WORDS])>,
    /// Why something could not be written.
    problem: Option<String>,
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.flush();
    }
}

impl Writer {
    /// Creates a file without connections. The slow path's time is `now` when the system's clock is `header.alive`.
    ///
    /// # Errors
    /// The file exists, or the file system is full.
    pub(super) fn create(path: &Path, header: &Header, now: u32) -> io::Result<Self> {
        let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(path)?;
        file.set_len(8 * Header::file_words(header.entries) as u64)?;
        let clock_offset = (header.alive as u32).wrapping_sub(now);
        let writer =
            Writer { file, entries: header.entries, clock_offset, changes: Vec::new(), problem: None };
        writer.write(0, &header.encode())?;
        Ok(writer)
    }

    /// Writes a connection as it is now.
    pub(super) fn put(&mut self, id: ConnectionId, connection: &Connection) {
        self.put_seen_at(id, connection, connection.last_seen.wrapping_add(self.clock_offset));
    }

    /// Writes a connection that was last seen at `last_seen` of the system's clock.
    pub(super) fn put_seen_at(&mut self, id: ConnectionId, connection: &Connection, last_seen: u32) {
        let index = id.place();
        // Connections beyond the file's last entries are not stored.
        if self.has(index) {
            self.change(index, format::encode(index, connection, last_seen));
        }
    }

    /// Removes a connection.
    pub(super) fn clear(&mut self, id: ConnectionId) {
        if self.has(id.place()) {
            self.change(id.place(), [0; ENTRY_WORDS]);
        }
    }

    fn change(&mut self, index: u32, entry: [u64; ENTRY_WORDS]) {
        self.changes.push((index, entry));
        if self.changes.len() >= MAX_CHANGES {
            self.flush();
        }
    }

    /// Writes the changed entries: neighbours in one call, as the connections of a burst mostly are.
    pub(super) fn flush(&mut self) {
        if self.changes.is_empty() {
            return;
        }
        let mut changes = std::mem::take(&mut self.changes);
        // Stable: of several changes of an entry the last one counts.
        changes.sort_by_key(|(index, _)| *index);
        let mut run: Vec<u8> = Vec::with_capacity(ENTRY * changes.len());
        let mut begin = 0;
        let mut last = None;
        for (index, entry) in &changes {
            if last == Some(*index) {
                run.truncate(run.len() - ENTRY);
            } else if last.is_none_or(|last| last + 1 != *index) {
                self.write_run(begin, &run);
                run.clear();
                begin = *index;
            }
            run.extend(entry.iter().flat_map(|word| word.to_le_bytes()));
            last = Some(*index);
        }
        self.write_run(begin, &run);
        changes.clear();
        self.changes = changes;
    }

    fn write_run(&mut self, begin: u32, run: &[u8]) {
        if !run.is_empty() {
            let written = self.file.write_all_at(run, 8 * entry_at(begin) as u64);
            self.note(written);
        }
    }

    /// Writes the identity of a vport, or that there is none.
    pub(super) fn put_vport(&mut self, id: VportId, identity: Option<VportIdentity>) {
        let words = identity.map_or([0; 2], |i| i.encode());
        let written = self.write(VPORTS_AT + 2 * usize::from(id.0), &words);
        self.note(written);
    }

    /// Writes that this daemon is alive, by the system's clock.
    pub(super) fn put_alive(&mut self, clock: u64) {
        self.flush();
        let written = self.write(ALIVE_AT, &[clock]);
        self.note(written);
    }

    /// Checks that the file at `path` is this one, whole.
    ///
    /// # Errors
    /// It was cut, removed or replaced; or what [`put`](Self::put) met meanwhile.
    pub(super) fn check(&self, path: &Path) -> Result<(), String> {
        let seen = || -> io::Result<_> { Ok((self.file.metadata()?, path.symlink_metadata()?)) };
        let (mine, there) = match seen() {
            Ok(both) => both,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err("it was removed".into()),
            Err(e) => return Err(e.to_string()),
        };
        let expected = 8 * Header::file_words(self.entries) as u64;
        if (mine.dev(), mine.ino()) != (there.dev(), there.ino()) {
            return Err("it was replaced by another file".into());
        }
        if mine.len() != expected {
            return Err(format!("it has {} bytes, not the {expected} that were written", mine.len()));
        }
        Ok(())
    }

    /// Why something could not be written.
    pub(super) fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    fn has(&self, index: u32) -> bool {
        index.checked_add(1).is_some_and(|next| next < self.entries)
    }

    fn write(&self, at: usize, words: &[u64]) -> io::Result<()> {
        let mut bytes = [0; ENTRY];
        for (to, word) in bytes.as_chunks_mut().0.iter_mut().zip(words) {
            *to = word.to_le_bytes();
        }
        self.file.write_all_at(&bytes[..8 * words.len()], 8 * at as u64)
    }

    fn note(&mut self, written: io::Result<()>) {
        if let Err(error) = written
            && self.problem.is_none()
        {
            tracing::warn!(%error, "the connection file cannot be written: some connections will not survive a restart; free space beside the API's socket");
            self.problem = Some(error.to_string());
        }
    }
}

/// The first word of an entry.
fn entry_at(index: u32) -> usize {
    ENTRIES_AT + ENTRY_WORDS * index as usize
}
