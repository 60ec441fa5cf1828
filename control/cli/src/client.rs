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

/// Longest answer that is read.
const LONGEST: usize = 1 << 30;

/// The daemon.
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

    fn call<T: DeserializeOwned>(&self, method: &Method, path: &str, body: String) -> Result<T, Error> {
        let no_daemon = |detail: String| Error::NoDaemon { socket: self.socket.clone(), detail };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| no_daemon(e.to_string()))?;
        let (status, bytes) = runtime
            .block_on(async { tokio::time::timeout(self.timeout, self.exchange(method, path, body)).await })
            .map_err(|_| no_daemon(format!("no answer within {} s", self.timeout.as_secs())))?
            .map_err(no_daemon)?;
        let not_understood =
            |detail: String| Error::Answer { path: path.to_owned(), detail: format!("{detail} ({status})") };
        if status.is_success() {
            return serde_json::from_slice(&bytes).map_err(|e| not_understood(e.to_string()));
        }
        match serde_json::from_slice::<ErrorReply>(&bytes) {
            Ok(reply) if reply.error != ErrorBody::default() => Err(Error::Refused(Box::new(reply.error))),
            _ => Err(not_understood(String::from_utf8_lossy(&bytes).chars().take(200).collect())),
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
        // Ends with the connection, or with the runtime.
        tokio::spawn(connection);
        let response = sender.send_request(request).await.map_err(text)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), LONGEST).collect().await.map_err(|e| e.to_string())?;
        Ok((status, body.to_bytes()))
    }
}
