//! The desired policy as documents: resources in canonical JSON, with identity, etags and states.

use std::collections::BTreeMap;
use std::sync::Arc;

use culvert_api::lenient::{Findings, canonical};
use culvert_api::{Bundle, Collection, Parsed, ResourcePath, Shape};
use serde_json::{Map, Value, json};

use crate::Error;

/// Key of a top-level resource: its collection and lower-case id.
pub(crate) type Key = (Collection, String);

/// All resources. Cheap to copy: a change edits a copy, which replaces the original after the checks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Documents {
    all: BTreeMap<Key, Arc<Value>>,
}

/// What a client expects of a resource before its change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Precondition {
    /// `If-Match`: one of these etags; `*`: any.
    pub if_match: Option<String>,
    /// `If-None-Match: *`: it must not exist.
    pub if_none_match: bool,
}

/// Properties of the envelope that the daemon sets.
const OWN: [&str; 3] = ["resourceRef", "instanceId", "etag"];
/// Properties inside `properties` that the daemon sets.
const OWN_PROPERTIES: [&str; 2] = ["provisioningState", "configurationState"];

impl Documents {
    /// From the store.
    pub(crate) fn from_stored(all: BTreeMap<Key, Arc<Value>>) -> Self {
        Self { all }
    }

    /// Every top-level resource.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Key, &Arc<Value>)> {
        self.all.iter()
    }

    /// The resources of a collection.
    pub fn list(&self, collection: Collection) -> Vec<Arc<Value>> {
        self.all.iter().filter(|((c, _), _)| *c == collection).map(|(_, v)| v.clone()).collect()
    }

    /// As a typed policy.
    ///
    /// # Errors
    /// The documents are not what this version writes.
    pub fn bundle(&self) -> Result<Bundle, Error> {
        let mut object = Map::new();
        for ((collection, _), value) in &self.all {
            let list = object.entry(collection.name()).or_insert_with(|| json!([]));
            if let Value::Array(list) = list {
                list.push(value.as_ref().clone());
            }
        }
        Ok(Bundle::from_value(&Value::Object(object)).map_err(Error::Form)?.bundle)
    }

    /// A resource or child.
    pub fn get(&self, path: &ResourcePath) -> Option<&Value> {
        let mut at: &Value = self.all.get(&key(path))?;
        for (name, id) in &path.children {
            at = at.pointer(&format!("/properties/{name}"))?.as_array()?.iter().find(|c| has_id(c, id))?;
        }
        Some(at)
    }

    /// Creates or replaces a resource or child. Returns whether it is new, and warnings.
    ///
    /// # Errors
    /// The body cannot be read, its parent does not exist, or a precondition does not hold.
    pub fn put(
        &mut self,
        path: &ResourcePath,
        body: &Value,
        precondition: &Precondition,
    ) -> Result<(bool, Vec<culvert_api::Warning>), Error> {
        let existing = self.get(path);
        precondition.check(path, existing)?;
        let is_new = existing.is_none();
        let id = path.children.last().map_or(&path.id, |(_, id)| id);
        let mut findings = Findings::default();
        let mut value = canonical(body, shape_at(path), &path.to_string(), &mut findings);
        let Some(object) = value.as_object_mut() else {
            return Err(Error::Form(findings.errors));
        };
        match object.get("resourceId").and_then(Value::as_str) {
            Some(other) if !other.eq_ignore_ascii_case(id) => {
                return Err(Error::OtherId { path: path.clone(), body: other.to_owned() });
            }
            Some(_) => {}
            None => {
                object.insert("resourceId".into(), json!(id));
            }
        }
        object.entry("properties").or_insert_with(|| json!({}));
        if !findings.errors.is_empty() {
            return Err(Error::Form(findings.errors));
        }
        let top = if path.children.is_empty() { value } else { self.with_child(path, value)? };
        self.insert(path, &top)?;
        Ok((is_new, findings.warnings))
    }

    /// Deletes a resource or child. Returns whether it was there.
    ///
    /// # Errors
    /// A precondition does not hold.
    pub fn delete(&mut self, path: &ResourcePath, precondition: &Precondition) -> Result<bool, Error> {
        let Some(existing) = self.get(path) else { return Ok(false) };
        precondition.check(path, Some(existing))?;
        let Some(((name, id), parents)) = path.children.split_last() else {
            self.all.remove(&key(path));
            return Ok(true);
        };
        let mut top = self.top(path)?;
        let list = descend(&mut top, parents).and_then(|parent| child_list(parent, name));
        if let Some(list) = list {
            list.retain(|c| !has_id(c, id));
        }
        self.insert(path, &top)?;
        Ok(true)
    }

    /// Replaces the whole policy. `keep`: resources that it does not name stay.
    ///
    /// # Errors
    /// A resource cannot be read.
    pub fn put_bundle(&mut self, parsed: &Parsed, keep: bool) -> Result<(), Error> {
        let mut named = Vec::new();
        for (collection, value) in parsed.bundle.resources() {
            let id = value.get("resourceId").and_then(Value::as_str).unwrap_or_default();
            let path = ResourcePath::top(collection, id);
            named.push(key(&path));
            self.insert(&path, &value)?;
        }
        if !keep {
            named.sort();
            self.all.retain(|key, _| named.binary_search(key).is_ok());
        }
        Ok(())
    }

    fn top(&self, path: &ResourcePath) -> Result<Value, Error> {
        let missing = || Error::NotFound { path: ResourcePath::top(path.collection, &path.id).to_string() };
        Ok(self.all.get(&key(path)).ok_or_else(missing)?.as_ref().clone())
    }

    fn with_child(&self, path: &ResourcePath, child: Value) -> Result<Value, Error> {
        let mut top = self.top(path)?;
        let Some(((name, id), parents)) = path.children.split_last() else { return Ok(top) };
        let parent = descend(&mut top, parents).and_then(|p| child_list(p, name));
        let Some(list) = parent else {
            let mut parent = path.clone();
            parent.children.pop();
            return Err(Error::NotFound { path: parent.to_string() });
        };
        match list.iter_mut().find(|c| has_id(c, id)) {
            Some(place) => *place = child,
            None => list.push(child),
        }
        Ok(top)
    }

    /// Inserts a top-level resource, with new etags wherever its content changed.
    fn insert(&mut self, path: &ResourcePath, value: &Value) -> Result<(), Error> {
        let top = ResourcePath::top(path.collection, &path.id);
        let key = key(&top);
        // Converted to the types and back, so that omitted properties make no difference.
        let parsed = Bundle::from_value(&json!({ path.collection.name(): [value] })).map_err(Error::Form)?;
        let Some((_, mut value)) = parsed.bundle.resources().pop() else { return Ok(()) };
        let old = self.all.get(&key).cloned();
        stamp(&mut value, old.as_deref(), &top, path.collection.children());
        if old.as_deref() != Some(&value) {
            self.all.insert(key, Arc::new(value));
        }
        Ok(())
    }
}

