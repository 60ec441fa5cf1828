//! A daemon in the test's process with a datapath that only remembers, and a client on its UNIX socket.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use culvert_agent::{Agent, Conditions, Datapath, DatapathError, Error, Store, bind_unix, rest, serve};
use culvert_api::view::{
    CountersView, DropEntry, DropsView, FlowQuery, FlowView, NicInfo, PortCounters, TraceReply, TraceRequest,
    Verdict, VportView, WorkerCounters,
};
use culvert_model::HostConfig;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Every wait's limit.
pub(crate) const LIMIT: Duration = Duration::from_secs(10);
pub(crate) const FIGURE8: &str = include_str!("../../../../docs/examples/figure8.json");

/// Remembers what it was told.
#[derive(Default)]
pub(crate) struct Memory {
    pub(crate) configs: Mutex<Vec<Arc<HostConfig>>>,
    pub(crate) broken: AtomicBool,
    pub(crate) conditions: Mutex<Arc<Conditions>>,
}

impl Memory {
    pub(crate) fn last(&self) -> Arc<HostConfig> {
        self.configs.lock().unwrap().last().expect("a configuration was applied").clone()
    }
}

impl Datapath for Memory {
    fn apply(&self, config: Arc<HostConfig>) -> Result<(), DatapathError> {
        if self.broken.load(Ordering::Relaxed) {
            return Err(DatapathError::Unavailable { detail: "unplugged".into() });
        }
        self.configs.lock().unwrap().push(config);
        Ok(())
    }

    fn nic(&self) -> Result<NicInfo, DatapathError> {
        let mut nic = NicInfo { device: "test NIC".into(), num_vfs: 8, vmqs: 4, ..NicInfo::default() };
        nic.firmware.alive = !self.broken.load(Ordering::Relaxed);
        Ok(nic)
    }

    fn vports(&self) -> Result<Vec<VportView>, DatapathError> {
        let config = self.last();
        Ok(config.vports.iter().map(|v| VportView { id: v.id.0, ..VportView::default() }).collect())
    }

    fn flows(&self, query: &FlowQuery) -> Result<Vec<FlowView>, DatapathError> {
        Ok(vec![FlowView { vsid: query.vsid.unwrap_or(0), ..FlowView::default() }])
    }

    fn counters(&self) -> Result<CountersView, DatapathError> {
        let mut counters = CountersView::default();
        counters.uplinks.insert("uplink0".into(), PortCounters { in_packets: 7, ..PortCounters::default() });
        counters.workers.insert(1, WorkerCounters { vports: 2, busy_ms: 1020, ..WorkerCounters::default() });
        Ok(counters)
    }

    fn drops(&self) -> Result<DropsView, DatapathError> {
        let entry =
            DropEntry { reason: "acl_deny".into(), packets: 3, by: "nic".into(), ..DropEntry::default() };
        Ok(DropsView { drops: vec![entry], total: 3, ..DropsView::default() })
    }

    fn conditions(&self) -> Arc<Conditions> {
        self.conditions.lock().unwrap().clone()
    }

    fn trace(&self, request: &TraceRequest) -> Result<TraceReply, DatapathError> {
        Ok(TraceReply {
            verdict: Verdict::Forward,
            outputs: vec![request.port.clone()],
            ..TraceReply::default()
        })
    }
}

/// A daemon for one test.
pub(crate) struct Daemon {
    pub(crate) memory: Arc<Memory>,
    pub(crate) agent: Arc<Agent>,
    socket: PathBuf,
    stop: watch::Sender<bool>,
    served: JoinHandle<Result<(), Error>>,
}

impl Daemon {
    pub(crate) async fn start(directory: &Path) -> Self {
        Self::start_as(directory, "host1").await
    }

    pub(crate) async fn start_as(directory: &Path, host: &str) -> Self {
        let memory = Arc::new(Memory::default());
        let store = Store::open(&directory.join("state")).unwrap();
        let agent = Agent::start(host, store, memory.clone()).unwrap();
        let socket = directory.join("api.sock");
        let listener = bind_unix(&socket).await.unwrap();
        let (stop, stopped) = watch::channel(false);
        let served = tokio::spawn(serve(rest::router(agent.clone()), listener, None, stopped));
        Self { memory, agent, socket, stop, served }
    }

    /// Stops it and waits until its store is closed.
    pub(crate) async fn stop(self) {
        self.stop.send(true).unwrap();
        timeout(LIMIT, self.served).await.expect("it stops").unwrap().unwrap();
        let agent = self.agent;
        let closed = async {
            while Arc::strong_count(&agent) > 1 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(LIMIT, closed).await.expect("connections end");
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.send("GET", path, &[], "").await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Reply {
        self.send("PUT", path, &[], &body.to_string()).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Reply {
        self.send("DELETE", path, &[], "").await
    }

    pub(crate) async fn apply(&self, body: &str) -> Reply {
        self.send("POST", "/culvert/v1/bundle", &[], body).await
    }

    pub(crate) async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Reply {
        send(&self.socket, method, path, headers, body).await
    }
}

/// Sends a request to the daemon behind a socket.
pub(crate) async fn send(
    socket: &Path,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Reply {
    let exchange = async {
        let stream = UnixStream::connect(socket).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        let connection = tokio::spawn(connection);
        let mut request = hyper::Request::builder().method(method).uri(path);
        for (name, value) in [("content-type", "application/json"), ("host", "culvertd")] {
            if !headers.iter().any(|(given, _)| *given == name) {
                request = request.header(name, value);
            }
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::from(body.to_owned()))).unwrap();
        let response = sender.send_request(request).await.unwrap();
        let status = response.status().as_u16();
        let header = |name: &str| {
            response.headers().get(name).map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default()
        };
        let (etag, allow) = (header("etag"), header("allow"));
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        drop(sender);
        let _ = connection.await;
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        Reply { status, etag, allow, json: serde_json::from_str(&text).unwrap_or_default(), text }
    };
    timeout(LIMIT, exchange).await.expect("an answer in time")
}

#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) etag: String,
    pub(crate) allow: String,
    pub(crate) json: Value,
    pub(crate) text: String,
}

pub(crate) fn directory() -> TempDir {
    tempfile::tempdir().unwrap()
}
