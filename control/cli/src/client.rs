//! HTTP over the daemon's UNIX socket.

use std::path::{Path, PathBuf};
use std::time::Duration;

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

    pub(crate) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        self.call(&Method::GET, path, String::new())
    }

    pub(crate) fn post<T: DeserializeOwned>(&self, path: &str, body: String) -> Result<T, Error> {
        self.call(&Method::POST, path, body)
    }

    pub(crate) fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        self.call(&Method::DELETE, path, String::new())
    }

    pub(crate) fn put<T: DeserializeOwned>(&self, path: &str, body: String) -> Result<T, Error> {
        self.call(&Method::PUT, path, body)
    }

    fn call<T: DeserializeOwned>(&self, method: &Method, path: &str, body: String) -> Result<T, Error> {
        let no_daemon = |detail: String| Error::NoDaemon { socket: self.socket.clone(), detail };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| no_daemon(e.to_string()))?;
        let (status, bytes) = runtime
            .block_on(async { tokio::time::timeout(self.timeout, self.exchange(method, path, body)).await })
            .map_err(|_| no_daemon(format!("no reply within {} s", self.timeout.as_secs())))?
            .map_err(no_daemon)?;
        let unreadable =
            |detail: String| Error::Answer { path: path.to_owned(), detail: format!("{detail} ({status})") };
        if status.is_success() {
            return serde_json::from_slice(&bytes).map_err(|e| unreadable(e.to_string()));
        }
        match serde_json::from_slice::<ErrorReply>(&bytes) {
            Ok(reply) if reply.error != ErrorBody::default() => Err(Error::Refused(Box::new(reply.error))),
            _ => Err(unreadable(String::from_utf8_lossy(&bytes).chars().take(200).collect())),
        }
    }

    async fn exchange(
        &self,
        method: &Method,
        path: &str,
        body: String,
    ) -> Result<(StatusCode, Bytes), String> {
        let text = |e: hyper::Error| e.to_string();
        let stream = UnixStream::connect(&self.socket).await.map_err(|e| e.to_string())?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(text)?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "culvertd")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|e| e.to_string())?;
        // The task ends with the connection or the runtime.
        tokio::spawn(connection);
        let response = sender.send_request(request).await.map_err(text)?;
        let status = response.status();
        let body =
            Limited::new(response.into_body(), MAX_REPLY).collect().await.map_err(|e| e.to_string())?;
        Ok((status, body.to_bytes()))
    }
}
