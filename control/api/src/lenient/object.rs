//! Objects: known properties by their canonical names, unknown ones refused or left out.

use std::collections::BTreeMap;

use serde::de::MapAccess;

use super::Unknown;
use super::raw::Raw;
use super::reader::Reader;
use super::seen::{Key, Names};
use super::value::Value;
use crate::collection::valid_id;
use crate::names::{is_not_implemented, nearest, short};
use crate::{Error, MAX_LISTED, Shape, Warning};

/// Properties of the envelope that the daemon sets: whatever a document says about them is skipped.
const OWN: [&str; 3] = ["resourceRef", "instanceId", "etag"];
/// Properties inside `properties` that the daemon sets.
const OWN_PROPERTIES: [&str; 2] = ["provisioningState", "configurationState"];
/// The list of properties that an earlier reading left out.
const IGNORED: &str = "ignoredProperties";

type Properties = BTreeMap<String, (String, Shape)>;

impl Reader<'_> {
    /// Reads an object. Returns whether it was written: always.
    pub(super) fn object<'de, A: MapAccess<'de>>(
        &mut self,
        mut map: A,
        properties: &Properties,
    ) -> Result<bool, A::Error> {
        let is_resource = properties.contains_key("resourceid");
        if is_resource {
            self.count()?;
        }
        let default_id = if is_resource { self.default_id.take() } else { None };
        let place = self.target.len();
        let mut seen: Vec<&str> = Vec::new();
        let mut unknown = Names::default();
        let mut id = None;
        let outer = is_resource.then(|| std::mem::take(&mut self.ignored));
        if is_resource {
            self.ignored_at = place;
        }
        let ignored_at = self.ignored_at;
        self.write(b"{");
        let start = self.out.len();
        while let Some(key) = map.next_key_seed(Key)? {
            let Some((name, shape)) = properties.get(&key.to_ascii_lowercase()) else {
                self.unknown(&key, properties, unknown.is_new(&key));
                map.next_value_seed(Raw { reader: &mut *self, written: false })?;
                continue;
            };
            if seen.contains(&name.as_str()) {
                let target = &self.target;
                self.findings
                    .error(|| Error::DuplicateProperty { target: target.clone(), name: name.clone() });
                map.next_value_seed(Raw { reader: &mut *self, written: false })?;
                continue;
            }
            seen.push(name);
            if is_resource && OWN.contains(&name.as_str()) || OWN_PROPERTIES.contains(&name.as_str()) {
                map.next_value_seed(Raw { reader: &mut *self, written: false })?;
                continue;
            }
            let mark = self.out.len();
            if mark > start {
                self.write(b",");
            }
            self.write_json(name);
            self.write(b":");
            self.target.push('.');
            self.target.push_str(name);
            let value = self.out.len();
            let written = map.next_value_seed(Value { reader: &mut *self, shape })?;
            self.target.truncate(place);
            self.ignored_at = ignored_at;
            if written && is_resource && name == "resourceId" {
                id = Some(self.last_text.clone());
            }
            if written && is_resource && name == IGNORED {
                let listed: Vec<String> =
                    serde_json::from_slice(self.out.get(value..).unwrap_or_default()).unwrap_or_default();
                self.ignored.extend(listed);
            }
            if !written || is_resource && name == IGNORED {
                self.out.truncate(mark);
            }
        }
        if let Some(outer) = outer {
            self.end_resource(id, default_id, start);
            self.ignored = outer;
        }
        self.write(b"}");
        Ok(true)
    }

    /// Ends a resource: its name, and what was left out of it.
    fn end_resource(&mut self, id: Option<String>, default_id: Option<String>, start: usize) {
        let named = id.is_some();
        let id = id.or(default_id);
        match &id {
            None => {
                let target = &self.target;
                self.findings.error(|| Error::MissingId { target: target.clone() });
            }
            Some(id) if !valid_id(id) => {
                let target = &self.target;
                self.findings.error(|| Error::BadId { target: target.clone(), value: short(id) });
            }
            Some(_) => {}
        }
        if let (false, Some(id)) = (named, &id) {
            self.comma(start);
            self.write(b"\"resourceId\":");
            self.write_json(id);
        }
        let mut ignored = std::mem::take(&mut self.ignored);
        if !ignored.is_empty() {
            ignored.sort_unstable();
            ignored.dedup();
            ignored.truncate(MAX_LISTED);
            self.comma(start);
            self.write(b"\"ignoredProperties\":");
            self.write_json(&ignored);
        }
        self.last_id = id;
    }

    fn comma(&mut self, start: usize) {
        if self.out.len() > start {
            self.write(b",");
        }
    }

    fn unknown(&mut self, name: &str, properties: &Properties, is_new: bool) {
        let target = &self.target;
        if !is_new {
            self.findings.error(|| Error::DuplicateProperty { target: target.clone(), name: short(name) });
            return;
        }
        let implemented = !is_not_implemented(name);
        let what = if implemented { "not known here" } else { "not implemented" };
        match self.unknown {
            Unknown::Refused => self.findings.error(|| Error::UnknownProperty {
                target: target.clone(),
                name: short(name),
                what,
                near: nearest(name, properties.values().map(|(known, _)| known.as_str()))
                    .filter(|_| implemented)
                    .map(str::to_owned),
            }),
            Unknown::Ignored => {
                self.findings.warning(|| Warning {
                    target: target.clone(),
                    message: format!("the property \"{}\" is {what} and is left out", short(name)),
                });
                if self.ignored.len() < MAX_LISTED {
                    let place = target.get(self.ignored_at..).unwrap_or_default();
                    self.ignored.push(format!("{place}.{}", short(name)).trim_start_matches('.').to_owned());
                }
            }
        }
    }
}
