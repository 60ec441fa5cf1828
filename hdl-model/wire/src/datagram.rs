//! A cable made of UNIX datagram sockets: one frame a datagram, with its FCS.

use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileTypeExt as _;
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
    /// Binds our end at `own`, also where a dead process has left it; frames go to `other`, which need not be there yet.
    ///
    /// # Errors
    /// The path cannot be bound, or another process has it.
    pub fn bind(own: &Path, other: &Path) -> std::io::Result<Self> {
        let socket = match UnixDatagram::bind(own) {
            Err(error) if error.kind() == ErrorKind::AddrInUse => {
                replace_stale(own)?;
                UnixDatagram::bind(own)?
            }
            bound => bound?,
        };
        socket.set_nonblocking(true)?;
        let (own, other, there) = (own.to_owned(), other.to_owned(), other.to_owned());
        let monitor = LinkMonitor::start(move || (connect(&there).is_ok(), 0))?;
        Ok(Datagram { socket, own, other, frame: vec![0; LONGEST], monitor })
    }
}

/// Whether a process has the other end: a path alone may be a dead one's.
fn connect(path: &Path) -> std::io::Result<()> {
    UnixDatagram::unbound()?.connect(path)
}

/// Removes a socket that no process has any more.
fn replace_stale(path: &Path) -> std::io::Result<()> {
    let taken = |why: &str| std::io::Error::new(ErrorKind::AddrInUse, why);
    if !std::fs::symlink_metadata(path)?.file_type().is_socket() {
        return Err(taken("it is a file, not a socket: remove it, or choose another path"));
    }
    match connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        _ => Err(taken(
            "another process, such as a second culvert-emu, has this end of the cable: end it, or choose another path",
        )),
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

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;

    #[test]
    fn a_dead_processs_end_is_taken_over_and_a_living_ones_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let (own, other) = (folder.path().join("own"), folder.path().join("other"));
        // Closed, but not removed, as after SIGKILL.
        drop(UnixDatagram::bind(&own).unwrap());
        let first = Datagram::bind(&own, &other).unwrap();
        let second = Datagram::bind(&own, &other).err().expect("it is taken").to_string();
        assert!(second.contains("second culvert-emu"), "{second}");
        assert!(own.exists(), "the first one keeps its end");
        std::fs::write(&other, "precious").unwrap();
        assert!(Datagram::bind(&other, &own).err().expect("a file").to_string().contains("not a socket"));
        assert_eq!(std::fs::read(&other).unwrap(), b"precious");
        drop(first);
        assert!(!own.exists());
    }

    #[test]
    fn a_dead_process_at_the_other_end_is_no_link() {
        let folder = tempfile::tempdir().unwrap();
        let (own, other) = (folder.path().join("own"), folder.path().join("other"));
        drop(UnixDatagram::bind(&other).unwrap());
        assert!(!Datagram::bind(&own, &other).unwrap().link());
        std::fs::remove_file(&other).unwrap();
        let _alive = UnixDatagram::bind(&other).unwrap();
        assert!(Datagram::bind(&own, &other).unwrap().link());
    }
}
