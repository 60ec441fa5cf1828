//! The socket to which VMMs connect, one at a time, and the thread that talks with them.

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

use super::message::{self, End, Message};
use super::session::Session;
use super::status::Shared;

/// Before the next try when no connection can be accepted, for want of files for instance.
const PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// The thread and its socket, both of which end with this.
pub(super) struct Server {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    stop: Arc<Stop>,
}

/// How the thread is told to end.
struct Stop {
    flag: Arc<AtomicBool>,
    wake: OwnedFd,
    /// The connection that it may be waiting on.
    connection: Mutex<Option<UnixStream>>,
}

impl Stop {
    fn is_set(&self) -> bool {
        self.flag.load(Ordering::Acquire)
    }

    /// Remembers the connection, unless it is late for that.
    fn remember(&self, connection: Option<UnixStream>) -> bool {
        *self.connection.lock().unwrap_or_else(PoisonError::into_inner) = connection;
        !self.is_set()
    }
}

impl Server {
    /// Listens at the port's path. What is left there of one who has died is removed.
    pub(super) fn start(
        mut session: Session,
        shared: Arc<Shared>,
        flag: Arc<AtomicBool>,
    ) -> io::Result<Self> {
        let listener = listen(&shared.path)?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let stop = Arc::new(Stop { flag, wake, connection: Mutex::new(None) });
        let told = Arc::clone(&stop);
        let port = Arc::clone(&shared);
        let run = move || serve(&listener, &mut session, &port, &told);
        let thread = std::thread::Builder::new().name("vhost-user".into()).spawn(run)?;
        Ok(Server { shared, thread: Some(thread), stop })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.flag.store(true, Ordering::Release);
        // Neither can fail in a way that would keep the thread waiting.
        let _woken = rustix::io::write(&self.stop.wake, &1u64.to_ne_bytes());
        if let Some(connection) = &*self.stop.connection.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ended = connection.shutdown(Shutdown::Both);
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!(path = %self.shared.path.display(), "the thread of a VM's port has panicked");
        }
        let _gone = std::fs::remove_file(&self.shared.path);
    }
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    let bound = UnixListener::bind(path);
    match bound {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            // A socket that nobody listens on. Anything else is not ours to remove.
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

fn serve(listener: &UnixListener, session: &mut Session, shared: &Shared, stop: &Stop) {
    while !stop.is_set() {
        let mut fds =
            [listener.as_fd(), stop.wake.as_fd()].map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
        // An interrupted wait is one that has brought nothing.
        let ready = poll(&mut fds, None).is_ok() && fds[0].revents().contains(PollFlags::IN);
        if !ready || stop.is_set() {
            continue;
        }
        let accepted = listener.accept().and_then(|(stream, _)| Ok((stream.try_clone()?, stream)));
        match accepted {
            Ok((clone, stream)) => {
                if stop.remember(Some(clone)) {
                    shared.connected(true);
                    talk(&stream, session, shared);
                    shared.connected(false);
                }
                let _going_on = stop.remember(None);
            }
            Err(error) => {
                tracing::warn!(path = %shared.path.display(), %error, "a VMM's connection cannot be accepted");
                let mut wake = [PollFd::new(&stop.wake, PollFlags::IN)];
                let _woken = poll(&mut wake, Some(&PAUSE));
            }
        }
    }
}

/// One connection, from its beginning to its end.
fn talk(stream: &UnixStream, session: &mut Session, shared: &Shared) {
    let end = loop {
        if let Err(end) = one(stream, session) {
            break end;
        }
    };
    session.end();
    let path = shared.path.display().to_string();
    if matches!(end, End::Closed | End::Socket(_)) {
        tracing::debug!(path, %end, "a VMM's connection has ended");
    } else {
        shared.refused();
        tracing::warn!(path, %end, "a VMM's connection is closed");
    }
}

fn one(stream: &UnixStream, session: &mut Session) -> Result<(), End> {
    let Message { code, request, need_reply } = message::next(stream)?;
    let result = session.execute(request);
    let acknowledge = need_reply && session.acknowledges();
    let answered = match &result {
        Ok(reply) => message::reply(stream, code, reply, acknowledge),
        Err(_) if acknowledge => message::refuse(stream, code),
        Err(_) => Ok(()),
    };
    result.map_err(|why| End::Refused(code, why))?;
    answered.map_err(|_| End::Closed)
}
