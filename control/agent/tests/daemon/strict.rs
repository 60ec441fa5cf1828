//! What a document may say, how much is said about a wrong one, and what HTTP asks of a server.

use serde_json::{Value, json};

use crate::support::{Daemon, FIGURE8, directory};

/// Figure 8 with these changes, as text.
fn policy(change: impl FnOnce(&mut Value)) -> String {
    let mut value = serde_json::from_str(FIGURE8).unwrap();
    change(&mut value);
    value.to_string()
}

#[tokio::test]
async fn what_is_not_known_is_refused_or_left_out_and_listed() {
    let directory = directory();
    let daemon = Daemon::start(directory.path()).await;
    let wrong = policy(|p| {
        let subnet = &mut p["virtualNetworks"][0]["properties"]["subnets"][0]["properties"];
        subnet["accesControlList"] = subnet["accessControlList"].take();
        subnet["routeTable"] = json!({"resourceRef": "/routeTables/r"});
        p["virtualNetworks"][0]["properties"]["encryptionEnabled"] = json!(true);
    });
    let refused = daemon.apply(&wrong).await;
    assert_eq!(refused.status, 400, "{}", refused.text);
    let remedies: Vec<_> = refused.json["error"]["details"]
        .as_array()
        .unwrap()
        .iter()
        .map(|d| d["remedy"].as_str().unwrap())
        .collect();
    assert!(remedies.contains(&"write accessControlList"), "{remedies:?}");
    assert_eq!(daemon.get("/culvert/v1/health").await.json["desiredVersion"], 0);

    let url = "/culvert/v1/bundle";
    let taken = daemon.send("POST", url, &[("culvert-lenient", "true")], &wrong).await;
    assert_eq!(taken.status, 200, "{}", taken.text);
    assert_eq!(taken.json["warnings"].as_array().unwrap().len(), 3, "{}", taken.text);
    let network = daemon.get("/networking/v1/virtualNetworks/contoso").await;
    assert_eq!(network.json["ignoredProperties"], json!(["properties.encryptionEnabled"]));
    let subnet = daemon.get("/networking/v1/virtualNetworks/contoso/subnets/front").await;
    assert_eq!(
        subnet.json["ignoredProperties"],
        json!(["properties.accesControlList", "properties.routeTable"])
    );

    let body =
        json!({"properties": {"routeTable": null, "addressPrefix": "10.1.2.0/24", "virtualSubnetId": 5002}});
    let path = "/networking/v1/virtualNetworks/contoso/subnets/back";
    let put = daemon.put(path, &body).await;
    assert_eq!((put.status, &put.json["error"]["code"]), (400, &json!("UnknownProperty")));
    let put = daemon.put(&format!("{path}?lenient=true"), &body).await;
    assert_eq!((put.status, &put.json["ignoredProperties"]), (201, &json!(["properties.routeTable"])));
    let odd = daemon.send("PUT", path, &[("culvert-lenient", "perhaps")], &body.to_string()).await;
    assert_eq!(odd.status, 400);
    daemon.stop().await;
}

#[tokio::test]
async fn an_answer_to_get_can_be_sent_back() {
    let directory = directory();
    let daemon = Daemon::start(directory.path()).await;
    daemon.apply(FIGURE8).await;
    for path in [
        "/networking/v1/virtualNetworks/contoso",
        "/networking/v1/virtualNetworks/contoso/subnets/front",
        "/networking/v1/networkInterfaces/contoso-sql",
    ] {
        let shown = daemon.get(path).await;
        let put = daemon.put(path, &shown.json).await;
        assert_eq!((put.status, &put.etag), (200, &shown.etag), "{}", put.text);
    }
    for path in ["networkInterfaces", "virtualNetworks/fabrikam", "accessControlLists"] {
        let shown = daemon.get(&format!("/networking/v1/{path}")).await;
        let merged = daemon.send("POST", "/culvert/v1/bundle?mode=merge", &[], &shown.text).await;
        assert_eq!((merged.status, &merged.json["unchanged"]), (200, &json!(11)), "{}", merged.text);
    }
    daemon.stop().await;
}

#[tokio::test]
async fn most_interfaces_are_deleted_only_by_force() {
    let directory = directory();
    let daemon = Daemon::start(directory.path()).await;
    daemon.apply(FIGURE8).await;
    let keep = |n: usize| policy(|p| p["networkInterfaces"].as_array_mut().unwrap().truncate(n));
    let half = daemon.apply(&keep(2)).await;
    assert_eq!(half.status, 200, "half of them: {}", half.text);
    let refused = daemon.apply(&keep(0)).await;
    assert_eq!((refused.status, &refused.json["error"]["code"]), (409, &json!("ManyDeleted")));
    assert!(refused.text.contains("deletes 2 of 2 network interfaces"), "{}", refused.text);
    let dry = daemon.send("POST", "/culvert/v1/bundle?dryRun=true", &[], &keep(0)).await;
    assert!(dry.json["warnings"][0]["message"].as_str().unwrap().contains("2 of 2"), "{}", dry.text);
    let forced = daemon.send("POST", "/culvert/v1/bundle?force=true", &[], &keep(0)).await;
    assert_eq!((forced.status, forced.json["deleted"].as_array().unwrap().len()), (200, 2));
    daemon.stop().await;
}

