//! The forms of documents: an object of collections, a list of resources, an answer of the API, one resource.

mod collections;
mod outermost;
mod policy;

use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use self::collections::Collections;
use self::outermost::Form;
use self::policy::Policy;
use crate::lenient::{Reader, Unknown};
use crate::{AnyResource, Bundle, Collection, Error, Findings, Parsed, ResourcePath, json_error};

/// The text of a document without its byte order mark.
fn text(bytes: &[u8]) -> Result<&str, Findings> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    std::str::from_utf8(bytes).map_err(|e| {
        Findings::one(Error::NotJson { detail: format!("it is not UTF-8 at byte {}", e.valid_up_to() + 1) })
    })
}

/// Reads a resource at the path of a top-level resource.
///
/// # Errors
/// Every problem of form.
pub fn read_resource(
    bytes: &[u8],
    path: &ResourcePath,
    unknown: Unknown,
) -> Result<(AnyResource, Findings), Findings> {
    let (text, findings) = read_at(bytes, path, unknown)?;
    match AnyResource::from_text(path.collection, &text) {
        Ok(resource) => Ok((resource, findings)),
        Err(e) => Err(Findings::one(json_error(&e))),
    }
}

/// Reads the child at a path to its canonical text.
///
/// # Errors
/// Every problem of form.
pub fn read_child(
    bytes: &[u8],
    path: &ResourcePath,
    unknown: Unknown,
) -> Result<(Vec<u8>, Findings), Findings> {
    read_at(bytes, path, unknown)
}

fn read_at(bytes: &[u8], path: &ResourcePath, unknown: Unknown) -> Result<(Vec<u8>, Findings), Findings> {
    let text = text(bytes)?;
    let full = path.to_string();
    let (parent, id) = full.rsplit_once('/').unwrap_or(("", &full));
    let mut findings = Findings::default();
    let mut reader = Reader::new(&mut findings, unknown);
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let read = reader.resource(&mut deserializer, path.shape(), parent, Some(id));
    let read = read.and_then(|read| deserializer.end().map(|()| read));
    let out = reader.text().to_vec();
    match read {
        Err(e) => {
            if findings.errors.is_empty() || e.is_syntax() || e.is_eof() {
                findings.error(|| json_error(&e));
            }
            Err(findings)
        }
        Ok((_, false)) if findings.errors.is_empty() => Err(Findings::one(Error::WrongType {
            target: full,
            got: "nothing".into(),
            expected: "an object".into(),
        })),
        Ok((_, false)) => Err(findings),
        Ok((_, true)) => Ok((out, findings)),
    }
}

impl Bundle {
    /// Reads a document: an object of collections; a list of resources that say where they belong by `resourceRef`; or
    /// what the API answers to GET, a resource or a collection. Properties that are not known are errors.
    ///
    /// # Errors
    /// Every problem of form, not only the first.
    pub fn parse(text: &str) -> Result<Parsed, Findings> {
        Self::read(text.as_bytes(), Unknown::Refused)
    }

    /// As [`Bundle::parse`], from UTF-8 with or without a byte order mark.
    ///
    /// # Errors
    /// Every problem of form, not only the first.
    pub fn read(bytes: &[u8], unknown: Unknown) -> Result<Parsed, Findings> {
        read_bundle(bytes, unknown)
    }

    /// As [`Bundle::parse`], from JSON already read.
    ///
    /// # Errors
    /// Every problem of form, not only the first.
    pub fn from_value(value: &Value) -> Result<Parsed, Findings> {
        Self::parse(&value.to_string())
    }
}

/// Reads a whole policy.
fn read_bundle(bytes: &[u8], unknown: Unknown) -> Result<Parsed, Findings> {
    let text = text(bytes)?;
    let form = serde_json::from_str::<Form>(text).map_err(|e| Findings::one(json_error(&e)))?;
    let mut findings = Findings::default();
    let mut policy = Policy {
        reader: Reader::new(&mut findings, unknown),
        parsed: Parsed::default(),
        seen: HashSet::new(),
    };
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let result = match form {
        Form::Other(got) => return Err(Findings::one(Error::NotABundle { got })),
        Form::List => deserializer.deserialize_seq(Resources { policy: &mut policy }),
        Form::Answer => deserializer.deserialize_map(Answer { policy: &mut policy }),
        Form::Resource => {
            // The text was found to be JSON.
            serde_json::from_str::<&RawValue>(text).and_then(|raw| policy.by_reference(raw, 0))
        }
        Form::Collections => deserializer.deserialize_map(Collections { policy: &mut policy }),
    };
    let mut parsed = policy.parsed;
    if let Err(e) = result
        && findings.errors.is_empty()
    {
        findings.error(|| json_error(&e));
    }
    if !findings.errors.is_empty() {
        return Err(findings);
    }
    (parsed.warnings, parsed.more_warnings) = (findings.warnings, findings.more_warnings);
    Ok(parsed)
}

/// A list of resources that say where they belong.
struct Resources<'p, 'a> {
    policy: &'p mut Policy<'a>,
}

impl<'de> Visitor<'de> for Resources<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of resources")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let mut n = 0;
        while let Some(raw) = seq.next_element::<&'de RawValue>()? {
            self.policy.by_reference(raw, n).map_err(serde::de::Error::custom)?;
            n += 1;
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Resources<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

/// The API's answer to GET of a collection.
struct Answer<'p, 'a> {
    policy: &'p mut Policy<'a>,
}

impl<'de> Visitor<'de> for Answer<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a collection")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = false;
        while let Some(name) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            match name.to_ascii_lowercase().as_str() {
                "value" if seen => {
                    let twice =
                        || Error::DuplicateProperty { target: "the document".into(), name: "value".into() };
                    self.policy.reader.findings.error(twice);
                    map.next_value::<IgnoredAny>()?;
                }
                "value" => {
                    seen = true;
                    map.next_value_seed(Resources { policy: &mut *self.policy })?;
                }
                "nextlink" => {
                    map.next_value::<IgnoredAny>()?;
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    if let Err(error) = Collection::from_name(&name) {
                        self.policy.collection_error(error);
                    }
                }
            }
        }
        Ok(())
    }
}
