//! A top-level resource of any collection.

use std::sync::Arc;

use serde_json::Value;

use crate::tree::{Node, stamp};
use crate::{
    AccessControlList, Collection, LogicalNetwork, NetworkInterface, NetworkManager, Resource, Server,
    VirtualNetwork,
};

/// A top-level resource of any collection. Cheap to copy.
#[derive(Clone, Debug)]
pub enum AnyResource {
    /// Of `virtualNetworkManager`.
    VirtualNetworkManager(Arc<Resource<NetworkManager>>),
    /// Of `logicalNetworks`.
    LogicalNetworks(Arc<Resource<LogicalNetwork>>),
    /// Of `servers`.
    Servers(Arc<Resource<Server>>),
    /// Of `accessControlLists`.
    AccessControlLists(Arc<Resource<AccessControlList>>),
    /// Of `virtualNetworks`.
    VirtualNetworks(Arc<Resource<VirtualNetwork>>),
    /// Of `networkInterfaces`.
    NetworkInterfaces(Arc<Resource<NetworkInterface>>),
}

impl PartialEq for AnyResource {
    fn eq(&self, other: &Self) -> bool {
        if self.is_same(other) {
            return true;
        }
        match (self, other) {
            (Self::VirtualNetworkManager(a), Self::VirtualNetworkManager(b)) => a == b,
            (Self::LogicalNetworks(a), Self::LogicalNetworks(b)) => a == b,
            (Self::Servers(a), Self::Servers(b)) => a == b,
            (Self::AccessControlLists(a), Self::AccessControlLists(b)) => a == b,
            (Self::VirtualNetworks(a), Self::VirtualNetworks(b)) => a == b,
            (Self::NetworkInterfaces(a), Self::NetworkInterfaces(b)) => a == b,
            _ => false,
        }
    }
}

/// The same expression for the resource of each kind.
macro_rules! each {
    ($any:expr, $resource:ident => $result:expr) => {
        match $any {
            AnyResource::VirtualNetworkManager($resource) => $result,
            AnyResource::LogicalNetworks($resource) => $result,
            AnyResource::Servers($resource) => $result,
            AnyResource::AccessControlLists($resource) => $result,
            AnyResource::VirtualNetworks($resource) => $result,
            AnyResource::NetworkInterfaces($resource) => $result,
        }
    };
}

impl AnyResource {
    /// From canonical JSON, as a store or [`crate::read_resource`] has it.
    ///
    /// # Errors
    /// It is not canonical.
    pub fn from_text(collection: Collection, text: &[u8]) -> Result<Self, serde_json::Error> {
        Ok(match collection {
            Collection::VirtualNetworkManager => Self::VirtualNetworkManager(serde_json::from_slice(text)?),
            Collection::LogicalNetworks => Self::LogicalNetworks(serde_json::from_slice(text)?),
            Collection::Servers => Self::Servers(serde_json::from_slice(text)?),
            Collection::AccessControlLists => Self::AccessControlLists(serde_json::from_slice(text)?),
            Collection::VirtualNetworks => Self::VirtualNetworks(serde_json::from_slice(text)?),
            Collection::NetworkInterfaces => Self::NetworkInterfaces(serde_json::from_slice(text)?),
        })
    }

    /// Canonical JSON.
    ///
    /// # Errors
    /// None that a resource which was read can cause.
    pub fn to_text(&self) -> Result<Vec<u8>, serde_json::Error> {
        each!(self, resource => serde_json::to_vec(resource))
    }

    /// As JSON.
    pub fn json(&self) -> Value {
        self.node().json()
    }

    /// Its collection.
    pub fn collection(&self) -> Collection {
        match self {
            AnyResource::VirtualNetworkManager(_) => Collection::VirtualNetworkManager,
            AnyResource::LogicalNetworks(_) => Collection::LogicalNetworks,
            AnyResource::Servers(_) => Collection::Servers,
            AnyResource::AccessControlLists(_) => Collection::AccessControlLists,
            AnyResource::VirtualNetworks(_) => Collection::VirtualNetworks,
            AnyResource::NetworkInterfaces(_) => Collection::NetworkInterfaces,
        }
    }

    /// Its name.
    pub fn id(&self) -> &str {
        self.node().id()
    }

    /// Its path; empty until it is stamped.
    pub fn path(&self) -> &str {
        each!(self, resource => &resource.resource_ref)
    }

    /// The resource, whatever its kind.
    pub fn node(&self) -> &dyn Node {
        each!(self, resource => resource.as_ref())
    }

    /// The resource, for a change: a copy if others have it, too.
    pub fn node_mut(&mut self) -> &mut dyn Node {
        each!(self, resource => Arc::make_mut(resource) as &mut Resource<_>)
    }

    /// Whether both are the same copy.
    pub fn is_same(&self, other: &Self) -> bool {
        fn at(any: &AnyResource) -> *const u8 {
            each!(any, resource => Arc::as_ptr(resource).cast())
        }
        at(self) == at(other)
    }

    /// Sets what the daemon sets: path, identity, etag and state. Content that equals `old` keeps identity and etag; `fresh`
    /// makes GUIDs.
    pub fn stamp(&mut self, old: Option<&Self>, fresh: &mut dyn FnMut() -> String) {
        macro_rules! stamp_each {
            ($($kind:ident),*) => {
                match self {$(
                    Self::$kind(new) => {
                        let old = old.and_then(|o| if let Self::$kind(o) = o { Some(o.as_ref()) } else { None });
                        let path = format!("/{}/{}", Collection::$kind.name(), new.resource_id);
                        stamp(Arc::make_mut(new), old, &path, fresh);
                    }
                )*}
            };
        }
        stamp_each!(
            VirtualNetworkManager,
            LogicalNetworks,
            Servers,
            AccessControlLists,
            VirtualNetworks,
            NetworkInterfaces
        );
    }
}
