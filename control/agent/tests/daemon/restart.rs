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
        listen: Some("127.0.0.1:0".parse().unwrap()),
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
