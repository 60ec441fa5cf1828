//! Texts, numbers and truth values, in the notations that clients use.

use super::canonical_mac;
use super::reader::Reader;
use crate::Shape;
use crate::names::short;

/// A value without parts.
pub(super) enum Scalar<'s> {
    Truth(bool),
    Whole(u64),
    /// Negative, or not whole: as text.
    Number(String),
    Text(&'s str),
}

impl Scalar<'_> {
    /// For an error message.
    fn describe(&self) -> String {
        match self {
            Scalar::Truth(truth) => truth.to_string(),
            Scalar::Whole(number) => number.to_string(),
            Scalar::Number(number) => short(number),
            Scalar::Text(text) => format!("\"{}\"", short(text)),
        }
    }
}

impl Reader<'_> {
    /// Writes a scalar in the canonical notation of its shape. Returns whether it was written.
    pub(super) fn scalar(&mut self, shape: &Shape, value: &Scalar<'_>) -> bool {
        match shape {
            Shape::Text { mac, words } => self.text_value(value, *mac, words, shape),
            Shape::Integer => {
                let number = match value {
                    Scalar::Whole(number) => Some(*number),
                    Scalar::Text(text) if text.trim().is_empty() => return false,
                    Scalar::Text(text) => text.trim().parse().ok(),
                    Scalar::Truth(_) | Scalar::Number(_) => None,
                };
                match number {
                    Some(number) => self.put(&number),
                    None => self.wrong(|| value.describe(), || shape.expected()),
                }
            }
            Shape::Boolean => {
                let truth = match value {
                    Scalar::Truth(truth) => Some(*truth),
                    Scalar::Text(text) => match text.trim().to_ascii_lowercase().as_str() {
                        "" => return false,
                        "true" | "1" | "enabled" => Some(true),
                        "false" | "0" | "disabled" => Some(false),
                        _ => None,
                    },
                    Scalar::Whole(_) | Scalar::Number(_) => None,
                };
                match truth {
                    Some(truth) => self.put(&truth),
                    None => self.wrong(|| value.describe(), || shape.expected()),
                }
            }
            // One element in place of a list.
            Shape::List(element) => {
                self.write(b"[");
                self.scalar(element, value);
                self.write(b"]");
                true
            }
            // A bare path in place of a reference object.
            Shape::Object(properties) if properties.len() == 1 && properties.contains_key("resourceref") => {
                match value {
                    Scalar::Text("") => false,
                    Scalar::Text(path) => {
                        self.write(b"{\"resourceRef\":");
                        self.write_json(path);
                        self.write(b"}");
                        true
                    }
                    _ => self.wrong(|| value.describe(), || shape.expected()),
                }
            }
            Shape::Any => match value {
                Scalar::Truth(truth) => self.put(truth),
                Scalar::Whole(number) => self.put(number),
                Scalar::Number(number) => {
                    self.write(number.as_bytes());
                    true
                }
                Scalar::Text(text) => self.put(*text),
            },
            Shape::Object(_) | Shape::Map => self.wrong(|| value.describe(), || shape.expected()),
        }
    }

    fn text_value(&mut self, value: &Scalar<'_>, mac: bool, words: &[String], shape: &Shape) -> bool {
        let other;
        let text = match value {
            Scalar::Text(text) => text.trim(),
            value => {
                other = match value {
                    Scalar::Truth(truth) => truth.to_string(),
                    Scalar::Whole(number) => number.to_string(),
                    Scalar::Number(text) => text.clone(),
                    Scalar::Text(_) => String::new(),
                };
                &other
            }
        };
        if text.is_empty() {
            return false;
        }
        if mac {
            return match canonical_mac(text) {
                Some(mac) => self.put(&mac),
                None => self.wrong(|| value.describe(), || shape.expected()),
            };
        }
        if words.is_empty() {
            self.last_text.clear();
            self.last_text.push_str(&text[..text.floor_char_boundary(256)]);
            return self.put(text);
        }
        match words.iter().find(|w| w.eq_ignore_ascii_case(text)) {
            Some(word) => self.put(word),
            None => self.wrong(|| value.describe(), || shape.expected()),
        }
    }

    fn put(&mut self, value: &(impl serde::Serialize + ?Sized)) -> bool {
        self.write_json(value);
        true
    }
}

impl Shape {
    /// The shape for an error message.
    pub(super) fn expected(&self) -> String {
        match self {
            Shape::Object(_) | Shape::Map => "an object".into(),
            Shape::List(_) => "a list".into(),
            Shape::Text { mac: true, .. } => "a MAC address such as 00-1D-D8-07-00-01".into(),
            Shape::Text { words, .. } if words.is_empty() => "text".into(),
            Shape::Text { words, .. } => format!("one of {}", words.join(", ")),
            Shape::Integer => "a whole number".into(),
            Shape::Boolean => "true or false".into(),
            Shape::Any => "any value".into(),
        }
    }
}
