//! The form of a JSON value, taken from the OpenAPI schema of the type that holds it.

use std::collections::BTreeMap;

use serde_json::Value;
use utoipa::ToSchema;

/// The form of a JSON value: enough to read it in any notation.
#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    /// Known properties: lower-case name to canonical name and form.
    Object(BTreeMap<String, (String, Shape)>),
    /// A list of equal elements.
    List(Box<Shape>),
    /// Text; only one of `words` where there are any.
    Text {
        /// A MAC address.
        mac: bool,
        /// The allowed words; empty: any text.
        words: Vec<String>,
    },
    /// A non-negative integer.
    Integer,
    /// A truth value.
    Boolean,
    /// An object with names of the client's; left as it is.
    Map,
    /// Anything; left as it is.
    Any,
}

impl Shape {
    /// The form of a type's JSON.
    pub fn of<T: ToSchema>() -> Self {
        let mut schemas = Vec::new();
        T::schemas(&mut schemas);
        let components: BTreeMap<String, Value> = schemas.into_iter().map(|(n, s)| (n, json(&s))).collect();
        Self::read(&json(&T::schema()), &components)
    }

    fn read(schema: &Value, components: &BTreeMap<String, Value>) -> Self {
        if let Some(target) = schema.get("$ref").and_then(Value::as_str) {
            let name = target.rsplit('/').next().unwrap_or(target);
            return components.get(name).map_or(Shape::Any, |s| Self::read(s, components));
        }
        if let Some(parts) = schema.get("allOf").and_then(Value::as_array) {
            let mut all = BTreeMap::new();
            for part in parts {
                if let Shape::Object(properties) = Self::read(part, components) {
                    all.extend(properties);
                }
            }
            return Shape::Object(all);
        }
        // An optional reference: `oneOf: [null, reference]`.
        if let Some(parts) = schema.get("oneOf").and_then(Value::as_array) {
            let real = parts.iter().find(|p| p.get("type").and_then(Value::as_str) != Some("null"));
            return real.map_or(Shape::Any, |s| Self::read(s, components));
        }
        match type_name(schema) {
            "object" => match schema.get("properties").and_then(Value::as_object) {
                Some(properties) => Shape::Object(
                    properties
                        .iter()
                        .map(|(name, s)| {
                            (name.to_ascii_lowercase(), (name.clone(), Self::read(s, components)))
                        })
                        .collect(),
                ),
                None => Shape::Map,
            },
            "array" => {
                Shape::List(Box::new(schema.get("items").map_or(Shape::Any, |s| Self::read(s, components))))
            }
            "string" => Shape::Text {
                mac: schema.get("format").and_then(Value::as_str) == Some("mac"),
                words: schema
                    .get("enum")
                    .and_then(Value::as_array)
                    .map(|words| words.iter().filter_map(|w| w.as_str().map(str::to_owned)).collect())
                    .unwrap_or_default(),
            },
            "integer" => Shape::Integer,
            "boolean" => Shape::Boolean,
            _ => Shape::Any,
        }
    }
}

fn json<S: serde::Serialize>(schema: &S) -> Value {
    serde_json::to_value(schema).unwrap_or_default()
}

/// `"string"` of both `"string"` and `["string", "null"]`.
fn type_name(schema: &Value) -> &str {
    match schema.get("type") {
        Some(Value::String(name)) => name,
        Some(Value::Array(names)) => {
            names.iter().filter_map(Value::as_str).find(|n| *n != "null").unwrap_or("")
        }
        _ => "",
    }
}
