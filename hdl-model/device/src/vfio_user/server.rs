//! A listening socket that serves one function to one client after another.

use std::fmt;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;

use super::{Error, Function, session};

/// A function being served. Dropping it ends the live session, if there is one, and removes the socket.
pub struct Server {
    path: PathBuf,
    stop: Arc<Stop>,
    thread: Option<JoinHandle<()>>,
}

/// How another thread ends the server's.
struct Stop {
    event: OwnedFd,
    live: Mutex<Live>,
}

#[derive(Default)]
struct Live {
    stopping: bool,
    session: Option<UnixStream>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Server {
    /// Listens on `path` and serves `function` from a thread of its own. A socket that a dead process left there is
    /// replaced; one that a process listens on is not.
    pub fn start(path: &Path, function: Arc<dyn Function>) -> Result<Self, Error> {
        let bind = |source| Error::Bind { path: path.to_owned(), source };
        let start = |source| Error::Start { path: path.to_owned(), source };
        remove_stale(path).map_err(bind)?;
        let listener = UnixListener::bind(path).map_err(bind)?;
        listener.set_nonblocking(true).map_err(start)?;
        let event =
            eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(|e| start(e.into()))?;
        let stop = Arc::new(Stop { event, live: Mutex::default() });
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let thread = thread::Builder::new()
            .name(format!("vfio-user {name}"))
            .spawn({
                let stop = Arc::clone(&stop);
                move || accept_loop(&listener, &stop, &function)
            })
            .map_err(start)?;
        Ok(Self { path: path.to_owned(), stop, thread: Some(thread) })
    }

    /// The socket's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Ends the live session and the server, and removes the socket. Returns when the function is no longer called.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        {
            let mut live = self.stop.lock();
            live.stopping = true;
            if let Some(session) = &live.session {
                // Fails only if the client is gone already.
                let _ = session.shutdown(Shutdown::Both);
            }
        }
        // Cannot fail: a fresh eventfd counts to one.
        let _ = rustix::io::write(&self.stop.event, &1u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        // Another process may have removed it.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Stop {
    fn lock(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn remove_stale(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => match UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
            Ok(_) => {
                let why = "another process, such as a second culvert-emu, listens on it";
                Err(io::Error::new(io::ErrorKind::AddrInUse, why))
            }
            Err(_) => Ok(()),
        },
        _ => Ok(()),
    }
}

fn accept_loop(listener: &UnixListener, stop: &Stop, function: &Arc<dyn Function>) {
    loop {
        let mut fds = [
            PollFd::from_borrowed_fd(listener.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(stop.event.as_fd(), PollFlags::IN),
        ];
        match poll(&mut fds, None) {
            Err(Errno::INTR) => continue,
            Err(_) => return,
            Ok(_) => {}
        }
        if !fds[1].revents().is_empty() {
            return;
        }
        let Ok((stream, _)) = listener.accept() else {
            // Out of file descriptors, most likely: the client stays in the queue, the processor is not to spin on it.
            thread::sleep(Duration::from_millis(10));
            continue;
        };
        let Ok(handle) = stream.try_clone() else { continue };
        if stream.set_nonblocking(false).is_err() {
            continue;
        }
        {
            let mut live = stop.lock();
            if live.stopping {
                return;
            }
            live.session = Some(handle);
        }
        if let Err(error) = session::serve(stream, function) {
            // A client that breaks the framing or dies in mid-message costs its connection, nothing else.
            tracing::error!(socket = ?listener.local_addr().ok(), %error, "vfio-user session ended early");
        }
        stop.lock().session = None;
    }
}
