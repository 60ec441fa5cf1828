//! A bundle: a whole policy as one document.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::collection::valid_id;
use crate::lenient::{Findings, canonical, describe, resource_id};
use crate::view::ProgressView;
use crate::{
    AccessControlList, Collection, Error, LogicalNetwork, NetworkInterface, NetworkManager, Resource,
    ResourcePath, Server, VirtualNetwork, Warning,
};

/// A whole policy: every collection with its resources.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Bundle {
    /// At most one resource, `configuration`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub virtual_network_manager: Vec<Resource<NetworkManager>>,
    /// Provider networks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub logical_networks: Vec<Resource<LogicalNetwork>>,
    /// Hosts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub servers: Vec<Resource<Server>>,
    /// ACLs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub access_control_lists: Vec<Resource<AccessControlList>>,
    /// Tenants' networks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub virtual_networks: Vec<Resource<VirtualNetwork>>,
    /// Virtual machines' interfaces.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub network_interfaces: Vec<Resource<NetworkInterface>>,
}

/// A document that could be read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parsed {
    /// The policy.
    pub bundle: Bundle,
    /// What was left out of it.
    pub warnings: Vec<Warning>,
}

/// What applying a bundle does to resources that it does not name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ApplyMode {
    /// They are deleted: the bundle is the whole policy.
    #[default]
    Replace,
    /// They stay.
    Merge,
}

/// What applying a bundle did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ApplyReply {
    /// Paths of new resources.
    pub created: Vec<String>,
    /// Paths of changed resources.
    pub updated: Vec<String>,
    /// Paths of removed resources.
    pub deleted: Vec<String>,
    /// How many resources stayed as they were.
    pub unchanged: usize,
    /// The policy's version on this host: grows with every change.
    pub version: u64,
    /// Whether the datapath carries it out already.
    pub applied: bool,
    /// Why it does not; may be empty.
    pub problem: String,
    /// Which vports and uplinks do not do yet what the policy asks.
    pub progress: ProgressView,
    /// What was left out, and what is odd.
    pub warnings: Vec<Warning>,
}

impl Bundle {
    /// Reads a document: an object of collections, or a list of resources that say where they belong by `resourceRef`.
    ///
    /// # Errors
    /// Every problem of form, not only the first.
    pub fn parse(text: &str) -> Result<Parsed, Vec<Error>> {
        let value = serde_json::from_str(text).map_err(|e| vec![Error::NotJson { detail: e.to_string() }])?;
        Self::from_value(&value)
    }

    /// As [`Bundle::parse`], from JSON already read.
    ///
    /// # Errors
    /// Every problem of form, not only the first.
    pub fn from_value(value: &Value) -> Result<Parsed, Vec<Error>> {
        let mut findings = Findings::default();
        let resources = match value {
            Value::Object(object) => from_object(object, &mut findings),
            Value::Array(list) => from_list(list, &mut findings),
            other => return Err(vec![Error::NotABundle { got: describe(other) }]),
        };
        let mut out = Map::new();
        let mut seen = BTreeSet::new();
        for (collection, resource) in resources {
            let read = read_resource(collection, &resource, &mut findings);
            let id = resource_id(&read).unwrap_or_default().to_owned();
            if !id.is_empty() && !seen.insert((collection, id.to_ascii_lowercase())) {
                let target = ResourcePath::top(collection, &id).to_string();
                findings.errors.push(Error::DuplicateId { target });
            }
            if let Value::Array(list) =
                out.entry(collection.name()).or_insert_with(|| Value::Array(Vec::new()))
            {
                list.push(read);
            }
        }
        if !findings.errors.is_empty() {
            return Err(findings.errors);
        }
        let bundle = serde_json::from_value(Value::Object(out))
            .map_err(|e| vec![Error::NotJson { detail: e.to_string() }])?;
        Ok(Parsed { bundle, warnings: findings.warnings })
    }

    /// The policy's resources as JSON, each with its collection, in the order of [`Collection::ALL`].
    pub fn resources(&self) -> Vec<(Collection, Value)> {
        let value = serde_json::to_value(self).unwrap_or_default();
        Collection::ALL
            .into_iter()
            .flat_map(|c| {
                let list = value.get(c.name()).and_then(Value::as_array).cloned().unwrap_or_default();
                list.into_iter().map(move |r| (c, r))
            })
            .collect()
    }
}

