//! Reads the connection file of the previous daemon.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read};

use culvert_packet::VportId;
use culvert_policy::Connection;

use super::format::{
    self, BootId, CHUNK_WORDS, ENTRIES_AT, ENTRY_WORDS, Header, Unusable, VPORTS_AT, VportIdentity,
};

/// The intact entries of a connection file, and the vports of its daemon.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct PreviousConnections {
    /// When the daemon was last alive, by the system's monotonic clock.
    pub(super) alive: u64,
    pub(super) vports: BTreeMap<VportId, VportIdentity>,
    /// Connections, with the time at which each was last seen.
    pub(super) connections: Vec<(Connection, u32)>,
    /// Number of entries that are neither empty nor intact.
    pub(super) corrupt: usize,
}

impl PreviousConnections {
    /// Reads a file from its beginning.
    ///
    /// # Errors
    /// It has another format, or was written before the last reboot.
    pub(super) fn read(mut file: impl Read, boot: BootId) -> Result<Self, Unusable> {
        let mut chunk = [0u64; CHUNK_WORDS];
        if read_words(&mut file, &mut chunk)? < VPORTS_AT {
            return Err(Unusable::Magic);
        }
        let (head, _) = chunk.split_first_chunk().ok_or(Unusable::Magic)?;
        let header = Header::decode(head)?;
        if header.boot != boot {
            return Err(Unusable::Boot);
        }
        let mut previous = PreviousConnections {
            alive: header.alive,
            vports: BTreeMap::new(),
            connections: Vec::new(),
            corrupt: 0,
        };
        let words = Header::file_words(header.entries);
        let wrong_length = Unusable::Length { entries: header.entries, expected: 8 * words };
        let mut at = VPORTS_AT;
        while at < words {
            let wanted = CHUNK_WORDS.min(words - at);
            if read_words(&mut file, &mut chunk[..wanted])? < wanted {
                return Err(wrong_length);
            }
            if at < ENTRIES_AT {
                previous.add_vports(at, &chunk[..wanted]);
            } else {
                previous.add_connections(at, &chunk[..wanted]);
            }
            at += wanted;
        }
        match file.read(&mut [0])? {
            0 => Ok(previous),
            _ => Err(wrong_length),
        }
    }

    fn add_vports(&mut self, at: usize, words: &[u64]) {
        for (n, pair) in words.as_chunks().0.iter().enumerate() {
            if let Some(identity) = VportIdentity::decode(*pair) {
                self.vports.insert(VportId(((at - VPORTS_AT) / 2 + n) as u16), identity);
            }
        }
    }

    fn add_connections(&mut self, at: usize, words: &[u64]) {
        for (n, entry) in words.as_chunks::<ENTRY_WORDS>().0.iter().enumerate() {
            if entry[0] == 0 {
                continue;
            }
            match format::decode(((at - ENTRIES_AT) / ENTRY_WORDS + n) as u32, entry) {
                Some(found) => self.connections.push(found),
                None => self.corrupt += 1,
            }
        }
    }
}

/// Fills `words` from a file, as far as it goes. Returns how many whole words were read.
fn read_words(file: &mut impl Read, words: &mut [u64]) -> std::io::Result<usize> {
    let mut bytes = [0; 4096];
    let mut len = 0;
    while len < words.len() {
        let wanted = bytes.len().min(8 * (words.len() - len));
        let mut got = 0;
        while got < wanted {
            match file.read(&mut bytes[got..wanted]) {
                Ok(0) => break,
                Ok(n) => got += n,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        let whole = bytes[..got].as_chunks().0;
        for (word, bytes) in words[len..].iter_mut().zip(whole) {
            *word = u64::from_le_bytes(*bytes);
        }
        len += whole.len();
        if got < wanted {
            return Ok(len);
        }
    }
    Ok(len)
}
