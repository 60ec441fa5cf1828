//! The API on TCP, in a network namespace of the test's own: who gets in, and what slow and many clients do to others.

use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use culvert_agent::{Agent, Store, TcpApi, Tls, bind_tcp, bind_unix, rest, serve};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring};

use crate::support::{LIMIT, Memory, directory, send};

/// Runs a test in a thread with a network namespace of its own.
fn in_own_network<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let outcome = std::thread::spawn(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).ok()?;
        let up = Command::new("ip").args(["link", "set", "lo", "up"]).status();
        assert!(up.unwrap().success());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { timeout(LIMIT * 2, test()).await.expect("in time") });
        Some(())
    });
    if outcome.join().expect("the test's thread").is_none() {
        culvert_skip::skip("a network namespace of its own needs root");
    }
}

/// An authority that signs certificates.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    der: CertificateDer<'static>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let (pem, der) = (certificate.pem(), certificate.der().clone());
        Self { issuer: Issuer::new(params, key), pem, der }
    }

    fn sign(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }
}

/// A daemon on both sockets, and the authorities of its clients.
struct Served {
    address: SocketAddr,
    socket: std::path::PathBuf,
    authority: Authority,
    writers: Authority,
    readers: Authority,
    stop: watch::Sender<bool>,
    served: tokio::task::JoinHandle<Result<(), culvert_agent::Error>>,
}

impl Served {
    async fn start(directory: &Path) -> Self {
        let (authority, writers, readers) = (Authority::new(), Authority::new(), Authority::new());
        let (certificate, key) = authority.sign("localhost");
        let file = |name: &str, text: String| {
            std::fs::write(directory.join(name), text).unwrap();
            directory.join(name)
        };
        let tls = Tls::new(
            &file("cert.pem", certificate.pem()),
            &file("key.pem", key.serialize_pem()),
            Some(&file("writers.pem", writers.pem.clone())),
            Some(&file("readers.pem", readers.pem.clone())),
        );
        let listener = bind_tcp("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let store = Store::open(&directory.join("state")).unwrap();
        let agent = Agent::start("host1", store, Arc::new(Memory::default())).unwrap();
        let socket = directory.join("api.sock");
        let unix = bind_unix(&socket).await.unwrap();
        let (stop, stopped) = watch::channel(false);
        let api = TcpApi { listener, tls: tls.unwrap(), names: vec!["host1.example".into()] };
        let served = tokio::spawn(serve(rest::router(agent), unix, Some(api), stopped));
        Self { address, socket, authority, writers, readers, stop, served }
    }

    /// The status of an answer; none: the connection ends without one.
    async fn request(&self, signed_by: Option<&Authority>, method: &str, host: &str) -> Option<u16> {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.der.clone()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match signed_by {
            None => config.with_no_client_auth(),
            Some(authority) => {
                let (certificate, key) = authority.sign("client");
                let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
                config.with_client_auth_cert(vec![certificate.der().clone()], key).unwrap()
            }
        };
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.ok()?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
        let connection = tokio::spawn(connection);
        let request = hyper::Request::builder()
            .method(method)
            .uri("/networking/v1/accessControlLists/web")
            .header("host", host)
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from_static(b"{}")))
            .unwrap();
        let status = sender.send_request(request).await.ok().map(|r| r.status().as_u16());
        connection.abort();
        status
    }
}

#[test]
fn a_certificates_signer_says_what_a_client_may_do() {
    in_own_network(|| async {
        let directory = directory();
        let served = Served::start(directory.path()).await;
        let stranger = Authority::new();
        assert_eq!(served.request(None, "GET", "localhost").await, None, "without a certificate");
        assert_eq!(served.request(Some(&stranger), "GET", "localhost").await, None, "of another authority");
        assert_eq!(served.request(Some(&served.readers), "PUT", "localhost").await, Some(403));
        assert_eq!(served.request(Some(&served.readers), "GET", "localhost").await, Some(404));
        assert_eq!(served.request(Some(&served.writers), "PUT", "host1.example:8443").await, Some(201));
        assert_eq!(served.request(Some(&served.readers), "GET", "127.0.0.1").await, Some(200));
        assert_eq!(served.request(Some(&served.readers), "DELETE", "localhost").await, Some(403));
        assert_eq!(served.request(Some(&served.writers), "GET", "attacker.example").await, Some(400));
        // Without TLS there is no answer.
        let mut plain = TcpStream::connect(served.address).await.unwrap();
        plain.write_all(b"GET /culvert/v1/health HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        let _ = plain.read_to_end(&mut answer).await;
        assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
        served.stop.send(true).unwrap();
        served.served.await.unwrap().unwrap();
    });
}

#[test]
fn many_connections_on_tcp_leave_the_unix_socket_alone() {
    in_own_network(|| async {
        let directory = directory();
        let served = Served::start(directory.path()).await;
        let mut held = Vec::new();
        for _ in 0..64 {
            held.push(TcpStream::connect(served.address).await.unwrap());
        }
        let mut beyond = TcpStream::connect(served.address).await.unwrap();
        let ended = beyond.read(&mut [0]).await;
        assert!(matches!(ended, Ok(0) | Err(_)), "one too many: {ended:?}");
        let reply = send(&served.socket, "GET", "/culvert/v1/health", &[], "").await;
        assert_eq!(reply.status, 200);
        drop(held);
        // The places come back when the daemon has seen the ends.
        while served.request(Some(&served.writers), "PUT", "localhost").await != Some(201) {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        served.stop.send(true).unwrap();
        served.served.await.unwrap().unwrap();
    });
}

/// The clock stands still while something happens, and goes on at once when nothing does.
#[tokio::test(start_paused = true)]
async fn a_client_that_sends_nothing_is_given_up() {
    let directory = directory();
    let store = Store::open(&directory.path().join("state")).unwrap();
    let agent = Agent::start("host1", store, Arc::new(Memory::default())).unwrap();
    let socket = directory.path().join("api.sock");
    let unix = bind_unix(&socket).await.unwrap();
    let (stop, stopped) = watch::channel(false);
    let served = tokio::spawn(serve(rest::router(agent), unix, None, stopped));
    for sent in ["", "GET /culvert/v1/health HTTP/1.1\r\nHost: cul"] {
        let mut client = UnixStream::connect(&socket).await.unwrap();
        client.write_all(sent.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let ended = timeout(std::time::Duration::from_secs(60), client.read_to_end(&mut answer)).await;
        assert!(ended.is_ok(), "after {sent:?}");
    }
    stop.send(true).unwrap();
    served.await.unwrap().unwrap();
}