/// The canonical form of one resource of `collection`, its ids and those of its children checked.
pub(crate) fn read_resource(collection: Collection, value: &Value, findings: &mut Findings) -> Value {
    let id = resource_id(value).unwrap_or("?");
    let target = format!("/{}/{id}", collection.name());
    let read = canonical(value, collection.shape(), &target, findings);
    check_ids(&read, collection.children(), &target, findings);
    read
}

fn check_ids(resource: &Value, children: &[&str], target: &str, findings: &mut Findings) {
    match resource_id(resource) {
        None => findings.errors.push(Error::MissingId { target: target.to_owned() }),
        Some(id) if !valid_id(id) => {
            findings.errors.push(Error::BadId { target: target.to_owned(), value: id.to_owned() });
        }
        Some(_) => {}
    }
    let Some((name, below)) = children.split_first() else { return };
    let Some(list) = resource.pointer(&format!("/properties/{name}")).and_then(Value::as_array) else {
        return;
    };
    let mut seen = BTreeSet::new();
    for child in list {
        let id = resource_id(child).unwrap_or("?");
        let target = format!("{target}/{name}/{id}");
        if id != "?" && !seen.insert(id.to_ascii_lowercase()) {
            findings.errors.push(Error::DuplicateId { target: target.clone() });
        }
        check_ids(child, below, &target, findings);
    }
}

fn from_object(object: &Map<String, Value>, findings: &mut Findings) -> Vec<(Collection, Value)> {
    let mut out = Vec::new();
    for (name, value) in object {
        // The singleton is also written with its whole path.
        let short = name.trim_matches('/');
        let short = if short.eq_ignore_ascii_case("virtualNetworkManager/configuration") {
            Collection::VirtualNetworkManager.name()
        } else {
            short
        };
        let collection = match Collection::from_name(short) {
            Ok(collection) => collection,
            // Comments and schema links are welcome in a file.
            Err(_) if name.starts_with(['$', '_']) => continue,
            Err(error) => {
                findings.errors.push(error);
                continue;
            }
        };
        let resources = match value {
            Value::Array(list) => list.clone(),
            Value::Null => Vec::new(),
            Value::Object(_) if collection == Collection::VirtualNetworkManager => vec![value.clone()],
            // A GET of the API answers {"value": [...]}.
            Value::Object(wrapped) if wrapped.get("value").is_some_and(Value::is_array) => {
                wrapped["value"].as_array().cloned().unwrap_or_default()
            }
            other => {
                findings.errors.push(Error::WrongType {
                    target: collection.name().to_owned(),
                    got: describe(other),
                    expected: "a list of resources".to_owned(),
                });
                continue;
            }
        };
        out.extend(resources.into_iter().map(|r| (collection, name_singleton(collection, r))));
    }
    out
}

fn from_list(list: &[Value], findings: &mut Findings) -> Vec<(Collection, Value)> {
    let mut out = Vec::new();
    for (n, value) in list.iter().enumerate() {
        let reference = value
            .as_object()
            .and_then(|o| o.iter().find(|(name, _)| name.eq_ignore_ascii_case("resourceRef")))
            .and_then(|(_, v)| v.as_str());
        let Some(reference) = reference else {
            findings
                .errors
                .push(Error::BadPath { path: format!("(resource {n} of the list has no resourceRef)") });
            continue;
        };
        match ResourcePath::parse(reference) {
            Ok(path) if path.children.is_empty() => {
                let mut value = value.clone();
                if resource_id(&value).is_none()
                    && let Some(object) = value.as_object_mut()
                {
                    object.insert("resourceId".into(), Value::String(path.id.clone()));
                }
                out.push((path.collection, value));
            }
            Ok(path) => findings.errors.push(Error::BadPath { path: path.to_string() }),
            Err(error) => findings.errors.push(error),
        }
    }
    out
}

/// `virtualNetworkManager` has one resource, whose name may be left out.
fn name_singleton(collection: Collection, mut value: Value) -> Value {
    if collection == Collection::VirtualNetworkManager
        && resource_id(&value).is_none()
        && let Some(object) = value.as_object_mut()
    {
        object.insert("resourceId".into(), Value::String("configuration".into()));
    }
    value
}
