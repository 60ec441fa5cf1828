//! `/culvert/v1/openapi.json`: the OpenAPI document, made from the types that read and write the API.

use culvert_api::view::{
    CountersView, DropsView, FlowQuery, FlowView, FlushReply, HealthView, LogLevelView, MappingView, NicInfo,
    RuleView, TalkerView, TraceReply, TraceRequest, VportView,
};
use culvert_api::{ApplyReply, Bundle, Collection, ErrorReply, ResourcePath};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::body_schema;
use super::reply::{self, Reply};

pub(super) async fn document() -> Reply {
    reply::ok(&describe())
}

/// Statuses that any request may have.
const ANY: &[&str] = &["400", "403"];
/// Of views, whose data the datapath has.
const VIEW: &[&str] = &["500", "503"];
/// Of requests with a body.
const BODY: &[&str] = &["408", "413", "415"];
/// Of changes.
const CHANGE: &[&str] = &["404", "409", "412", "422", "500", "503"];

pub(super) fn describe() -> Value {
    let mut schemas = Map::new();
    let mut paths = Map::new();
    for collection in Collection::ALL {
        let (name, all) = collection.schemas();
        schemas.extend(all.into_iter().map(|(n, s)| (n, to_json(&s))));
        let base = format!("/networking/v1/{}", collection.name());
        resources(&mut paths, &base, &ResourcePath::top(collection, "id"), &reference(&name), &schemas);
    }
    let roots = json!({ "type": "object", "properties": { "value": { "type": "array" } } });
    paths.insert(
        "/networking/v1".into(),
        json!({ "get": Operation::new("culvert", "list the collections").answer("200", &roots).json() }),
    );
    let mut view = |path: &str, method: &str, summary: &str, body: Option<Value>, answer: Value| {
        let mut operation = Operation::new("culvert", summary).answer("200", &answer).errors(VIEW);
        if let Some(body) = body {
            operation = operation.body(&body);
        }
        if matches!(path, "flows" | "talkers") {
            operation = operation.query(&query::<FlowQuery>());
        }
        if (path, method) == ("bundle", "post") {
            let modes = json!({ "enum": ["replace", "merge"] });
            let truth = json!({ "type": "boolean" });
            let parameters = [("mode", &modes), ("dryRun", &truth), ("lenient", &truth), ("force", &truth)];
            operation = operation.errors(CHANGE).query(&parameters.map(|(n, s)| parameter(n, "query", s)));
            operation = operation.query(&[parameter("Culvert-Lenient", "header", &truth)]);
        }
        let entry = paths.entry(format!("/culvert/v1/{path}")).or_insert_with(|| json!({}));
        entry[method] = operation.json();
    };
    let list = |items: Value| json!({ "type": "array", "items": items });
    let mut add = Adder(&mut schemas);
    let bundle = add.of::<Bundle>();
    let answer = add.of::<ApplyReply>();
    view("bundle", "get", "the desired policy", None, bundle);
    view(
        "bundle",
        "post",
        "apply a policy; mode=merge keeps the resources that it does not name",
        Some(body_schema::bundle()),
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
    add.of::<FlowQuery>();
    let text =
        Operation::new("culvert", "counters in Prometheus' text format").errors(VIEW).text("200").json();
    paths.insert("/culvert/v1/metrics".into(), json!({ "get": text }));
    let own = Operation::new("culvert", "this document").answer("200", &json!({ "type": "object" })).json();
    paths.insert("/culvert/v1/openapi.json".into(), json!({ "get": own }));
    json!({
        "openapi": "3.1.0",
        "info": { "title": "Culvert", "version": env!("CARGO_PKG_VERSION") },
        "paths": paths,
        "components": { "schemas": schemas },
    })
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// Describes a collection, its resources and their children.
fn resources(
    paths: &mut Map<String, Value>,
    base: &str,
    path: &ResourcePath,
    one: &Value,
    schemas: &Map<String, Value>,
) {
    let depth = path.children.len();
    let tag = path.collection.name();
    let list = json!({ "type": "object", "properties": {
        "value": { "type": "array", "items": one },
        "nextLink": { "type": "string" },
    }});
    let ids = |count: usize| (0..count).map(|n| parameter(&id(n), "path", &id_schema())).collect::<Vec<_>>();
    let own = ids(depth + 1);
    let listing = Operation::new(tag, "list the collection").query(&ids(depth)).answer("200", &list);
    paths.insert(base.to_owned(), json!({ "get": listing.errors(&["404"]).json() }));
    let text = json!({ "type": "string" });
    let conditions = ["If-Match", "If-None-Match"].map(|name| parameter(name, "header", &text));
    let truth = json!({ "type": "boolean" });
    let lenient = [parameter("lenient", "query", &truth), parameter("Culvert-Lenient", "header", &truth)];
    let operation = |summary: &str| Operation::new(tag, summary).query(&own).query(&conditions);
    let get = operation("read a resource").answer("200", one).nothing("304").errors(&["404", "412"]);
    let put = operation("create or replace a resource").query(&lenient);
    let put = put.body(&body_schema::resource(path.shape())).answer("200", one).answer("201", one);
    let delete = operation("delete a resource").nothing("200").nothing("204").errors(CHANGE);
    let at = format!("{base}/{{{}}}", id(depth));
    let all = json!({ "get": get.json(), "put": put.errors(CHANGE).json(), "delete": delete.json() });
    paths.insert(at.clone(), all);
    if let Some(child) = path.collection.children().get(depth) {
        let inner = path.child(child, "id");
        let schema = child_schema(one, child, schemas);
        resources(paths, &format!("{at}/{child}"), &inner, &schema, schemas);
    }
}

/// The schema of a resource's child: what the list of children has.
fn child_schema(one: &Value, child: &str, schemas: &Map<String, Value>) -> Value {
    fn find<'v>(schema: &'v Value, name: &str, schemas: &'v Map<String, Value>) -> Option<&'v Value> {
        if let Some(target) = schema.get("$ref").and_then(Value::as_str) {
            return find(schemas.get(target.rsplit('/').next()?)?, name, schemas);
        }
        let parts = schema.get("allOf").and_then(Value::as_array);
        let own = schema.get("properties").and_then(|p| p.get(name));
        own.or_else(|| parts?.iter().find_map(|part| find(part, name, schemas)))
    }
    let properties = find(one, "properties", schemas);
    let list = properties.and_then(|p| find(p, child, schemas));
    list.and_then(|l| l.get("items")).cloned().unwrap_or_else(|| json!({ "type": "object" }))
}

fn id(depth: usize) -> String {
    ["id", "child", "grandchild"].get(depth).copied().unwrap_or("descendant").to_owned()
}

fn id_schema() -> Value {
    json!({ "type": "string", "maxLength": 128, "pattern": "^[A-Za-z0-9_:.-]*[A-Za-z0-9_:-][A-Za-z0-9_:.-]*$" })
}

fn parameter(name: &str, place: &str, schema: &Value) -> Value {
    json!({ "name": name, "in": place, "required": place == "path", "schema": schema })
}

/// The parameters of a query, from the type that reads it.
fn query<T: ToSchema>() -> Vec<Value> {
    let schema = to_json(&T::schema());
    let properties = schema.get("properties").and_then(Value::as_object);
    let all = properties.into_iter().flatten();
    all.map(|(name, schema)| {
        let mut schema = schema.clone();
        // A parameter is there or not; its text has no null.
        let kinds = schema.get("type").and_then(Value::as_array);
        if let Some(kind) = kinds.and_then(|k| k.iter().find(|k| *k != "null")).cloned() {
            schema["type"] = kind;
        }
        let largest = match schema.get("format").and_then(Value::as_str) {
            Some("int32") if schema["minimum"] == 0 => Some(u64::from(u32::MAX)),
            _ => None,
        };
        if name == "vport" {
            schema["maximum"] = json!(u16::MAX);
        } else if let Some(largest) = largest {
            schema["maximum"] = json!(largest);
        } else if schema["type"] == "integer" {
            schema["maximum"] = json!(u64::MAX);
        }
        parameter(name, "query", &schema)
    })
    .collect()
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
    let mut value = serde_json::to_value(schema).unwrap_or_default();
    correct(&mut value);
    value
}

/// The names of a JSON object are text, also where a number stands for the map's key.
fn correct(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            object.remove("propertyNames");
            object.values_mut().for_each(correct);
        }
        Value::Array(list) => list.iter_mut().for_each(correct),
        _ => {}
    }
}

