//! A policy while its resources are read.

use std::collections::HashSet;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::lenient::{Reader, Unknown};
use crate::names::short;
use crate::{AnyResource, Collection, Error, Parsed, ResourcePath, Warning, json_error};

/// A policy in the making.
pub(super) struct Policy<'a> {
    pub(super) reader: Reader<'a>,
    pub(super) parsed: Parsed,
    pub(super) seen: HashSet<(Collection, String)>,
}

impl Policy<'_> {
    /// Reads one resource of a collection.
    pub(super) fn add<'de, D: Deserializer<'de>>(
        &mut self,
        deserializer: D,
        collection: Collection,
        default_id: Option<&str>,
    ) -> Result<(), D::Error> {
        // The singleton's name may be left out.
        let default_id = match collection {
            Collection::VirtualNetworkManager => default_id.or(Some("configuration")),
            _ => default_id,
        };
        let parent = format!("/{}", collection.name());
        let (id, right) = self.reader.resource(deserializer, collection.shape(), &parent, default_id)?;
        if let Some(id) = &id
            && !self.seen.insert((collection, id.to_ascii_lowercase()))
        {
            let target = format!("{parent}/{}", short(id));
            self.reader.findings.error(|| Error::DuplicateId { target });
        }
        if right && self.reader.findings.errors.is_empty() {
            match AnyResource::from_text(collection, self.reader.text()) {
                Ok(resource) => self.parsed.bundle.push(resource),
                Err(e) => self.reader.findings.error(|| json_error(&e)),
            }
        }
        Ok(())
    }

    /// Reads a resource that says where it belongs.
    pub(super) fn by_reference(&mut self, raw: &RawValue, n: usize) -> Result<(), serde_json::Error> {
        let reference = serde_json::from_str::<Reference>(raw.get()).unwrap_or_default();
        let findings = &mut *self.reader.findings;
        match reference.0.as_deref().map(ResourcePath::parse) {
            None => findings
                .error(|| Error::BadPath { path: format!("(resource {n} of the list has no resourceRef)") }),
            Some(Ok(path)) if path.children.is_empty() => {
                let mut deserializer = serde_json::Deserializer::from_str(raw.get());
                self.add(&mut deserializer, path.collection, Some(&path.id))?;
            }
            Some(Ok(path)) => findings.error(|| Error::BadPath { path: path.to_string() }),
            Some(Err(error)) => self.collection_error(error),
        }
        Ok(())
    }

    /// A collection that does not exist is left out where unknown properties are.
    pub(super) fn collection_error(&mut self, error: Error) {
        match (&error, self.reader.unknown) {
            (Error::UnknownCollection { name, .. }, Unknown::Ignored) => {
                let name = name.clone();
                self.reader.findings.warning(|| Warning {
                    message: format!("the collection \"{name}\" is not known and is left out"),
                    target: name,
                });
            }
            _ => self.reader.findings.error(|| error),
        }
    }
}

/// `resourceRef` of a resource.
#[derive(Default)]
struct Reference(Option<String>);

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = Reference;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Reference, A::Error> {
                let mut found = Reference::default();
                while let Some(name) = map.next_key::<std::borrow::Cow<'de, str>>()? {
                    if name.eq_ignore_ascii_case("resourceRef") {
                        let raw: &RawValue = map.next_value()?;
                        found.0 = serde_json::from_str(raw.get()).ok();
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(found)
            }
        }
        deserializer.deserialize_map(Names)
    }
}
