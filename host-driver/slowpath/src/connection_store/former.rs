//! What a former daemon has left.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read};

use culvert_packet::VportId;
use culvert_policy::Connection;

use super::format::{self, Boot, CHUNK, Header, Identity, Refused, SLOT, SLOTS, VPORTS};

/// The whole slots of a file, and what its vports were.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Former {
    /// When its daemon was last alive.
    pub(super) alive: u64,
    pub(super) vports: BTreeMap<VportId, Identity>,
    /// Connections, with the time at which each was last seen.
    pub(super) connections: Vec<(Connection, u32)>,
    /// Slots that are neither empty nor whole.
    pub(super) torn: usize,
}

impl Former {
    /// Reads a file from its beginning.
    ///
    /// # Errors
    /// It is not of this form, or of another start of the machine.
    pub(super) fn read(mut file: impl Read, boot: Boot) -> Result<Self, Refused> {
        let mut chunk = [0u64; CHUNK];
        if fill(&mut file, &mut chunk)? < VPORTS {
            return Err(Refused::Other);
        }
        let (head, _) = chunk.split_first_chunk().ok_or(Refused::Other)?;
        let header = Header::decode(head)?;
        if header.boot != boot {
            return Err(Refused::Boot);
        }
        let mut former =
            Former { alive: header.alive, vports: BTreeMap::new(), connections: Vec::new(), torn: 0 };
        let words = Header::words(header.slots);
        let wrong = Refused::Length { slots: header.slots, expected: 8 * words };
        let mut at = VPORTS;
        while at < words {
            let wanted = CHUNK.min(words - at);
            if fill(&mut file, &mut chunk[..wanted])? < wanted {
                return Err(wrong);
            }
            if at < SLOTS {
                former.vports(at, &chunk[..wanted]);
            } else {
                former.slots(at, &chunk[..wanted]);
            }
            at += wanted;
        }
        match file.read(&mut [0])? {
            0 => Ok(former),
            _ => Err(wrong),
        }
    }

    fn vports(&mut self, at: usize, words: &[u64]) {
        for (n, pair) in words.as_chunks().0.iter().enumerate() {
            if let Some(identity) = Identity::decode(*pair) {
                self.vports.insert(VportId(((at - VPORTS) / 2 + n) as u16), identity);
            }
        }
    }

    fn slots(&mut self, at: usize, words: &[u64]) {
        for (n, slot) in words.as_chunks::<SLOT>().0.iter().enumerate() {
            if slot[0] == 0 {
                continue;
            }
            match format::decode(((at - SLOTS) / SLOT + n) as u32, slot) {
                Some(found) => self.connections.push(found),
                None => self.torn += 1,
            }
        }
    }
}

/// Reads words until there are no more or no more are wanted. Returns how many; a part of one is none.
fn fill(file: &mut impl Read, words: &mut [u64]) -> std::io::Result<usize> {
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
