//! Binds the API's sockets and serves on them.

use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use axum::Router;
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::watch;

use crate::Error;

/// Time that requests in progress have to end when the daemon stops.
const GRACE: Duration = Duration::from_secs(2);

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

/// Listens on TCP, on a loopback address only: the API has no authentication.
///
/// # Errors
/// The address is not a loopback address, or is in use.
pub async fn bind_tcp(address: SocketAddr) -> Result<TcpListener, Error> {
    if !address.ip().is_loopback() {
        return Err(Error::NotLoopback { address: address.to_string() });
    }
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
    tcp: Option<TcpListener>,
    stop: watch::Receiver<bool>,
) -> Result<(), Error> {
    let wait = |mut stop: watch::Receiver<bool>| async move {
        // An error means that the sender was dropped: stop too.
        let _ = stop.wait_for(|s| *s).await;
    };
    let unix = axum::serve(unix, router.clone()).with_graceful_shutdown(wait(stop.clone()));
    let tcp = async {
        match tcp {
            Some(tcp) => axum::serve(tcp, router).with_graceful_shutdown(wait(stop.clone())).await,
            None => Ok(()),
        }
    };
    let both = async { tokio::try_join!(async { unix.await }, tcp).map(|_| ()) };
    let deadline = async {
        wait(stop.clone()).await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        result = both => result.map_err(|e| Error::Listen { address: "API".into(), detail: e.to_string() }),
        () = deadline => Ok(()),
    }
}
