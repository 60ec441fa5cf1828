//! Requests to the northbound API: path, query, headers and body, through the daemon's own router.

use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use culvert_agent::{Agent, Datapath, DatapathError, Store, rest};
use culvert_api::view::{
    CountersView, DropsView, FlowQuery, FlowView, NicInfo, TraceReply, TraceRequest, VportView,
};
use culvert_model::HostConfig;
use tokio::runtime::Runtime;
use tower::ServiceExt as _;

use crate::input::{Input, counted};
use crate::target::Target;

/// The target.
pub const TARGET: Target = Target { name: "rest", run, seeds };

/// Most requests of an input.
const MOST: usize = 4;
const METHODS: [Method; 4] = [Method::PUT, Method::POST, Method::GET, Method::DELETE];

fn request(method: u8, headers: u8, path: &str, body: &str) -> Vec<u8> {
    [&[method, headers][..], &counted(path.as_bytes()), &counted(body.as_bytes())].concat()
}

fn seeds() -> Vec<Vec<u8>> {
    let examples = [
        include_str!("../../../docs/examples/figure8.json"),
        include_str!("../../../docs/examples/pair.json"),
        include_str!("../../../docs/examples/routed.json"),
    ];
    let mut all = Vec::new();
    for text in examples {
        let bundle = request(1, 0, "/culvert/v1/bundle", text);
        all.push(bundle.clone());
        let dry = request(1, 0, "/culvert/v1/bundle?mode=merge&dryRun=true", text);
        all.push([bundle, dry, request(2, 0, "/networking/v1/servers", "")].concat());
        // Each resource by itself.
        let policy: serde_json::Value = serde_json::from_str(text).expect("an example is JSON");
        for (collection, resources) in policy.as_object().into_iter().flatten() {
            for resource in resources.as_array().into_iter().flatten() {
                let id = resource["resourceId"].as_str().unwrap_or("configuration");
                let path = format!("/networking/v1/{collection}/{id}");
                let put = request(0, 0, &path, &resource.to_string());
                let get = request(2, 0, &path, "");
                all.push([put.clone(), get, put, request(3, 1, &path, "")].concat());
            }
        }
    }
    let trace = r#"{"port":"contoso-sql","frame":"00"}"#;
    all.push(request(1, 0, "/culvert/v1/trace", trace));
    all.push(request(2, 0, "/culvert/v1/flows?limit=3&vport=contoso-sql", ""));
    let rule = "/networking/v1/accessControlLists/web/aclRules/one";
    all.push([request(0, 2, rule, r#"{"properties":{"priority":"100"}}"#), request(3, 0, rule, "")].concat());
    all
}

/// A packet path that takes every configuration.
struct Nothing;

impl Datapath for Nothing {
    fn apply(&self, _: Arc<HostConfig>) -> Result<(), DatapathError> {
        Ok(())
    }

    fn nic(&self) -> Result<NicInfo, DatapathError> {
        Ok(NicInfo::default())
    }

    fn vports(&self) -> Result<Vec<VportView>, DatapathError> {
        Ok(Vec::new())
    }

    fn flows(&self, _: &FlowQuery) -> Result<Vec<FlowView>, DatapathError> {
        Ok(Vec::new())
    }

    fn counters(&self) -> Result<CountersView, DatapathError> {
        Ok(CountersView::default())
    }

    fn drops(&self) -> Result<DropsView, DatapathError> {
        Ok(DropsView::default())
    }

    fn trace(&self, _: &TraceRequest) -> Result<TraceReply, DatapathError> {
        Err(DatapathError::Invalid { detail: "there are no packets here".into() })
    }
}

/// The daemon without its sockets; its store lies in memory, in a file without a name.
fn daemon() -> &'static (Runtime, Router) {
    static DAEMON: OnceLock<(Runtime, Router)> = OnceLock::new();
    DAEMON.get_or_init(|| {
        let folder = crate::scratch::folder();
        let store = Store::open(folder.path()).expect("a new store");
        let agent = Agent::start("host1", store, Arc::new(Nothing)).expect("an empty store");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        (runtime, rest::router(agent))
    })
}

/// Runs one input.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    for _ in 0..MOST {
        if input.is_empty() {
            break;
        }
        let (method, headers) = (input.byte(), input.byte());
        let (path, body) = (input.counted(), input.counted());
        let Some(request) = build(method, headers, path, body) else { continue };
        let status = answer(request);
        assert_ne!(status, StatusCode::INTERNAL_SERVER_ERROR, "{}", String::from_utf8_lossy(path));
    }
    // Each input finds an empty policy.
    let clear = build(1, 0, b"/culvert/v1/bundle?force=true", b"{}").expect("a request");
    assert_eq!(answer(clear), StatusCode::OK);
}

/// `None`: what HTTP itself refuses.
fn build(method: u8, headers: u8, path: &[u8], body: &[u8]) -> Option<Request<Body>> {
    let path = std::str::from_utf8(path).ok()?;
    let mut request = Request::builder().method(&METHODS[usize::from(method) % METHODS.len()]).uri(path);
    for (bit, name, value) in [(1, "if-match", "*"), (2, "if-none-match", "*"), (4, "if-match", "W/\"1\"")] {
        if headers & bit != 0 {
            request = request.header(name, value);
        }
    }
    request = request.header("host", "culvertd").header("content-type", "application/json");
    request.body(Body::from(body.to_vec())).ok()
}

fn answer(request: Request<Body>) -> StatusCode {
    let (runtime, router) = daemon();
    runtime.block_on(router.clone().oneshot(request)).expect("every request is answered").status()
}
