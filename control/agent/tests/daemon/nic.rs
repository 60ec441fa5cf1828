//! A daemon whose NIC is not there, or does not answer.

use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser as _;
use culvert_agent::{Args, HostDatapath, ServiceManager};
use tokio::time::timeout;

use crate::support::{FIGURE8, LIMIT, Reply, directory, send};

/// Every answer, although the NIC gives none: about a second, on a busy machine.
const ANSWER: Duration = Duration::from_secs(3);

async fn get(socket: &Path, path: &str) -> Reply {
    send(socket, "GET", path, &[], "").await
}

/// Runs a daemon with the NIC behind `nic` and checks what it answers.
async fn check(directory: &Path, nic: &Path, problem: &str) {
    let socket = directory.join("run/api.sock");
    let nic = format!("vfio-user:{}", nic.display());
    let state = directory.join("state").display().to_string();
    let args = ["culvertd", "--host", "host1", "--nic", &nic, "--state", &state, "--socket"];
    let args = Args::parse_from(args.into_iter().chain([socket.to_str().unwrap()]));
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let open = |args: &Args| Ok(Arc::new(HostDatapath::open(args)?) as Arc<dyn culvert_agent::Datapath>);
    let daemon = tokio::spawn(culvert_agent::run(args, open, ServiceManager::default(), async {
        let _ = stopped.await;
    }));
    let ready = async {
        while tokio::net::UnixStream::connect(&socket).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LIMIT, ready).await.expect("it serves though its NIC does not answer");

    let applied = send(&socket, "POST", "/culvert/v1/bundle", &[], FIGURE8).await;
    assert_eq!(applied.status, 200, "{}", applied.text);
    for path in ["nic", "vports", "counters", "drops", "flows", "talkers", "health"] {
        let asked = Instant::now();
        let reply = get(&socket, &format!("/culvert/v1/{path}")).await;
        assert!(asked.elapsed() < ANSWER, "{path}: {:?}", asked.elapsed());
        // Nothing is known of a NIC that was never there; the reason is.
        assert!(
            reply.status == 503 && reply.text.contains(problem) || path == "health",
            "{path}: {}",
            reply.text
        );
    }
    let metrics = get(&socket, "/culvert/v1/metrics").await;
    assert!(metrics.status == 200 && metrics.text.contains("\nculvert_up 0\n"), "{}", metrics.text);
    let health = get(&socket, "/culvert/v1/health").await.json;
    assert_eq!((health["ok"].as_bool(), health["desiredVersion"].as_u64()), (Some(false), Some(1)));
    assert!(health["problems"].to_string().contains(problem), "{health}");
    stop.send(()).unwrap();
    timeout(LIMIT, daemon).await.expect("it stops").unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_without_its_nic_answers_and_accepts_policies() {
    let directory = directory();
    check(directory.path(), &directory.path().join("pf.sock"), "is culvert-emu running").await;
}

/// As a board that is stopped (SIGSTOP) before the daemon starts: the kernel accepts connections for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_whose_nic_hangs_from_the_start_answers_and_accepts_policies() {
    let directory = directory();
    let path = directory.path().join("pf.sock");
    let _listener = UnixListener::bind(&path).unwrap();
    check(directory.path(), &path, "stopped or overloaded").await;
}
