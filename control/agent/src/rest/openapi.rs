//! `/culvert/v1/openapi.json`: the OpenAPI document, made from the types that read and write the API.

use culvert_api::view::{
    CountersView, DropsView, FlowView, FlushReply, HealthView, LogLevelView, MappingView, NicInfo, RuleView,
    TalkerView, TraceReply, TraceRequest, VportView,
};
use culvert_api::{ApplyReply, Bundle, Collection, ErrorReply};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::reply::{self, Reply};

pub(super) async fn document() -> Reply {
    reply::ok(&describe())
}

pub(super) fn describe() -> Value {
    let mut schemas = Map::new();
    let mut paths = Map::new();
    for collection in Collection::ALL {
        let (name, all) = collection.schemas();
        schemas.extend(all.into_iter().map(|(n, s)| (n, to_json(&s))));
        let one = json!({ "$ref": format!("#/components/schemas/{name}") });
        let list = json!({ "type": "object", "properties": { "value": { "type": "array", "items": one } } });
        let base = format!("/networking/v1/{}", collection.name());
        let tag = collection.name();
        paths.insert(base.clone(), json!({ "get": operation(tag, "list the collection", &[], None, &list) }));
        paths.insert(
            format!("{base}/{{id}}"),
            json!({
                "get": operation(tag, "read a resource", &["id"], None, &one),
                "put": operation(tag, "create or replace a resource", &["id"], Some(&one), &one),
                "delete": operation(tag, "delete a resource", &["id"], None, &json!({})),
            }),
        );
    }
    let mut view = |path: &str, method: &str, summary: &str, body: Option<Value>, answer: Value| {
        let operation = operation("culvert", summary, &[], body.as_ref(), &answer);
        let entry = paths.entry(format!("/culvert/v1/{path}")).or_insert_with(|| json!({}));
        entry[method] = operation;
    };
    let list = |items: Value| json!({ "type": "array", "items": items });
    let mut add = Adder(&mut schemas);
    let bundle = add.of::<Bundle>();
    let answer = add.of::<ApplyReply>();
    view("bundle", "get", "the desired policy", None, bundle.clone());
    view(
        "bundle",
        "post",
        "apply a policy; mode=merge keeps the resources that it does not name",
        Some(bundle),
        answer,
    );
    view("nic", "get", "the NIC", None, add.of::<NicInfo>());
    view("vports", "get", "the vports", None, list(add.of::<VportView>()));
    view("flows", "get", "flows", None, list(add.of::<FlowView>()));
    view(
        "flows",
        "delete",
        "delete flow records; the next packets make them again",
        None,
        add.of::<FlushReply>(),
    );
    view("talkers", "get", "the addresses that send most", None, list(add.of::<TalkerView>()));
    view("rules", "get", "rules of access control lists, with hits", None, list(add.of::<RuleView>()));
    view("counters", "get", "counters", None, add.of::<CountersView>());
    view("drops", "get", "drops by reason", None, add.of::<DropsView>());
    view("mappings", "get", "customer addresses and their locations", None, list(add.of::<MappingView>()));
    let request = add.of::<TraceRequest>();
    view("trace", "post", "decide on a packet without sending it", Some(request), add.of::<TraceReply>());
    let health = add.of::<HealthView>();
    view("health", "get", "state of the daemon", None, health.clone());
    let level = add.of::<LogLevelView>();
    view("log-level", "get", "which lines the daemon's log has", None, level.clone());
    view(
        "log-level",
        "put",
        "change which lines the daemon's log has, until it ends",
        Some(level.clone()),
        level,
    );
    add.of::<ErrorReply>();
    paths["/culvert/v1/health"]["get"]["responses"]["503"] = json!({
        "description": "something is wrong",
        "content": { "application/json": { "schema": health } },
    });
    json!({
        "openapi": "3.1.0",
        "info": { "title": "Culvert", "version": env!("CARGO_PKG_VERSION") },
        "paths": paths,
        "components": { "schemas": schemas },
    })
}

struct Adder<'a>(&'a mut Map<String, Value>);

impl Adder<'_> {
    /// Adds a type with the types of its fields; returns a reference to it.
    fn of<T: ToSchema>(&mut self) -> Value {
        let mut all = Vec::new();
        T::schemas(&mut all);
        self.0.extend(all.into_iter().map(|(n, s)| (n, to_json(&s))));
        self.0.insert(T::name().into_owned(), to_json(&T::schema()));
        json!({ "$ref": format!("#/components/schemas/{}", T::name()) })
    }
}

fn to_json(schema: &impl serde::Serialize) -> Value {
    serde_json::to_value(schema).unwrap_or_default()
}

fn operation(tag: &str, summary: &str, parameters: &[&str], body: Option<&Value>, answer: &Value) -> Value {
    let parameters: Vec<Value> = parameters
        .iter()
        .map(|p| json!({ "name": p, "in": "path", "required": true, "schema": { "type": "string" } }))
        .collect();
    let content = |schema: &Value| json!({ "application/json": { "schema": schema } });
    let mut out = json!({
        "tags": [tag],
        "summary": summary,
        "parameters": parameters,
        "responses": {
            "200": { "description": "success", "content": content(answer) },
            "default": {
                "description": "failure, with reason and remedy",
                "content": content(&json!({ "$ref": "#/components/schemas/ErrorReply" })),
            },
        },
    });
    if let Some(schema) = body {
        out["requestBody"] = json!({ "required": true, "content": content(schema) });
    }
    out
}
