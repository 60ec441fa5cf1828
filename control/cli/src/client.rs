//! HTTP over the daemon's UNIX socket.

use std::path::{Path, PathBuf};
use std::time::Duration;

use culvert_api::view::HealthView;
use culvert_api::{ErrorBody, ErrorReply};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::error::Error;

/// Longest reply that is read, in bytes.
const MAX_REPLY: usize = 1 << 30;

/// A client of the daemon.
pub(crate) struct Client {
    socket: PathBuf,
    timeout: Duration,
}

impl Client {
    pub(crate) fn new(socket: &Path, timeout: Duration) -> Self {
        Self { socket: socket.to_owned(), timeout }
    }

    /// How long each request may take.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The state of the daemon, whose status is 503 if something is wrong.
    pub(crate) fn health(&self) -> Result<HealthView, Error> {
        let path = "/culvert/v1/health";
        let (status, bytes) = self.request(&Method::GET, path, Bytes::new())?;
        if status == StatusCode::SERVICE_UNAVAILABLE
            && let Ok(view) = serde_json::from_slice::<HealthView>(&bytes)
            && !view.problems.is_empty()
        {
            return Ok(view);
        }
        read(path, status, &bytes)
    }

    pub(crate) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        self.call(&Method::GET, path, Bytes::new())
    }

    pub(crate) fn post<T: DeserializeOwned>(&self, path: &str, body: impl Into<Bytes>) -> Result<T, Error> {
        self.call(&Method::POST, path, body.into())
    }

    pub(crate) fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        self.call(&Method::DELETE, path, Bytes::new())
    }

    pub(crate) fn put<T: DeserializeOwned>(&self, path: &str, body: String) -> Result<T, Error> {
        self.call(&Method::PUT, path, body.into())
    }

    fn call<T: DeserializeOwned>(&self, method: &Method, path: &str, body: Bytes) -> Result<T, Error> {
        let (status, bytes) = self.request(method, path, body)?;
        read(path, status, &bytes)
    }

    fn request(&self, method: &Method, path: &str, body: Bytes) -> Result<(StatusCode, Bytes), Error> {
        let no_daemon = |detail: String| Error::NoDaemon { socket: self.socket.clone(), detail };
        let no_reply = |detail: String| Error::NoReply { socket: self.socket.clone(), detail };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| no_daemon(e.to_string()))?;
        let late = || format!("no reply within {} s", self.timeout.as_secs());
        runtime.block_on(async {
            let deadline = tokio::time::Instant::now() + self.timeout;
            let connected = tokio::time::timeout_at(deadline, UnixStream::connect(&self.socket)).await;
            let stream = connected.map_err(|_| no_daemon(late()))?.map_err(|e| no_daemon(e.to_string()))?;
            let exchanged = tokio::time::timeout_at(deadline, exchange(stream, method, path, body)).await;
            exchanged.map_err(|_| no_reply(late()))?.map_err(no_reply)
        })
    }
}

/// Reads a reply.
fn read<T: DeserializeOwned>(path: &str, status: StatusCode, bytes: &[u8]) -> Result<T, Error> {
    let unreadable =
        |detail: String| Error::Answer { path: path.to_owned(), detail: format!("{detail} ({status})") };
    if status.is_success() {
        return serde_json::from_slice(bytes).map_err(|e| unreadable(e.to_string()));
    }
    match serde_json::from_slice::<ErrorReply>(bytes) {
        Ok(reply) if reply.error != ErrorBody::default() => Err(Error::Refused(Box::new(reply.error))),
        _ => Err(unreadable(String::from_utf8_lossy(bytes).chars().take(200).collect())),
    }
}

/// Makes one request on a connection.
async fn exchange(
    stream: UnixStream,
    method: &Method,
    path: &str,
    body: Bytes,
) -> Result<(StatusCode, Bytes), String> {
    let text = |e: hyper::Error| e.to_string();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(text)?;
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "culvertd")
        .header("content-type", "application/json")
        .body(Full::new(body))
        .map_err(|e| e.to_string())?;
    // The task ends with the connection or the runtime.
    tokio::spawn(connection);
    let response = sender.send_request(request).await.map_err(text)?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_REPLY).collect().await.map_err(|e| e.to_string())?;
    Ok((status, body.to_bytes()))
}
