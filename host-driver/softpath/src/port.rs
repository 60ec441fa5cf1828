//! Ports of vports that no VF serves: their frames come from a VMQ and go to whoever owns the vport's socket.
//!
//! A UNIX datagram socket, one frame a datagram. The board's end is `vport<id>.sock` in the run directory; frames go to
//! whoever sent to it last. An empty datagram says "I am here" without sending a frame.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::time::Duration;

use culvert_packet::VportId;

/// Longest frame that is taken.
const MAX_FRAME: usize = 2048;

/// Where the socket of a vport is.
pub fn socket_path(dir: &Path, id: VportId) -> PathBuf {
    dir.join(format!("vport{}.sock", id.0))
}

/// The slow path's end.
pub struct HostPort {
    socket: UnixDatagram,
    path: PathBuf,
    owner: Option<SocketAddr>,
}

impl HostPort {
    /// Listens for the owner of vport `id`. A socket that a former process left is replaced.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub fn bind(dir: &Path, id: VportId) -> io::Result<Self> {
        let path = socket_path(dir, id);
        let _ = std::fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path)?;
        socket.set_nonblocking(true)?;
        Ok(HostPort { socket, path, owner: None })
    }

    /// A frame that the owner sends.
    pub fn receive(&mut self) -> Option<Vec<u8>> {
        let mut frame = vec![0; MAX_FRAME];
        loop {
            let (len, from) = self.socket.recv_from(&mut frame).ok()?;
            if !from.is_unnamed() {
                self.owner = Some(from);
            }
            if len > 0 {
                frame.truncate(len);
                return Some(frame);
            }
        }
    }

    /// A frame for the owner. `false`: there is none, or it is too slow.
    pub fn send(&self, frame: &[u8]) -> bool {
        self.owner.as_ref().is_some_and(|owner| self.socket.send_to_addr(frame, owner).is_ok())
    }
}

impl AsFd for HostPort {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for HostPort {
    fn drop(&mut self) {
        // A name that somebody else took away is none to take away.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// The owner's end: what a virtual machine's network back end uses instead of a VF.
pub struct SyntheticPort {
    socket: UnixDatagram,
    own: PathBuf,
}

impl SyntheticPort {
    /// Becomes the owner of the vport whose socket is at `path`.
    ///
    /// # Errors
    /// Nobody listens there.
    pub fn open(path: &Path) -> io::Result<Self> {
        let own = path.with_extension(format!("{}", std::process::id()));
        let _ = std::fs::remove_file(&own);
        let port = SyntheticPort { socket: UnixDatagram::bind(&own)?, own };
        port.socket.connect(path)?;
        port.socket.send(&[])?;
        Ok(port)
    }

    /// Sends a frame.
    ///
    /// # Errors
    /// The slow path is gone.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        self.socket.send(frame).map(|_| ())
    }

    /// The next frame; `None` if none comes in time.
    ///
    /// # Errors
    /// The socket fails.
    pub fn receive(&self, limit: Duration) -> io::Result<Option<Vec<u8>>> {
        self.socket.set_read_timeout(Some(limit.max(Duration::from_millis(1))))?;
        let mut frame = vec![0; MAX_FRAME];
        match self.socket.recv(&mut frame) {
            Ok(len) => {
                frame.truncate(len);
                Ok(Some(frame))
            }
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => Ok(None),
            Err(e) => Err(e),
        }
    }
}

impl Drop for SyntheticPort {
    fn drop(&mut self) {
        // As for the other end.
        let _ = std::fs::remove_file(&self.own);
    }
}

#[cfg(test)]
mod tests;