impl Precondition {
    fn check(&self, path: &ResourcePath, existing: Option<&Value>) -> Result<(), Error> {
        let etag = existing.and_then(|v| v.get("etag")).and_then(Value::as_str);
        let failed =
            || Err(Error::Precondition { path: path.clone(), etag: etag.unwrap_or("none").to_owned() });
        if self.if_none_match && existing.is_some() {
            return failed();
        }
        match &self.if_match {
            Some(wanted) if wanted.trim() == "*" => {
                if existing.is_none() {
                    failed()
                } else {
                    Ok(())
                }
            }
            Some(wanted) => {
                if wanted.split(',').any(|w| Some(w.trim()) == etag) {
                    Ok(())
                } else {
                    failed()
                }
            }
            None => Ok(()),
        }
    }
}

fn key(path: &ResourcePath) -> Key {
    (path.collection, path.id.to_ascii_lowercase())
}

fn has_id(value: &Value, id: &str) -> bool {
    value.get("resourceId").and_then(Value::as_str).is_some_and(|have| have.eq_ignore_ascii_case(id))
}

fn descend<'v>(top: &'v mut Value, children: &[(&'static str, String)]) -> Option<&'v mut Value> {
    let mut at = top;
    for (name, id) in children {
        at = child_list(at, name)?.iter_mut().find(|c| has_id(c, id))?;
    }
    Some(at)
}

/// The list of children of this name, created if missing.
fn child_list<'v>(parent: &'v mut Value, name: &str) -> Option<&'v mut Vec<Value>> {
    let properties = parent.as_object_mut()?.entry("properties").or_insert_with(|| json!({}));
    properties.as_object_mut()?.entry(name).or_insert_with(|| json!([])).as_array_mut()
}

/// The shape of the resource or child at this path.
fn shape_at(path: &ResourcePath) -> &'static Shape {
    let mut shape = path.collection.shape();
    for (name, _) in &path.children {
        let below = match shape {
            Shape::Object(envelope) => match envelope.get("properties") {
                Some((_, Shape::Object(properties))) => properties.get(&name.to_ascii_lowercase()),
                _ => None,
            },
            _ => None,
        };
        match below {
            Some((_, Shape::List(element))) => shape = element,
            _ => return &Shape::Any,
        }
    }
    shape
}

/// Sets the daemon's properties of a resource and its children. Equal content keeps identity and etag.
fn stamp(value: &mut Value, old: Option<&Value>, path: &ResourcePath, children: &[&'static str]) {
    if let Some((name, below)) = children.split_first()
        && let Some(list) = value.pointer_mut(&format!("/properties/{name}")).and_then(Value::as_array_mut)
    {
        for child in list {
            let id = child.get("resourceId").and_then(Value::as_str).unwrap_or_default().to_owned();
            let before = old.and_then(|o| {
                o.pointer(&format!("/properties/{name}"))?.as_array()?.iter().find(|c| has_id(c, &id))
            });
            stamp(child, before, &path.child(name, &id), below);
        }
    }
    let text = |v: &Value, name: &str| v.get(name).and_then(Value::as_str).map(str::to_owned);
    let same = old.is_some_and(|old| content(old) == content(value));
    let instance =
        old.and_then(|o| text(o, "instanceId")).unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
    let etag = old
        .filter(|_| same)
        .and_then(|o| text(o, "etag"))
        .unwrap_or_else(|| format!("W/\"{}\"", uuid::Uuid::new_v4()));
    let Some(object) = value.as_object_mut() else { return };
    object.insert("resourceRef".into(), json!(path.to_string()));
    object.insert("instanceId".into(), json!(instance));
    object.insert("etag".into(), json!(etag));
    if let Some(properties) = object.entry("properties").or_insert_with(|| json!({})).as_object_mut() {
        properties.insert("provisioningState".into(), json!("Succeeded"));
        properties.remove("configurationState");
    }
}

/// A resource and its children without the daemon's properties.
fn content(value: &Value) -> Value {
    match value {
        Value::Object(object) => {
            let own = |name: &str| OWN.contains(&name) || OWN_PROPERTIES.contains(&name);
            // A reference object has only resourceRef, which is the client's.
            let is_reference = object.len() == 1 && object.contains_key("resourceRef");
            let kept = object.iter().filter(|(name, _)| is_reference || !own(name));
            Value::Object(kept.map(|(name, v)| (name.clone(), content(v))).collect())
        }
        Value::Array(list) => Value::Array(list.iter().map(content).collect()),
        other => other.clone(),
    }
}
