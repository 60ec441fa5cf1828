//! What survives a stop, and a stop in the middle.

use std::collections::BTreeMap;

use crate::support::{Daemon, FIGURE8, directory};
use culvert_agent::{Error, Store};
use culvert_model::HostPart;
use serde_json::json;

fn numbers(part: &HostPart) -> BTreeMap<String, u16> {
    part.vports.iter().map(|v| (part.fabric.interfaces[v.interface].name.clone(), v.id.0)).collect()
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
    assert_eq!(numbers(&daemon.memory.last()), before, "carried out again on start, with the same numbers");
    assert_eq!(daemon.get("/networking/v1/virtualNetworks/contoso").await.etag, etag);
    let health = daemon.get("/culvert/v1/health").await.json;
    assert_eq!((&health["desiredVersion"], &health["appliedVersion"]), (&json!(2), &json!(2)));
    daemon.apply(FIGURE8).await;
    assert_eq!(numbers(&daemon.memory.last())["fabrikam-sql"], 1, "who stays keeps its number");
    daemon.stop().await;
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
