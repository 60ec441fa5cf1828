//! The REST API as clients meet it, over a UNIX socket.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use culvert_agent::{Conditions, VportCondition};
use culvert_api::view::VportState;
use serde_json::{Value, json};

use crate::support::{Daemon, FIGURE8, directory};

#[tokio::test]
async fn a_bundle_is_taken_over_and_shown() {
    let directory = directory();
    let daemon = Daemon::start(directory.path()).await;
    let reply = daemon.apply(FIGURE8).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert_eq!(reply.json["created"].as_array().unwrap().len(), 11);
    assert_eq!(reply.json["applied"], true);
    let config = daemon.memory.last();
    let names: Vec<&str> =
        config.vports.iter().map(|v| config.fabric.interfaces[v.interface].name.as_str()).collect();
    assert_eq!(names, ["contoso-sql", "fabrikam-sql"], "only this host's interfaces");

    let again = daemon.apply(FIGURE8).await;
    assert_eq!((again.json["unchanged"].as_u64(), again.json["version"].as_u64()), (Some(11), Some(1)));
    let shown = daemon.get("/culvert/v1/bundle").await;
    assert_eq!(daemon.apply(&shown.text).await.json["unchanged"], 11, "what is shown can be applied");
    daemon.stop().await;
}

#[tokio::test]
async fn put_get_delete_with_etags() {
    let directory = directory();
    let daemon = Daemon::start(directory.path()).await;
    let path = "/networking/v1/accessControlLists/web";
    let body = json!({"properties": {"aclRules": []}});
    let made = daemon.put(path, &body).await;
    assert_eq!(made.status, 201, "{}", made.text);
    assert_eq!(made.json["resourceRef"], "/accessControlLists/web");
    assert_eq!(made.json["properties"]["provisioningState"], "Succeeded");
    assert!(made.etag.starts_with("W/\""), "{}", made.etag);

    let same = daemon.put(path, &body).await;
    assert_eq!((same.status, &same.etag), (200, &made.etag), "equal content keeps its etag");
    let cached = daemon.send("GET", path, &[("if-none-match", &made.etag)], "").await;
    assert_eq!(cached.status, 304);

    let changed = json!({"properties": {"inboundDefaultAction": "deny"}}).to_string();
    let stale = daemon.send("PUT", path, &[("if-match", "W/\"other\"")], &changed).await;
    assert_eq!(stale.status, 412);
    assert_eq!(stale.json["error"]["code"], "PreconditionFailed");
    let fresh = daemon.send("PUT", path, &[("if-match", &made.etag)], &changed).await;
    assert_eq!(fresh.status, 200);
    assert_ne!(fresh.etag, made.etag);
    assert_eq!(fresh.json["instanceId"], made.json["instanceId"]);
    assert_eq!(fresh.json["properties"]["inboundDefaultAction"], "Deny");
    assert_eq!(daemon.send("PUT", path, &[("if-none-match", "*")], &changed).await.status, 412);

    assert_eq!(daemon.delete(path).await.status, 200);
    assert_eq!(daemon.delete(path).await.status, 204, "deleting what is not there is no error");
    assert_eq!(daemon.get(path).await.status, 404);
    daemon.stop().await;
}

#[tokio::test]
async fn children_are_resources_too() {
    let directory = directory();
    let daemon = Daemon::start(directory.path()).await;
    daemon.apply(FIGURE8).await;
    let before = daemon.get("/networking/v1/virtualNetworks/contoso").await;
    let front = daemon.get("/networking/v1/virtualNetworks/contoso/subnets/front").await;
    let path = "/networking/v1/VIRTUALNETWORKS/Contoso/Subnets/back";
    let body = json!({"properties": {"addressPrefix": "10.1.2.0/24", "virtualSubnetID": "5002"}});
    let made = daemon.put(path, &body).await;
    assert_eq!(made.status, 201, "{}", made.text);
    assert_eq!(made.json["properties"]["virtualSubnetId"], 5002);
    let after = daemon.get("/networking/v1/virtualNetworks/contoso").await;
    assert_ne!(before.etag, after.etag, "the parent's content changed");
    let front_now = daemon.get("/networking/v1/virtualNetworks/contoso/subnets/front").await;
    assert_eq!(front.etag, front_now.etag, "the sibling's did not");
    let list = daemon.get("/networking/v1/virtualNetworks/contoso/subnets").await;
    assert_eq!(list.json["value"].as_array().unwrap().len(), 2);
    assert_eq!(daemon.memory.last().fabric.networks[0].subnets.len(), 2);

    let orphan = daemon.put("/networking/v1/virtualNetworks/none/subnets/x", &body).await;
    assert_eq!((orphan.status, &orphan.json["error"]["target"]), (404, &json!("/virtualNetworks/none")));
    assert_eq!(daemon.delete(path).await.status, 200);
    let needed = daemon.delete("/networking/v1/virtualNetworks/contoso/subnets/front").await;
    assert_eq!((needed.status, &needed.json["error"]["code"]), (409, &json!("ResourceInUse")));
    daemon.stop().await;
}

