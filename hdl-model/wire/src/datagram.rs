//! A cable made of UNIX datagram sockets: one frame a datagram, with its FCS.

use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use culvert_packet::Reason;

use super::link_monitor::LinkMonitor;
use super::{Received, Wire};

/// Longest frame on the cable, FCS included.
const LONGEST: usize = 9216 + 4;

/// One end.
pub struct Datagram {
    socket: UnixDatagram,
    own: PathBuf,
    other: PathBuf,
    frame: Vec<u8>,
    monitor: LinkMonitor,
}

impl Datagram {
    /// Binds our end at `own`; frames go to `other`, which need not be there yet.
    ///
    /// # Errors
    /// The path cannot be bound.
    pub fn bind(own: &Path, other: &Path) -> std::io::Result<Self> {
        let socket = UnixDatagram::bind(own)?;
        socket.set_nonblocking(true)?;
        let (own, other, there) = (own.to_owned(), other.to_owned(), other.to_owned());
        let monitor = LinkMonitor::start(move || (there.exists(), 0))?;
        Ok(Datagram { socket, own, other, frame: vec![0; LONGEST], monitor })
    }
}

impl Wire for Datagram {
    fn receive(&mut self, into: &mut [u8]) -> Received {
        let Ok(len) = self.socket.recv(&mut self.frame) else { return Received::Nothing };
        let Some(body) = len.checked_sub(4) else { return Received::Bad(Reason::Runt) };
        let (frame, fcs) = self.frame[..len].split_at(body);
        if crc32fast::hash(frame).to_le_bytes() != fcs {
            return Received::Bad(Reason::BadFcs);
        }
        match into.get_mut(..body) {
            Some(place) => {
                place.copy_from_slice(frame);
                Received::Frame(body)
            }
            None => Received::Bad(Reason::TooLong),
        }
    }

    fn send(&mut self, header: &[u8], payload: &[u8]) -> Result<(), Reason> {
        let mut hash = crc32fast::Hasher::new();
        hash.update(header);
        hash.update(payload);
        let frame = [header, payload, &hash.finalize().to_le_bytes()].concat();
        match self.socket.send_to(&frame, &self.other) {
            Ok(_) => Ok(()),
            Err(e) if e.kind() == ErrorKind::WouldBlock => Err(Reason::RingFull),
            Err(_) => Err(Reason::UplinkDown),
        }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    fn link(&mut self) -> bool {
        self.monitor.is_up()
    }

    fn lost(&mut self) -> u64 {
        0
    }
}

impl Drop for Datagram {
    fn drop(&mut self) {
        let _gone = std::fs::remove_file(&self.own);
    }
}
