//! The daemon against its own OpenAPI document: schemathesis sends what the document allows and what it does not.

use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::time::timeout;

use crate::support::{Daemon, FIGURE8, directory};

/// Starts schemathesis with all its HTTP on a UNIX socket.
const LAUNCHER: &str = r#"
import os, socket, sys
import requests, urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool

class Connection(HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(20)
        self.sock.connect(os.environ["API_SOCKET"])

class Pool(HTTPConnectionPool):
    ConnectionCls = Connection

class Adapter(HTTPAdapter):
    pool = Pool("localhost", maxsize=4)
    def get_connection_with_tls_context(self, *args, **kwargs):
        return self.pool
    def get_connection(self, *args, **kwargs):
        return self.pool

requests.Session.get_adapter = lambda self, url: Adapter()
from schemathesis.cli import schemathesis
sys.exit(schemathesis())
"#;

/// A random document is rarely a policy that holds together: it may be refused. Where one is taken that does not know this host, health
/// answers 503.
const CONFIGURATION: &str = r#"
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "304", "400", "404", "409", "412", "422"]

[[operations]]
include-name = "GET /culvert/v1/health"

[operations.checks]
not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", "503"]
positive_data_acceptance.expected-statuses = ["2xx", "503"]

[[operations]]
include-name = "HEAD /culvert/v1/health"

[operations.checks]
not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", "503"]
positive_data_acceptance.expected-statuses = ["2xx", "503"]
"#;

/// How long it may take; it takes some 20 seconds.
const TIME: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread")]
async fn the_document_says_what_the_daemon_does() {
    let Some(python) = std::env::var_os("CULVERT_SCHEMATHESIS") else {
        return culvert_skip::skip(
            "CULVERT_SCHEMATHESIS names no Python that has schemathesis: use cargo xtask test",
        );
    };
    let directory = directory();
    let daemon = Daemon::start(directory.path()).await;
    daemon.apply(FIGURE8).await;
    std::fs::write(directory.path().join("schemathesis.toml"), CONFIGURATION).unwrap();
    let mut command = Command::new(python);
    command
        .args(["-c", LAUNCHER, "run", "http://localhost/culvert/v1/openapi.json"])
        .args(["--checks", "all", "--max-examples", "5", "--phases", "coverage,fuzzing", "--seed", "1"])
        .args(["--generation-database", "none", "--no-color", "--request-timeout", "20"])
        .env("API_SOCKET", directory.path().join("api.sock"))
        .current_dir(directory.path())
        .stdin(Stdio::null());
    let run = tokio::task::spawn_blocking(move || command.output());
    let output = timeout(TIME, run).await.expect("it ends in time").unwrap().unwrap();
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}");
    daemon.stop().await;
}