/// A method of a path in the making.
struct Operation {
    value: Value,
}

impl Operation {
    fn new(tag: &str, summary: &str) -> Self {
        let value = json!({ "tags": [tag], "summary": summary, "parameters": [], "responses": {} });
        Self { value }.errors(ANY)
    }

    fn query(mut self, parameters: &[Value]) -> Self {
        if let Some(all) = self.value["parameters"].as_array_mut() {
            all.extend_from_slice(parameters);
        }
        self
    }

    fn body(mut self, schema: &Value) -> Self {
        self.value["requestBody"] =
            json!({ "required": true, "content": { "application/json": { "schema": schema } } });
        self.errors(BODY)
    }

    fn answer(mut self, status: &str, schema: &Value) -> Self {
        self.value["responses"][status] =
            json!({ "description": "success", "content": { "application/json": { "schema": schema } } });
        self
    }

    fn text(mut self, status: &str) -> Self {
        self.value["responses"][status] = json!({ "description": "success", "content": { "text/plain": { "schema": { "type": "string" } } } });
        self
    }

    fn nothing(mut self, status: &str) -> Self {
        self.value["responses"][status] = json!({ "description": "no content" });
        self
    }

    fn errors(mut self, statuses: &[&str]) -> Self {
        for status in statuses {
            self.value["responses"][*status] = json!({
                "description": "failure, with reason and remedy",
                "content": { "application/json": { "schema": reference("ErrorReply") } },
            });
        }
        self
    }

    fn json(self) -> Value {
        self.value
    }
}
