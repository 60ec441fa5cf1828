//! The envelope that every resource has, at the top of a collection or inside another resource.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeSeed, IntoDeserializer, MapAccess, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use crate::JsonText;

/// A resource: identity and bookkeeping around its properties (MS-NCNBI 2.2).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", bound(deserialize = "P: Deserialize<'de> + Default"))]
pub struct Resource<P> {
    /// The name the client chose: unique within its collection.
    #[serde(default)]
    pub resource_id: String,
    /// Path of this resource, as others refer to it: `/virtualNetworks/contoso`. Set by the daemon.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub resource_ref: String,
    /// GUID: a resource that is deleted and created again gets a new one. Set by the daemon.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub instance_id: String,
    /// Version of the content, `W/"guid"`, for `If-Match`. Set by the daemon.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub etag: String,
    /// Free labels; the daemon keeps and ignores them.
    #[schema(value_type = Option<Object>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<JsonText>,
    /// The client's own notes; the daemon keeps and ignores them.
    #[schema(value_type = Option<Object>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_metadata: Option<JsonText>,
    /// Properties of the document that this version does not know and has left out, by their path in the resource. Set
    /// by the daemon when it reads leniently.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ignored_properties: Vec<String>,
    /// The content.
    #[serde(default)]
    pub properties: Properties<P>,
}

impl<P> Resource<P> {
    /// A resource with identity and content; the daemon sets the rest.
    pub fn new(id: &str, spec: P) -> Self {
        Self {
            resource_id: id.to_owned(),
            resource_ref: String::new(),
            instance_id: String::new(),
            etag: String::new(),
            tags: None,
            resource_metadata: None,
            ignored_properties: Vec::new(),
            properties: Properties { spec, provisioning_state: None, configuration_state: None },
        }
    }

    /// What the client wants of this resource.
    pub fn spec(&self) -> &P {
        &self.properties.spec
    }
}

/// The properties object: the content that the client wants, and its state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Properties<P> {
    /// The content that the client wants.
    #[serde(flatten)]
    pub spec: P,
    /// Whether the daemon has accepted it. Set by the daemon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provisioning_state: Option<ProvisioningState>,
    /// Whether the host has applied it. Set by the daemon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration_state: Option<ConfigurationState>,
}

/// By hand: serde's `flatten` would copy all of the content before it reads it, at many times its size.
impl<'de, P: Deserialize<'de>> Deserialize<'de> for Properties<P> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Content<P>(PhantomData<P>);
        impl<'de, P: Deserialize<'de>> Visitor<'de> for Content<P> {
            type Value = Properties<P>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Properties<P>, A::Error> {
                let mut own = Own { map, provisioning_state: None, configuration_state: None };
                let spec = P::deserialize(MapAccessDeserializer::new(&mut own))?;
                let Own { provisioning_state, configuration_state, .. } = own;
                Ok(Properties { spec, provisioning_state, configuration_state })
            }
        }
        deserializer.deserialize_map(Content(PhantomData))
    }
}

/// A map without the two properties that the daemon sets, which it keeps.
struct Own<A> {
    map: A,
    provisioning_state: Option<ProvisioningState>,
    configuration_state: Option<ConfigurationState>,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for &mut Own<A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        while let Some(key) = self.map.next_key::<std::borrow::Cow<'de, str>>()? {
            match key.as_ref() {
                "provisioningState" => self.provisioning_state = self.map.next_value()?,
                "configurationState" => self.configuration_state = self.map.next_value()?,
                _ => return seed.deserialize(key.into_deserializer()).map(Some),
            }
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.map.next_value_seed(seed)
    }
}
/// Progress of a change in the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum ProvisioningState {
    /// Being changed.
    Updating,
    /// Accepted.
    Succeeded,
    /// Refused or not applied.
    Failed,
    /// Being removed.
    Deleting,
}

/// The host's state of applying it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ConfigurationState {
    /// `Success`, `Warning`, `Failure` or `InProgress`.
    pub status: String,
    /// One sentence each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub detailed_info: Vec<String>,
}