#[tokio::test]
async fn a_wrong_policy_changes_nothing_and_says_why() {
    let directory = directory();
    let daemon = Daemon::start(directory.path()).await;
    daemon.apply(FIGURE8).await;
    let wrong = FIGURE8.replace("10.1.1.12", "10.1.1.1").replace("6001,", "16777215,");
    let reply = daemon.apply(&wrong).await;
    assert_eq!(reply.status, 400);
    let details = reply.json["error"]["details"].as_array().unwrap();
    let codes: Vec<&str> = details.iter().map(|d| d["code"].as_str().unwrap()).collect();
    assert!(codes.contains(&"GatewayAddress") && codes.contains(&"VsidOutOfRange"), "{codes:?}");
    assert!(details.iter().all(|d| !d["remedy"].as_str().unwrap().is_empty()));
    assert_eq!(daemon.get("/culvert/v1/health").await.json["desiredVersion"], 1);
    assert_eq!(daemon.memory.configs.lock().unwrap().len(), 2, "the empty policy and figure 8");

    let form = daemon.apply("{\"servers\": 5").await;
    assert_eq!((form.status, &form.json["error"]["code"]), (400, &json!("NotJson")));
    let other = daemon.put("/networking/v1/servers/a", &json!({"resourceId": "b"})).await;
    assert_eq!((other.status, &other.json["error"]["code"]), (400, &json!("ResourceIdMismatch")));
    assert_eq!(daemon.put("/networking/v1/gateways/a", &json!({})).await.status, 404);
    assert_eq!(daemon.send("PATCH", "/networking/v1/servers/host1", &[], "{}").await.status, 405);
    let dry = daemon.send("POST", "/culvert/v1/bundle?dryRun=true", &[], "{}").await;
    assert_eq!((dry.status, dry.json["deleted"].as_array().unwrap().len()), (200, 11));
    let merged = daemon.send("POST", "/culvert/v1/bundle?mode=merge", &[], "{}").await;
    assert_eq!(merged.json["unchanged"], 11);
    daemon.stop().await;
}

#[tokio::test]
async fn a_datapath_that_is_away_gets_the_policy_later() {
    let directory = directory();
    let daemon = Daemon::start(directory.path()).await;
    daemon.memory.broken.store(true, Ordering::Relaxed);
    let reply = daemon.apply(FIGURE8).await;
    assert_eq!((reply.status, &reply.json["applied"]), (200, &json!(false)));
    assert!(reply.json["problem"].as_str().unwrap().contains("unplugged"));
    let server = daemon.get("/networking/v1/servers/host1").await;
    assert_eq!(server.json["properties"]["configurationState"]["status"], "Failure");
    let health = daemon.get("/culvert/v1/health").await;
    assert_eq!((health.json["ok"].as_bool(), health.json["appliedVersion"].as_u64()), (Some(false), Some(0)));
    assert_eq!(health.status, 503, "a load balancer reads the status alone");
    assert!(!daemon.agent.reconcile());
    daemon.memory.broken.store(false, Ordering::Relaxed);
    assert!(daemon.agent.reconcile());
    let health = daemon.get("/culvert/v1/health").await;
    assert_eq!((health.status, &health.json["appliedVersion"]), (200, &json!(1)));
    daemon.stop().await;
}

