//! The socket to which VMMs connect, and the thread that serves one connection at a time.

use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, shutdown, socket_with};
use rustix::time::Timespec;

use super::message::{self, ConnectionEnd, Message};
use super::session::Session;
use super::status::PortStatus;

/// Pause after a failed accept, for instance when the process is out of file descriptors.
const ACCEPT_RETRY: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// The thread and its socket. Dropping it ends both, without waiting: the thread may be waiting for its client's file server,
/// and then it hangs alone.
pub(super) struct Server(Arc<Stop>);

/// Tells the thread to end.
struct Stop {
    flag: Arc<AtomicBool>,
    wake: OwnedFd,
    socket: Socket,
    /// The connection on which it may be waiting.
    connection: Mutex<Option<UnixStream>>,
}

impl Stop {
    fn is_set(&self) -> bool {
        self.flag.load(Ordering::Acquire)
    }

    /// Sets the connection to shut down on stop. `false`: the thread must end now.
    fn set_connection(&self, connection: Option<UnixStream>) -> bool {
        let mut current = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let former = std::mem::replace(&mut *current, connection);
        drop(current);
        // Not under the lock, which the packet thread takes.
        drop(former);
        !self.is_set()
    }
}

impl Server {
    /// Listens at the port's path. Removes the socket that a dead process has left there.
    pub(super) fn start(
        mut session: Session,
        status: Arc<PortStatus>,
        flag: Arc<AtomicBool>,
    ) -> io::Result<Self> {
        let socket = Socket::bind(&status.path)?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let stop = Arc::new(Stop { flag, wake, socket, connection: Mutex::new(None) });
        let thread_stop = Arc::clone(&stop);
        let running = Running::new();
        let run = move || {
            let _running = running;
            serve(&thread_stop.socket.listener, &mut session, &status, &thread_stop);
            thread_stop.socket.remove();
        };
        std::thread::Builder::new().name("vhost-user".into()).spawn(run)?;
        Ok(Server(stop))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let stop = &self.0;
        stop.flag.store(true, Ordering::Release);
        // Nobody connects any more, also if the thread hangs and cannot remove the socket: the path may be used again.
        let _closed = shutdown(&stop.socket.listener, rustix::net::Shutdown::Both);
        // Each wakes the thread, wherever it waits.
        let _woken = rustix::io::write(&stop.wake, &1u64.to_ne_bytes());
        if let Some(connection) = &*stop.connection.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ended = connection.shutdown(Shutdown::Both);
        }
    }
}

/// Number of threads that have not ended.
static RUNNING: (Mutex<usize>, Condvar) = (Mutex::new(0), Condvar::new());

/// Counts a thread.
struct Running;

impl Running {
    fn new() -> Self {
        *RUNNING.0.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        Running
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        *RUNNING.0.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        RUNNING.1.notify_all();
    }
}

/// Waits until the threads of all ports have ended, and have removed their sockets. `false`: one hangs.
pub(super) fn wait_ended(limit: Duration) -> bool {
    let running = RUNNING.0.lock().unwrap_or_else(PoisonError::into_inner);
    let waited = RUNNING.1.wait_timeout_while(running, limit, |running| *running > 0);
    !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
}

/// Held while a path's socket is replaced or removed, so that a port that ends removes no other's.
static PATHS: Mutex<()> = Mutex::new(());

/// A listening socket and its file.
struct Socket {
    listener: UnixListener,
    path: PathBuf,
    /// The file's device and inode.
    file: (u64, u64),
}

impl Socket {
    /// Listens at a path. Replaces a socket on which nobody listens.
    fn bind(path: &Path) -> io::Result<Self> {
        let _only = PATHS.lock().unwrap_or_else(PoisonError::into_inner);
        let bound = UnixListener::bind(path);
        let listener = match bound {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                let socket = std::fs::symlink_metadata(path)?.file_type().is_socket();
                if !socket || !is_refused(path)? {
                    return Err(error);
                }
                std::fs::remove_file(path)?;
                UnixListener::bind(path)?
            }
            bound => bound?,
        };
        let file = identity(path)?;
        Ok(Socket { listener, path: path.to_owned(), file })
    }

    /// Removes the file, if it is still this socket's.
    fn remove(&self) {
        let _only = PATHS.lock().unwrap_or_else(PoisonError::into_inner);
        if identity(&self.path).is_ok_and(|file| file == self.file) {
            let _gone = std::fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    std::fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
}

/// Whether nobody listens on a socket. Does not wait for room in a listener's queue.
fn is_refused(path: &Path) -> io::Result<bool> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    Ok(connect(&socket, &SocketAddrUnix::new(path)?) == Err(Errno::CONNREFUSED))
}

fn serve(listener: &UnixListener, session: &mut Session, status: &PortStatus, stop: &Stop) {
    while !stop.is_set() {
        let mut fds =
            [listener.as_fd(), stop.wake.as_fd()].map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
        // An interrupted poll returns nothing.
        let ready = poll(&mut fds, None).is_ok() && fds[0].revents().contains(PollFlags::IN);
        if !ready || stop.is_set() {
            continue;
        }
        let accepted = listener.accept().and_then(|(stream, _)| Ok((stream.try_clone()?, stream)));
        match accepted {
            Ok((clone, stream)) => {
                if stop.set_connection(Some(clone)) {
                    status.set_connected(true);
                    serve_connection(&stream, session, status);
                    status.set_connected(false);
                }
                let _stopping = stop.set_connection(None);
            }
            Err(error) => {
                tracing::warn!(path = %status.path.display(), %error, "cannot accept a VMM's connection");
                let mut wake = [PollFd::new(&stop.wake, PollFlags::IN)];
                let _woken = poll(&mut wake, Some(&ACCEPT_RETRY));
            }
        }
    }
}

/// Serves a connection until it ends.
fn serve_connection(stream: &UnixStream, session: &mut Session, status: &PortStatus) {
    let end = loop {
        if let Err(end) = serve_request(stream, session) {
            break end;
        }
    };
    session.end();
    let path = status.path.display().to_string();
    if matches!(end, ConnectionEnd::Closed | ConnectionEnd::Socket(_)) {
        tracing::debug!(path, %end, "a VMM has disconnected");
    } else {
        status.count_refused();
        tracing::warn!(path, %end, "closing a VMM's connection");
    }
}

/// Serves one request.
fn serve_request(stream: &UnixStream, session: &mut Session) -> Result<(), ConnectionEnd> {
    let Message { code, request, need_reply } = message::receive(stream)?;
    let result = session.execute(request);
    let acknowledge = need_reply && session.acknowledges();
    let replied = match &result {
        Ok(reply) => message::reply(stream, code, reply, acknowledge),
        Err(_) if acknowledge => message::refuse(stream, code),
        Err(_) => Ok(()),
    };
    result.map_err(|why| ConnectionEnd::Refused(code, why))?;
    replied.map_err(|_| ConnectionEnd::Closed)
}
