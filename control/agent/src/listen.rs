//! Binds the API's sockets and serves on them.

use std::convert::Infallible;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tower::ServiceExt as _;

use crate::Error;
use crate::peer::{Peer, Role};
use crate::tls::Tls;

/// Time that requests in progress have to end when the daemon stops.
const GRACE: Duration = Duration::from_secs(2);
/// Time that a client has to send a request's head, the first or the next one; a connection that is idle for so long ends.
const IDLE: Duration = Duration::from_secs(15);
/// Time that a client has for TLS's handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Connections on TCP at a time: whatever comes from there leaves file descriptors to the UNIX socket.
const TCP_CONNECTIONS: usize = 64;
/// Connections on the UNIX socket at a time.
const UNIX_CONNECTIONS: usize = 256;
/// Longest head of a request.
const LONGEST_HEAD: usize = 64 << 10;

/// A TCP socket with TLS on it.
pub struct TcpApi {
    /// The socket.
    pub listener: TcpListener,
    /// Its certificates.
    pub tls: Tls,
    /// Names of this daemon that requests may be for, beside addresses and localhost.
    pub names: Vec<String>,
}

/// Checks that no other daemon has a socket, before anything of the host is touched.
///
/// # Errors
/// Another process answers on the path.
pub(crate) fn ensure_unused(path: &Path) -> Result<(), Error> {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let answers = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
        .and_then(|socket| connect(&socket, &SocketAddrUnix::new(path)?));
    // A queue that is full belongs to a listener, too.
    if matches!(answers, Ok(()) | Err(rustix::io::Errno::AGAIN)) {
        let detail = "another culvertd answers on it: stop that one, or give this one another --socket";
        return Err(Error::Listen { address: path.display().to_string(), detail: detail.to_owned() });
    }
    Ok(())
}

/// Listens on a UNIX socket that only its owner and group may use. Replaces the socket of a dead daemon.
///
/// # Errors
/// Another process answers on the path, or the path cannot be used.
pub async fn bind_unix(path: &Path) -> Result<UnixListener, Error> {
    let failed = |detail: &dyn ToString| Error::Listen {
        address: path.display().to_string(),
        detail: detail.to_string(),
    };
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)
            .map_err(|e| failed(&format_args!("its directory {} cannot be made: {e}", parent.display())))?;
    }
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => {
            if UnixStream::connect(path).await.is_ok() {
                return Err(failed(&"another process answers on it"));
            }
            std::fs::remove_file(path).map_err(|e| failed(&e))?;
        }
        Ok(_) => return Err(failed(&"it is a file, not a socket")),
        Err(_) => {}
    }
    let listener = UnixListener::bind(path).map_err(|e| failed(&e))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660)).map_err(|e| failed(&e))?;
    Ok(listener)
}

/// Listens on TCP.
///
/// # Errors
/// The address is in use, or is not this machine's.
pub async fn bind_tcp(address: std::net::SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address)
        .await
        .map_err(|e| Error::Listen { address: address.to_string(), detail: e.to_string() })
}

/// Serves until `stop` becomes true; then requests in progress have two seconds to end.
///
/// # Errors
/// A listener failed.
pub async fn serve(
    router: Router,
    unix: UnixListener,
    tcp: Option<TcpApi>,
    stop: watch::Receiver<bool>,
) -> Result<(), Error> {
    let both = async {
        tokio::join!(serve_unix(router.clone(), &unix, &stop), async {
            if let Some(tcp) = tcp {
                serve_tcp(router, tcp, &stop).await;
            }
        })
    };
    let deadline = async {
        stopped(stop.clone()).await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        _ = both => {}
        () = deadline => {}
    }
    Ok(())
}

/// Waits for the stop. A sender that was dropped means it, too.
async fn stopped(mut stop: watch::Receiver<bool>) {
    let _ = stop.wait_for(|s| *s).await;
}

async fn serve_unix(router: Router, listener: &UnixListener, stop: &watch::Receiver<bool>) {
    let places = Arc::new(Semaphore::new(UNIX_CONNECTIONS));
    let mut connections = JoinSet::new();
    // One descriptor for when there is no other: a client can always ask what is wrong.
    let mut reserve = File::open("/dev/null").ok();
    let mut end = pin!(stopped(stop.clone()));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut end => break,
        };
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((stream, _)) => {
                reserve = reserve.or_else(|| File::open("/dev/null").ok());
                let Ok(place) = places.clone().try_acquire_owned() else { continue };
                let (router, stop) = (router.clone(), stop.clone());
                connections.spawn(async move {
                    let peer = Peer { role: Role::Write, names: Arc::new([]) };
                    serve_connection(router, stream, peer, stop).await;
                    drop(place);
                });
            }
            Err(e) if is_exhausted(&e) && reserve.take().is_some() => {}
            Err(e) => pause(&e).await,
        }
    }
    while connections.join_next().await.is_some() {}
}

async fn serve_tcp(router: Router, api: TcpApi, stop: &watch::Receiver<bool>) {
    let TcpApi { listener, tls, names } = api;
    let (tls, names): (_, Arc<[String]>) = (Arc::new(tls), names.into());
    let places = Arc::new(Semaphore::new(TCP_CONNECTIONS));
    let mut connections = JoinSet::new();
    let mut end = pin!(stopped(stop.clone()));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut end => break,
        };
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((stream, _)) => {
                let Ok(place) = places.clone().try_acquire_owned() else { continue };
                let (router, stop, tls, names) = (router.clone(), stop.clone(), tls.clone(), names.clone());
                connections.spawn(async move {
                    if let Ok(Ok((stream, role))) = tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await
                    {
                        serve_connection(router, stream, Peer { role, names }, stop).await;
                    }
                    drop(place);
                });
            }
            Err(e) => pause(&e).await,
        }
    }
    while connections.join_next().await.is_some() {}
}

fn is_exhausted(error: &io::Error) -> bool {
    use rustix::io::Errno;
    [Errno::MFILE, Errno::NFILE].iter().any(|e| error.raw_os_error() == Some(e.raw_os_error()))
}

/// An error of accepting is one connection's, or passes.
async fn pause(error: &io::Error) {
    tracing::warn!(%error, "cannot accept a connection to the API");
    tokio::time::sleep(Duration::from_millis(100)).await;
}

async fn serve_connection(
    router: Router,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: Peer,
    stop: watch::Receiver<bool>,
) {
    let service = hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        let router = router.clone();
        async move {
            let answer: Result<_, Infallible> = router.oneshot(request.map(Body::new)).await;
            answer
        }
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(IDLE).max_buf_size(LONGEST_HEAD);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    // How a connection ends is its client's business.
    tokio::select! {
        _ = connection.as_mut() => {}
        () = stopped(stop) => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}