#[tokio::test]
async fn views_carry_the_policys_names() {
    let directory = directory();
    let daemon = Daemon::start(directory.path()).await;
    daemon.apply(FIGURE8).await;
    let vports = daemon.get("/culvert/v1/vports").await;
    assert_eq!(vports.json[0]["name"], "contoso-sql");
    assert_eq!(vports.json[1]["vsid"], 6001);
    let mappings = daemon.get("/culvert/v1/mappings").await;
    assert_eq!(mappings.json.as_array().unwrap().len(), 4);
    assert_eq!(mappings.json[1]["pas"], json!(["192.168.2.20", "192.168.2.21"]));
    assert_eq!(daemon.get("/culvert/v1/flows?vsid=5001").await.json[0]["vsid"], 5001);
    let trace = |port: &str| {
        json!({"port": port, "tuple": {"destination": "10.1.1.12", "protocol": "tcp"}}).to_string()
    };
    let traced = daemon.send("POST", "/culvert/v1/trace", &[], &trace("fabrikam-sql")).await;
    assert_eq!(traced.json["outputs"][0], "1");
    let unknown = daemon.send("POST", "/culvert/v1/trace", &[], &trace("contoso-web")).await;
    assert_eq!(unknown.status, 400);
    assert!(unknown.json["error"]["remedy"].as_str().unwrap().contains("contoso-sql"));
    let metrics = daemon.get("/culvert/v1/metrics").await.text;
    assert!(metrics.contains("culvert_drops_total{reason=\"acl_deny\",by=\"nic\"} 3"), "{metrics}");
    assert!(metrics.contains("culvert_uplink_in_packets_total{uplink=\"0\"} 7"), "{metrics}");
    assert!(metrics.contains("culvert_worker_vports{worker=\"1\"} 2"), "{metrics}");
    assert!(metrics.contains("culvert_worker_busy_seconds_total{worker=\"1\"} 1.020"), "{metrics}");
    let described = daemon.get("/culvert/v1/openapi.json").await.json;
    let paths = described["paths"].as_object().unwrap();
    assert!(
        paths.contains_key("/networking/v1/networkInterfaces/{id}")
            && paths.contains_key("/culvert/v1/trace")
    );
    let text = described.to_string();
    for reference in text.split("\"$ref\":\"#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(described["components"]["schemas"].get(name).is_some(), "{name} is described");
    }
    daemon.stop().await;
}

#[tokio::test]
async fn a_host_that_the_policy_does_not_know_says_so() {
    let directory = directory();
    let daemon = Daemon::start_as(directory.path(), "host9").await;
    daemon.apply(FIGURE8).await;
    let health = daemon.get("/culvert/v1/health").await;
    let problem = health.json["problems"][0].as_str().unwrap();
    assert!(problem.contains("\"host9\"") && problem.contains("host1, host2"), "{problem}");
    assert!(daemon.memory.last().vports.is_empty());
    daemon.stop().await;
}

#[tokio::test]
async fn what_a_port_lacks_is_in_every_answer() {
    let directory = directory();
    let daemon = Daemon::start(directory.path()).await;
    let reply = daemon.apply(FIGURE8).await;
    assert_eq!(reply.json["progress"]["pending"], json!([]));
    let mut seen = Conditions::default();
    let why = "the TAP vport1 cannot be opened: device or resource busy";
    seen.vports.insert(0, VportCondition::default());
    seen.vports.insert(1, VportCondition { state: VportState::Failed, reason: why.into() });
    *daemon.memory.conditions.lock().unwrap() = Arc::new(seen);
    let health = daemon.get("/culvert/v1/health").await;
    assert_eq!((health.status, &health.json["progress"]["vportsDone"]), (503, &json!(1)));
    assert_eq!(health.json["problems"][0], format!("vport 1 (fabrikam-sql): {why}"));
    let applied = daemon.apply(FIGURE8).await;
    let pending = &applied.json["progress"]["pending"][0];
    assert_eq!((&pending["port"], &pending["name"]), (&json!("vport 1"), &json!("fabrikam-sql")));
    let state = |json: &Value| json["properties"]["configurationState"].clone();
    let failed = state(&daemon.get("/networking/v1/networkInterfaces/fabrikam-sql").await.json);
    assert_eq!((&failed["status"], &failed["detailedInfo"][0]["message"]), (&json!("Failure"), &json!(why)));
    let other = state(&daemon.get("/networking/v1/networkInterfaces/contoso-sql").await.json);
    assert_eq!(other, json!({ "status": "Success" }));

    *daemon.memory.conditions.lock().unwrap() = Arc::default();
    assert_eq!(daemon.get("/culvert/v1/health").await.status, 200);
    // The store's file goes away under the daemon.
    std::fs::rename(directory.path().join("state"), directory.path().join("moved")).unwrap();
    let health = daemon.get("/culvert/v1/health").await;
    assert_eq!(health.status, 503);
    assert!(health.text.contains("was deleted or replaced"), "{}", health.text);
    std::fs::rename(directory.path().join("moved"), directory.path().join("state")).unwrap();
    assert_eq!(daemon.get("/culvert/v1/health").await.status, 200);
    daemon.stop().await;
}
