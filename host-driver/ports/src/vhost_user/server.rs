//! The socket to which VMMs connect, and the thread that serves one connection at a time.

use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::time::Timespec;

use super::message::{self, ConnectionEnd, Message};
use super::session::Session;
use super::status::PortStatus;

/// Pause after a failed accept, for instance when the process is out of file descriptors.
const ACCEPT_RETRY: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// The thread and its socket. Dropping it ends both.
pub(super) struct Server {
    status: Arc<PortStatus>,
    thread: Option<JoinHandle<()>>,
    stop: Arc<Stop>,
}

/// Tells the thread to end.
struct Stop {
    flag: Arc<AtomicBool>,
    wake: OwnedFd,
    /// The connection on which it may be waiting.
    connection: Mutex<Option<UnixStream>>,
}

impl Stop {
    fn is_set(&self) -> bool {
        self.flag.load(Ordering::Acquire)
    }

    /// Sets the connection to shut down on stop. `false`: the thread must end now.
    fn set_connection(&self, connection: Option<UnixStream>) -> bool {
        *self.connection.lock().unwrap_or_else(PoisonError::into_inner) = connection;
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
        let listener = listen(&status.path)?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let stop = Arc::new(Stop { flag, wake, connection: Mutex::new(None) });
        let thread_stop = Arc::clone(&stop);
        let thread_status = Arc::clone(&status);
        let run = move || serve(&listener, &mut session, &thread_status, &thread_stop);
        let thread = std::thread::Builder::new().name("vhost-user".into()).spawn(run)?;
        Ok(Server { status, thread: Some(thread), stop })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.flag.store(true, Ordering::Release);
        // Each wakes the thread, wherever it waits.
        let _woken = rustix::io::write(&self.stop.wake, &1u64.to_ne_bytes());
        if let Some(connection) = &*self.stop.connection.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ended = connection.shutdown(Shutdown::Both);
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!(path = %self.status.path.display(), "the thread of a vhost-user port has panicked");
        }
        let _gone = std::fs::remove_file(&self.status.path);
    }
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    let bound = UnixListener::bind(path);
    match bound {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            // Only a socket on which no process listens may be removed.
            let socket = std::fs::symlink_metadata(path)?.file_type().is_socket();
            let refused = |e: io::Error| e.kind() == io::ErrorKind::ConnectionRefused;
            if !socket || !UnixStream::connect(path).is_err_and(refused) {
                return Err(error);
            }
            std::fs::remove_file(path)?;
            UnixListener::bind(path)
        }
        bound => bound,
    }
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
