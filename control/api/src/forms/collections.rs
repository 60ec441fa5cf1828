//! A policy as an object of collections.

use std::collections::HashSet;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::outermost::Form;
use super::policy::Policy;
use crate::names::short;
use crate::{Collection, Error};

/// An object of collections.
pub(super) struct Collections<'p, 'a> {
    pub(super) policy: &'p mut Policy<'a>,
}

impl<'de> Visitor<'de> for Collections<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of collections")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let policy = self.policy;
        let mut seen = HashSet::new();
        let mut others = crate::lenient::Names::default();
        while let Some(name) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            // The singleton is also written with its whole path.
            let trimmed = name.trim_matches('/');
            let trimmed = if trimmed.eq_ignore_ascii_case("virtualNetworkManager/configuration") {
                Collection::VirtualNetworkManager.name()
            } else {
                trimmed
            };
            let known = Collection::from_name(trimmed);
            let is_new = known.as_ref().map_or_else(|_| others.is_new(&name), |c| seen.insert(*c));
            if !is_new {
                let twice = || Error::DuplicateProperty { target: "the document".into(), name: short(&name) };
                policy.reader.findings.error(twice);
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            match known {
                Ok(collection) => map.next_value_seed(Members { policy: &mut *policy, collection })?,
                Err(error) => {
                    map.next_value::<IgnoredAny>()?;
                    // Comments and schema links are welcome in a file.
                    if !name.starts_with(['$', '_']) {
                        policy.collection_error(error);
                    }
                }
            }
        }
        Ok(())
    }
}

/// What an object of collections has for one collection.
struct Members<'p, 'a> {
    policy: &'p mut Policy<'a>,
    collection: Collection,
}

impl<'de> DeserializeSeed<'de> for Members<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let Members { policy, collection } = self;
        let raw = <&RawValue>::deserialize(deserializer)?;
        let mut inner = serde_json::Deserializer::from_str(raw.get());
        let result = match raw.get().as_bytes().first() {
            Some(b'[') => inner.deserialize_seq(List { policy: &mut *policy, collection }),
            Some(b'n') => Ok(()),
            Some(b'{') if has_value(raw.get()) => {
                inner.deserialize_map(Wrapped { policy: &mut *policy, collection })
            }
            Some(b'{') if collection == Collection::VirtualNetworkManager => {
                policy.add(&mut inner, collection, None)
            }
            first => {
                let got = if first == Some(&b'{') { "an object".to_owned() } else { short(raw.get()) };
                policy.reader.findings.error(|| Error::WrongType {
                    target: collection.name().to_owned(),
                    got,
                    expected: "a list of resources".to_owned(),
                });
                Ok(())
            }
        };
        result.map_err(serde::de::Error::custom)
    }
}

fn has_value(text: &str) -> bool {
    serde_json::from_str(text).is_ok_and(|form: Form| matches!(form, Form::Answer))
}

/// A list of resources of one collection.
struct List<'p, 'a> {
    policy: &'p mut Policy<'a>,
    collection: Collection,
}

impl<'de> Visitor<'de> for List<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of resources")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        struct One<'p, 'a> {
            policy: &'p mut Policy<'a>,
            collection: Collection,
        }
        impl<'de> DeserializeSeed<'de> for One<'_, '_> {
            type Value = ();
            fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
                self.policy.add(deserializer, self.collection, None)
            }
        }
        let List { policy, collection } = self;
        while seq.next_element_seed(One { policy: &mut *policy, collection })?.is_some() {}
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for List<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

/// A collection as GET answers it, inside an object of collections.
struct Wrapped<'p, 'a> {
    policy: &'p mut Policy<'a>,
    collection: Collection,
}

impl<'de> Visitor<'de> for Wrapped<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a collection")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Wrapped { policy, collection } = self;
        while let Some(name) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            if name.eq_ignore_ascii_case("value") {
                map.next_value_seed(List { policy: &mut *policy, collection })?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}
