//! What survives a stop, and a stop in the middle.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use culvert_agent::{Args, Error, ServiceManager, Store};
use culvert_model::HostConfig;
use serde_json::json;
use tokio::time::timeout;

use crate::support::{Daemon, FIGURE8, LIMIT, Memory, directory};

fn numbers(config: &HostConfig) -> BTreeMap<String, u16> {
    config.vports.iter().map(|v| (config.fabric.interfaces[v.interface].name.clone(), v.id.0)).collect()
}

#[tokio::test]
async fn policy_and_numbers_survive() {
    let directory = directory();
    let daemon = Daemon::start(directory.path()).await;
    daemon.apply(FIGURE8).await;
    daemon.delete("/networking/v1/networkInterfaces/contoso-sql").await;
    let etag = daemon.get("/networking/v1/virtualNetworks/contoso").await.etag;
    let before = numbers(&daemon.memory.last());
    assert_eq!(before, BTreeMap::from([("fabrikam-sql".to_owned(), 1)]));
    daemon.stop().await;

    let daemon = Daemon::start(directory.path()).await;
    assert_eq!(numbers(&daemon.memory.last()), before, "applied again on start, with the same numbers");
    assert_eq!(daemon.get("/networking/v1/virtualNetworks/contoso").await.etag, etag);
    let health = daemon.get("/culvert/v1/health").await.json;
    assert_eq!((&health["desiredVersion"], &health["appliedVersion"]), (&json!(2), &json!(2)));
    daemon.apply(FIGURE8).await;
    assert_eq!(numbers(&daemon.memory.last())["fabrikam-sql"], 1, "who stays keeps its number");
    daemon.stop().await;
}

#[tokio::test]
async fn what_was_answered_survives_a_crash() {
    let directory = directory();
    let daemon = Daemon::start(directory.path()).await;
    daemon.apply(FIGURE8).await;
    let etag = daemon.get("/networking/v1/servers/host2").await.etag;
    // The file as a power cut would leave it: never closed.
    let crashed = directory.path().join("crashed");
    std::fs::create_dir(&crashed).unwrap();
    std::fs::copy(directory.path().join("state/culvertd.redb"), crashed.join("culvertd.redb")).unwrap();
    daemon.stop().await;
    let stored = Store::open(&crashed).unwrap().load().unwrap();
    assert_eq!(stored.version, 1);
    let server = culvert_api::ResourcePath::parse("/servers/host2").unwrap();
    assert_eq!(stored.documents.get(&server).unwrap()["etag"], etag);
}

#[tokio::test]
async fn a_daemon_that_stops_gives_up_changes() {
    let directory = directory();
    let daemon = Daemon::start(directory.path()).await;
    daemon.apply(FIGURE8).await;
    daemon.agent.stop();
    let late = daemon.send("POST", "/culvert/v1/bundle?force=true", &[], "{}").await;
    assert_eq!((late.status, &late.json["error"]["code"]), (503, &json!("Stopping")));
    assert_eq!(daemon.get("/networking/v1/servers").await.json["value"].as_array().unwrap().len(), 2);
    daemon.stop().await;
}

#[test]
fn health_says_that_the_disk_is_full_and_that_it_has_room_again() {
    let outcome = std::thread::spawn(|| {
        let own = nix::sched::CloneFlags::CLONE_FS | nix::sched::CloneFlags::CLONE_NEWNS;
        nix::sched::unshare(own).ok()?;
        let directory = directory();
        let run = |program: &str, arguments: &[&str]| {
            assert!(std::process::Command::new(program).args(arguments).status().unwrap().success());
        };
        run("mount", &["--make-rprivate", "/"]);
        run("mount", &["-t", "tmpfs", "-o", "size=4m", "none", directory.path().to_str().unwrap()]);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let daemon = Daemon::start(directory.path()).await;
            daemon.apply(FIGURE8).await;
            let filler = directory.path().join("filler");
            assert!(std::fs::write(&filler, vec![1; 8 << 20]).is_err(), "the disk is small");
            let mut refused = None;
            for n in 0..100 {
                let tags = json!({"tags": {"x": "y".repeat(300_000 + n)}});
                let reply = daemon.put("/networking/v1/servers/big", &tags).await;
                if reply.status == 500 {
                    refused = Some(reply);
                    break;
                }
            }
            let refused = refused.expect("the disk is full at last");
            assert_eq!(refused.json["error"]["code"], "StoreFailed", "{}", refused.text);
            let health = daemon.get("/culvert/v1/health").await;
            assert_eq!(health.json["ok"], false);
            assert!(health.text.contains("No space left"), "{}", health.text);
            std::fs::remove_file(&filler).unwrap();
            daemon.agent.reconcile();
            let health = daemon.get("/culvert/v1/health").await;
            assert_eq!(health.json["ok"], true, "{}", health.text);
            let reply = daemon.put("/networking/v1/servers/big", &json!({})).await;
            assert!([200, 201].contains(&reply.status), "without a restart: {}", reply.text);
            daemon.stop().await;
        });
        Some(())
    });
    if outcome.join().expect("the test's thread").is_none() {
        culvert_skip::skip("a mount namespace of its own needs root");
    }
}

#[tokio::test]
async fn a_state_directory_has_one_daemon() {
    let directory = directory();
    let _first = Store::open(directory.path()).unwrap();
    let Err(error) = Store::open(directory.path()) else { panic!("a second one must not open it") };
    assert!(matches!(error, Error::Store { .. }));
    assert!(error.body().remedy.contains("--state"), "{:?}", error.body());
}

#[tokio::test]
async fn a_socket_left_behind_is_replaced_and_a_living_one_is_not() {
    let directory = directory();
    let path = directory.path().join("api.sock");
    let first = culvert_agent::bind_unix(&path).await.unwrap();
    assert!(culvert_agent::bind_unix(&path).await.is_err(), "it is answered");
    drop(first);
    culvert_agent::bind_unix(&path).await.unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "precious").unwrap();
    assert!(culvert_agent::bind_unix(&file).await.is_err());
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
}

#[tokio::test]
async fn the_whole_daemon_starts_tries_again_and_stops() {
    let directory = directory();
    let socket = directory.path().join("run/api.sock");
    let args = Args {
        host: "host1".into(),
        nic: Some("test".into()),
        uplink: Vec::new(),
        provider_address: Default::default(),
        driver: Default::default(),
        port: Default::default(),
        flows: 64,
        workers: None,
        core: Vec::new(),
        firmware: None,
        vfs: 0,
        state: directory.path().join("state"),
        socket: socket.clone(),
        socket_group: None,
        vm_socket_group: None,
        listen: None,
        listen_name: Vec::new(),
        tls_cert: None,
        tls_key: None,
        tls_client_ca: None,
        tls_reader_ca: None,
        log_json: false,
    };
    let memory = Arc::new(Memory::default());
    memory.broken.store(true, Ordering::Relaxed);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let datapath = memory.clone();
    let daemon =
        tokio::spawn(culvert_agent::run(args, move |_| Ok(datapath), ServiceManager::default(), async {
            let _ = stopped.await;
        }));
    let ready = async {
        while tokio::net::UnixStream::connect(&socket).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LIMIT, ready).await.expect("it serves though its NIC is away");
    memory.broken.store(false, Ordering::Relaxed);
    let applied = async {
        while memory.configs.lock().unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LIMIT, applied).await.expect("it tries again by itself");
    stop.send(()).unwrap();
    timeout(LIMIT, daemon).await.expect("it stops").unwrap().unwrap();
    assert!(!socket.exists());
    Store::open(&directory.path().join("state")).expect("the store is closed");
}
