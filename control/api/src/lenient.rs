//! Converts clients' documents to canonical JSON: names and words in any case, numbers and booleans as text, MAC addresses
//! in any notation, single elements in place of lists.

use serde_json::{Map, Value};

use crate::{Error, Shape, Warning};

/// Largest nesting of a document: far more than any resource needs.
const MAX_DEPTH: usize = 32;

/// Errors and warnings of a conversion.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Values that cannot be read.
    pub errors: Vec<Error>,
    /// Unknown properties; they are left out.
    pub warnings: Vec<Warning>,
}

/// The canonical form of `value`, whose place in the document is `target`.
pub fn canonical(value: &Value, shape: &Shape, target: &str, findings: &mut Findings) -> Value {
    Reader { findings, depth: 0 }.read(value, shape, target).unwrap_or_default()
}

/// Twelve upper-case hexadecimal digits of a MAC address written with `:`, `-`, `.` or nothing between its digits.
pub fn canonical_mac(text: &str) -> Option<String> {
    let digits: String = text.trim().chars().filter(|c| !matches!(c, ':' | '-' | '.')).collect();
    (digits.len() == 12 && digits.bytes().all(|b| b.is_ascii_hexdigit())).then(|| digits.to_ascii_uppercase())
}

struct Reader<'a> {
    findings: &'a mut Findings,
    depth: usize,
}

impl Reader<'_> {
    /// `None`: the value counts as left out.
    fn read(&mut self, value: &Value, shape: &Shape, target: &str) -> Option<Value> {
        if value.is_null() {
            return None;
        }
        self.depth += 1;
        let result = if self.depth > MAX_DEPTH {
            self.wrong(value, target, "something less deep")
        } else {
            match shape {
                Shape::Any => Some(value.clone()),
                Shape::Object(properties) => self.object(value, properties, target),
                Shape::List(element) => self.list(value, element, target),
                Shape::Text { mac, words } => self.text(value, *mac, words, target),
                Shape::Integer => self.integer(value, target),
                Shape::Boolean => self.boolean(value, target),
            }
        };
        self.depth -= 1;
        result
    }

    fn object(
        &mut self,
        value: &Value,
        properties: &std::collections::BTreeMap<String, (String, Shape)>,
        target: &str,
    ) -> Option<Value> {
        let object = match value {
            Value::Object(object) => object,
            // A bare path in place of a reference object.
            Value::String(path) if properties.len() == 1 && properties.contains_key("resourceref") => {
                return (!path.is_empty()).then(|| serde_json::json!({ "resourceRef": path }));
            }
            _ => return self.wrong(value, target, "an object"),
        };
        let mut out = Map::new();
        for (name, value) in object {
            let Some((canonical, shape)) = properties.get(&name.to_ascii_lowercase()) else {
                self.findings.warnings.push(Warning {
                    target: target.to_owned(),
                    message: format!("the property \"{name}\" is not known here and is left out"),
                });
                continue;
            };
            if out.contains_key(canonical) {
                self.findings
                    .errors
                    .push(Error::DuplicateProperty { target: target.to_owned(), name: canonical.clone() });
                continue;
            }
            if let Some(value) = self.read(value, shape, &format!("{target}.{canonical}")) {
                out.insert(canonical.clone(), value);
            }
        }
        Some(Value::Object(out))
    }

    fn list(&mut self, value: &Value, element: &Shape, target: &str) -> Option<Value> {
        let one;
        let elements = match value {
            Value::Array(elements) => elements,
            single => {
                one = vec![single.clone()];
                &one
            }
        };
        let read = elements.iter().enumerate().filter_map(|(n, v)| {
            let name = match resource_id(v) {
                Some(id) => format!("{target}[{id}]"),
                None => format!("{target}[{n}]"),
            };
            self.read(v, element, &name)
        });
        Some(Value::Array(read.collect()))
    }

    fn text(&mut self, value: &Value, mac: bool, words: &[String], target: &str) -> Option<Value> {
        let text = match value {
            Value::String(text) => text.trim().to_owned(),
            Value::Number(number) => number.to_string(),
            Value::Bool(truth) => truth.to_string(),
            _ => return self.wrong(value, target, "text"),
        };
        if text.is_empty() {
            return None;
        }
        if mac {
            return match canonical_mac(&text) {
                Some(mac) => Some(Value::String(mac)),
                None => self.wrong(value, target, "a MAC address such as 00-1D-D8-07-00-01"),
            };
        }
        if words.is_empty() {
            return Some(Value::String(text));
        }
        match words.iter().find(|w| w.eq_ignore_ascii_case(&text)) {
            Some(word) => Some(Value::String(word.clone())),
            None => self.wrong(value, target, &format!("one of {}", words.join(", "))),
        }
    }

    fn integer(&mut self, value: &Value, target: &str) -> Option<Value> {
        let number = match value {
            Value::Number(number) => number.as_u64(),
            Value::String(text) if text.trim().is_empty() => return None,
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        match number {
            Some(number) => Some(Value::from(number)),
            None => self.wrong(value, target, "a whole number"),
        }
    }

    fn boolean(&mut self, value: &Value, target: &str) -> Option<Value> {
        match value {
            Value::Bool(truth) => Some(Value::Bool(*truth)),
            Value::String(text) => match text.trim().to_ascii_lowercase().as_str() {
                "" => None,
                "true" | "1" | "enabled" => Some(Value::Bool(true)),
                "false" | "0" | "disabled" => Some(Value::Bool(false)),
                _ => self.wrong(value, target, "true or false"),
            },
            _ => self.wrong(value, target, "true or false"),
        }
    }

    fn wrong(&mut self, value: &Value, target: &str, expected: &str) -> Option<Value> {
        self.findings.errors.push(Error::WrongType {
            target: target.to_owned(),
            got: describe(value),
            expected: expected.to_owned(),
        });
        None
    }
}

/// The resource's id, with the property's name in any case.
pub(crate) fn resource_id(value: &Value) -> Option<&str> {
    let object = value.as_object()?;
    object.iter().find(|(name, _)| name.eq_ignore_ascii_case("resourceId"))?.1.as_str()
}

/// A value for an error message: short ones in full.
pub(crate) fn describe(value: &Value) -> String {
    match value {
        Value::Object(_) => "an object".into(),
        Value::Array(_) => "a list".into(),
        other => {
            let text = other.to_string();
            match text.char_indices().nth(60) {
                Some((end, _)) => format!("{}...", &text[..end]),
                None => text,
            }
        }
    }
}
