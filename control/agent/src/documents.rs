//! The desired policy as documents: resources with identity, etags and states.

use std::collections::BTreeMap;

use culvert_api::{
    AnyResource, Bundle, Collection, Findings, Node, ResourcePath, Unknown, json_error, read_child,
    read_resource,
};
use serde_json::Value;

use crate::Error;

/// Key of a top-level resource: its collection and lower-case id.
pub(crate) type Key = (Collection, String);

/// All resources. Cheap to copy: a change edits a copy, which replaces the original after the checks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Documents {
    all: BTreeMap<Key, AnyResource>,
}

/// What a client expects of a resource before its change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Precondition {
    /// `If-Match`: one of these etags; `*`: any.
    pub if_match: Option<String>,
    /// `If-None-Match`: none of these etags; `*`: it must not exist.
    pub if_none_match: Option<String>,
}

impl Documents {
    /// From the store.
    pub(crate) fn from_stored(all: BTreeMap<Key, AnyResource>) -> Self {
        Self { all }
    }

    /// Every top-level resource.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Key, &AnyResource)> {
        self.all.iter()
    }

    /// A top-level resource.
    pub(crate) fn top(&self, key: &Key) -> Option<&AnyResource> {
        self.all.get(key)
    }

    /// The resources of a collection.
    pub fn list(&self, collection: Collection) -> impl Iterator<Item = &AnyResource> {
        self.all
            .range((collection, String::new())..)
            .map(|(_, r)| r)
            .take_while(move |r| r.collection() == collection)
    }

    /// As a policy. The resources are shared, not copied.
    pub fn bundle(&self) -> Bundle {
        let mut bundle = Bundle::default();
        self.all.values().cloned().for_each(|r| bundle.push(r));
        bundle
    }

    /// A resource or child.
    pub fn node(&self, path: &ResourcePath) -> Option<&dyn Node> {
        let top = self.all.get(&key(path))?.node();
        path.children.iter().try_fold(top, |at, (_, id)| at.child(id))
    }

    /// A resource or child, as JSON.
    pub fn get(&self, path: &ResourcePath) -> Option<Value> {
        self.node(path).map(Node::json)
    }

    /// Creates or replaces a resource or child. Returns whether it is new, and warnings.
    ///
    /// # Errors
    /// The body cannot be read, its parent does not exist, or a precondition does not hold.
    pub fn put(
        &mut self,
        path: &ResourcePath,
        body: &[u8],
        unknown: Unknown,
        precondition: &Precondition,
    ) -> Result<(bool, Findings), Error> {
        // RFC 9110 13.2.1: a precondition counts only where the request would succeed without it.
        let existing = self.node(path);
        let is_new = existing.is_none();
        let checked = precondition.check(path, existing.map(Node::etag));
        let Some((_, parents)) = path.children.split_last() else {
            let (resource, findings) = read_resource(body, path, unknown).map_err(Error::Form)?;
            same_id(path, &path.id, resource.id())?;
            checked?;
            self.insert(key(path), resource);
            return Ok((is_new, findings));
        };
        let mut top = self.parent(path)?;
        let parent = descend(top.node_mut(), parents).ok_or_else(|| missing_parent(path))?;
        let (text, findings) = read_child(body, path, unknown).map_err(Error::Form)?;
        let broken = |e: serde_json::Error| Error::Form(Findings::one(json_error(&e)));
        let name: Name = serde_json::from_slice(&text).map_err(broken)?;
        same_id(path, path.children.last().map_or("", |(_, id)| id), &name.resource_id)?;
        checked?;
        parent.put_child(&text).map_err(broken)?;
        self.insert(key(path), top);
        Ok((is_new, findings))
    }

    /// Deletes a resource or child. Returns whether it was there.
    ///
    /// # Errors
    /// A precondition does not hold.
    pub fn delete(&mut self, path: &ResourcePath, precondition: &Precondition) -> Result<bool, Error> {
        let existing = self.node(path).map(Node::etag);
        precondition.check(path, existing)?;
        if existing.is_none() {
            return Ok(false);
        }
        let Some(((_, id), parents)) = path.children.split_last() else {
            self.all.remove(&key(path));
            return Ok(true);
        };
        let mut top = self.parent(path)?;
        if let Some(parent) = descend(top.node_mut(), parents) {
            parent.remove_child(id);
        }
        self.insert(key(path), top);
        Ok(true)
    }

    /// Replaces the whole policy. `keep`: resources that it does not name stay.
    pub fn put_bundle(&mut self, bundle: Bundle, keep: bool) {
        let mut named = Vec::new();
        for resource in bundle.into_resources() {
            let key = (resource.collection(), resource.id().to_ascii_lowercase());
            named.push(key.clone());
            self.insert(key, resource);
        }
        if !keep {
            named.sort();
            self.all.retain(|key, _| named.binary_search(key).is_ok());
        }
    }

    fn parent(&self, path: &ResourcePath) -> Result<AnyResource, Error> {
        let missing = || Error::NotFound { path: ResourcePath::top(path.collection, &path.id).to_string() };
        self.all.get(&key(path)).cloned().ok_or_else(missing)
    }

    /// Inserts a top-level resource, with new etags wherever its content changed.
    fn insert(&mut self, key: Key, mut resource: AnyResource) {
        let old = self.all.get(&key);
        resource.stamp(old, &mut || uuid::Uuid::new_v4().to_string());
        if old != Some(&resource) {
            self.all.insert(key, resource);
        }
    }
}

/// The name in a resource's text.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Name {
    resource_id: String,
}

impl Precondition {
    /// Checks it for a resource with this etag; none: it does not exist.
    pub(crate) fn check(&self, path: &ResourcePath, etag: Option<&str>) -> Result<(), Error> {
        let failed = self.if_match.as_deref().is_some_and(|tags| !lists(tags, etag))
            || self.if_none_match.as_deref().is_some_and(|tags| lists(tags, etag));
        if failed {
            return Err(Error::Precondition { path: path.clone(), etag: etag.unwrap_or("none").to_owned() });
        }
        Ok(())
    }
}

/// Whether a list of etags, or `*`, names an existing resource (RFC 9110 13.1). All our etags are weak, as MS-NCNBI's
/// are, so that `W/` makes no difference.
pub(crate) fn lists(tags: &str, etag: Option<&str>) -> bool {
    let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    etag.is_some_and(|etag| tags.trim() == "*" || tags.split(',').any(|tag| opaque(tag) == opaque(etag)))
}

fn same_id(path: &ResourcePath, wanted: &str, found: &str) -> Result<(), Error> {
    if found.eq_ignore_ascii_case(wanted) {
        return Ok(());
    }
    Err(Error::OtherId { path: path.clone(), body: found.to_owned() })
}

fn missing_parent(path: &ResourcePath) -> Error {
    let mut parent = path.clone();
    parent.children.pop();
    Error::NotFound { path: parent.to_string() }
}

pub(crate) fn key(path: &ResourcePath) -> Key {
    (path.collection, path.id.to_ascii_lowercase())
}

fn descend<'n>(top: &'n mut dyn Node, children: &[(&'static str, String)]) -> Option<&'n mut dyn Node> {
    children.iter().try_fold(top, |at, (_, id)| at.child_mut(id))
}