#[tokio::test]
async fn an_answer_is_short_whatever_the_body() {
    let directory = directory();
    let daemon = Daemon::start(directory.path()).await;
    let many = |part: &str| vec![part; 400_000].join(",");
    let server = |n: usize| json!({"resourceId": format!("h{n}"), "properties": {"networkInterfaces": [{"resourceId": "u", "properties": {"providerAddress": "x".repeat(2_000)}}]}});
    let servers: Vec<Value> = (0..1_000).map(server).collect();
    for body in [
        format!("[{}]", many("0")),
        format!("{{\"servers\": [{}]}}", many("[]")),
        format!("{{\"servers\": [{{\"resourceId\": \"{}\"}}]}}", many("0")),
        json!({ "servers": servers }).to_string(),
    ] {
        let reply = daemon.apply(&body).await;
        assert_eq!(reply.status, 400);
        assert!(reply.text.len() <= 256 << 10, "{}", reply.text.len());
        let error = &reply.json["error"];
        assert!(error["details"].as_array().is_none_or(|d| d.len() <= 100), "{}", reply.text);
    }
    let reply = daemon.apply(&format!("{{\"servers\": [{}]}}", many("0"))).await;
    assert_eq!(reply.json["error"]["more"], 399_900);
    let long = daemon.apply(&" ".repeat((64 << 20) + 1)).await;
    assert_eq!((long.status, &long.json["error"]["code"]), (413, &json!("BodyTooLong")));
    daemon.stop().await;
}

#[tokio::test]
async fn http_as_rfc_9110_has_it() {
    let directory = directory();
    let daemon = Daemon::start(directory.path()).await;
    daemon.apply(FIGURE8).await;
    for (method, path, allow) in [
        ("DELETE", "/culvert/v1/bundle", "GET, HEAD, POST"),
        ("PUT", "/culvert/v1/health", "GET, HEAD"),
        ("GET", "/culvert/v1/trace", "POST"),
        ("POST", "/networking/v1/servers", "GET, HEAD"),
        ("PATCH", "/networking/v1/servers/host1", "GET, HEAD, PUT, DELETE"),
    ] {
        let reply = daemon.send(method, path, &[], "{}").await;
        let methods = |text: &str| -> std::collections::BTreeSet<String> {
            text.split(',').map(|m| m.trim().to_owned()).collect()
        };
        assert_eq!((reply.status, methods(&reply.allow)), (405, methods(allow)), "{method} {path}");
        assert_eq!(reply.json["error"]["code"], "MethodNotAllowed", "{method} {path}: {}", reply.text);
    }
    let path = "/networking/v1/servers/host1";
    let shown = daemon.get(path).await;
    let head = daemon.send("HEAD", path, &[], "").await;
    assert_eq!((head.status, head.text.as_str(), &head.etag), (200, "", &shown.etag));
    let strong = shown.etag.trim_start_matches("W/").to_owned();
    for known in [shown.etag.as_str(), "*", &strong, &format!("\"x\", {}", shown.etag)] {
        let cached = daemon.send("GET", path, &[("if-none-match", known)], "").await;
        assert_eq!((cached.status, cached.text.as_str(), &cached.etag), (304, "", &shown.etag), "{known}");
    }
    assert_eq!(daemon.send("GET", path, &[("if-none-match", "\"x\"")], "").await.status, 200);
    assert_eq!(daemon.send("GET", path, &[("if-match", "\"x\"")], "").await.status, 412);
    let put = daemon.send("PUT", path, &[("if-none-match", &shown.etag)], &shown.text).await;
    assert_eq!(put.status, 412);

    for (path, status) in [
        ("/culvert/v1/flows?vport=x", 400),
        ("/culvert/v1/nothing", 404),
        ("/", 404),
        ("/networking/v1/gateways", 404),
    ] {
        let reply = daemon.get(path).await;
        assert_eq!(reply.status, status, "{path}");
        assert!(
            reply.json["error"]["remedy"].as_str().is_some_and(|r| !r.is_empty()),
            "{path}: {}",
            reply.text
        );
    }
    let unknown = daemon.send("POST", "/culvert/v1/bundle?dryrun=true", &[], FIGURE8).await;
    assert_eq!(unknown.status, 400, "not applied by mistake: {}", unknown.text);
    daemon.stop().await;
}

#[tokio::test]
async fn requests_of_web_pages_and_for_other_hosts_are_refused() {
    let directory = directory();
    let daemon = Daemon::start(directory.path()).await;
    let path = "/culvert/v1/health";
    for host in ["localhost", "culvertd", "127.0.0.1:8443", "[::1]:80"] {
        assert_eq!(daemon.send("GET", path, &[("host", host)], "").await.status, 200, "{host}");
    }
    let rebound = daemon.send("GET", path, &[("host", "attacker.example")], "").await;
    assert_eq!((rebound.status, &rebound.json["error"]["code"]), (400, &json!("RequestRefused")));
    let page = daemon.send("GET", path, &[("origin", "https://attacker.example")], "").await;
    assert_eq!(page.status, 403, "{}", page.text);
    for kind in ["text/plain", "application/x-www-form-urlencoded", ""] {
        let form = daemon.send("POST", "/culvert/v1/bundle", &[("content-type", kind)], FIGURE8).await;
        assert_eq!(form.status, 415, "{kind}");
    }
    let kind = [("content-type", "application/json; charset=utf-8")];
    assert_eq!(daemon.send("POST", "/culvert/v1/bundle", &kind, FIGURE8).await.status, 200);
    daemon.stop().await;
}
