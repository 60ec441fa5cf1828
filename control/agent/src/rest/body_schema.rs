//! The schema of what requests may send: every notation that the reader of documents takes.

use culvert_api::{Collection, Shape};
use serde_json::{Map, Value, json};

/// What the daemon sets: a request may have anything there.
const OWN: [&str; 5] = ["resourceRef", "instanceId", "etag", "provisioningState", "configurationState"];

/// What the schema cannot say: it depends on another part of the request.
const UNKNOWN: &str =
    "A property that is not listed is refused, or left out with Culvert-Lenient or lenient=true.";

/// The schema of a resource's or child's document.
pub(super) fn resource(shape: &Shape) -> Value {
    let mut schema = accepts(shape);
    // At the top a document is an object, and nothing else.
    schema["type"] = json!("object");
    schema["description"] = json!(UNKNOWN);
    schema
}

/// The schema of a whole policy, in its forms.
pub(super) fn bundle() -> Value {
    let property = |c: Collection| {
        let list = json!({ "type": "array", "items": accepts(c.shape()) });
        let answer = json!({ "type": "object", "properties": { "value": list }, "required": ["value"] });
        let mut forms = vec![list, answer, json!({ "type": "null" })];
        if c == Collection::VirtualNetworkManager {
            // It has one resource, which may stand for the list.
            forms.push(accepts(c.shape()));
        }
        (c.name().to_owned(), json!({ "anyOf": forms }))
    };
    let collections: Map<String, Value> = Collection::ALL.into_iter().map(property).collect();
    json!({ "type": "object", "properties": collections, "description": UNKNOWN })
}

fn accepts(shape: &Shape) -> Value {
    match shape {
        Shape::Object(all) => {
            let property = |(name, shape): &(String, Shape)| {
                let schema =
                    if OWN.contains(&name.as_str()) && all.len() > 1 { json!({}) } else { accepts(shape) };
                (name.clone(), schema)
            };
            let properties: Map<String, Value> = all.values().map(property).collect();
            let object = json!({ "type": ["object", "null"], "properties": properties });
            if all.len() == 1 && all.contains_key("resourceref") {
                return json!({ "anyOf": [object, { "type": "string" }] });
            }
            object
        }
        Shape::List(element) => {
            let element = accepts(element);
            json!({ "anyOf": [{ "type": "array", "items": element }, element] })
        }
        Shape::Text { mac: true, .. } => json!({
            "type": ["string", "null"],
            "pattern": "^(|([0-9A-Fa-f][-:.]?){11}[0-9A-Fa-f])$",
        }),
        Shape::Text { words, .. } if words.is_empty() => {
            json!({ "type": ["string", "number", "boolean", "null"] })
        }
        Shape::Text { words, .. } => {
            let words = words.iter().map(|w| json!(w)).chain([json!(""), json!(null)]);
            json!({ "enum": words.collect::<Vec<Value>>() })
        }
        Shape::Integer => json!({ "anyOf": [
            { "type": "integer", "minimum": 0, "maximum": u64::MAX },
            { "type": "string", "pattern": "^[0-9]{0,19}$" },
            { "type": "null" },
        ]}),
        Shape::Boolean => json!({ "anyOf": [
            { "type": "boolean" },
            { "enum": ["true", "false", "1", "0", "enabled", "disabled", "", null] },
        ]}),
        Shape::Map => json!({ "type": ["object", "null"] }),
        Shape::Any => json!({}),
    }
}
