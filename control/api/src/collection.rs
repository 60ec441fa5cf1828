//! The collections, and the paths of resources in them.

use std::fmt;

use utoipa::ToSchema;

use crate::names::{nearest, short};
use crate::resource::Resource;
use crate::{
    AccessControlList, Error, LogicalNetwork, NetworkInterface, NetworkManager, Server, Shape, VirtualNetwork,
};

/// A top-level collection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Collection {
    /// `virtualNetworkManager`: holds one resource, `configuration`.
    VirtualNetworkManager,
    /// `logicalNetworks`.
    LogicalNetworks,
    /// `servers`.
    Servers,
    /// `accessControlLists`.
    AccessControlLists,
    /// `virtualNetworks`.
    VirtualNetworks,
    /// `networkInterfaces`.
    NetworkInterfaces,
}

impl Collection {
    /// All of them, what is referred to before what refers.
    pub const ALL: [Collection; 6] = [
        Collection::VirtualNetworkManager,
        Collection::LogicalNetworks,
        Collection::Servers,
        Collection::AccessControlLists,
        Collection::VirtualNetworks,
        Collection::NetworkInterfaces,
    ];

    /// The name in paths and bundles.
    pub const fn name(self) -> &'static str {
        match self {
            Collection::VirtualNetworkManager => "virtualNetworkManager",
            Collection::LogicalNetworks => "logicalNetworks",
            Collection::Servers => "servers",
            Collection::AccessControlLists => "accessControlLists",
            Collection::VirtualNetworks => "virtualNetworks",
            Collection::NetworkInterfaces => "networkInterfaces",
        }
    }

    /// All names.
    pub fn names() -> Vec<&'static str> {
        Self::ALL.iter().map(|c| c.name()).collect()
    }

    /// From a name in any case.
    ///
    /// # Errors
    /// [`Error::UnknownCollection`].
    pub fn from_name(name: &str) -> Result<Self, Error> {
        Self::ALL.into_iter().find(|c| c.name().eq_ignore_ascii_case(name)).ok_or_else(|| {
            let near = nearest(name, Self::names()).map(str::to_owned);
            Error::UnknownCollection { name: short(name), known: Self::names().join(", "), near }
        })
    }

    /// The child collections: path of property names from the resource down.
    pub const fn children(self) -> &'static [&'static str] {
        match self {
            Collection::VirtualNetworkManager => &[],
            Collection::LogicalNetworks => &["subnets", "ipPools"],
            Collection::Servers => &["networkInterfaces"],
            Collection::AccessControlLists => &["aclRules"],
            Collection::VirtualNetworks => &["subnets"],
            Collection::NetworkInterfaces => &["ipConfigurations"],
        }
    }

    /// The form of one resource of this collection.
    pub fn shape(self) -> &'static Shape {
        macro_rules! cached {
            ($t:ty) => {{
                static SHAPE: std::sync::OnceLock<Shape> = std::sync::OnceLock::new();
                SHAPE.get_or_init(|| Shape::of::<Resource<$t>>())
            }};
        }
        match self {
            Collection::VirtualNetworkManager => cached!(NetworkManager),
            Collection::LogicalNetworks => cached!(LogicalNetwork),
            Collection::Servers => cached!(Server),
            Collection::AccessControlLists => cached!(AccessControlList),
            Collection::VirtualNetworks => cached!(VirtualNetwork),
            Collection::NetworkInterfaces => cached!(NetworkInterface),
        }
    }

    /// Schema names and schemas of this collection's resources, for the OpenAPI document.
    pub fn schemas(self) -> (String, Vec<(String, utoipa::openapi::RefOr<utoipa::openapi::Schema>)>) {
        fn of<T: ToSchema>() -> (String, Vec<(String, utoipa::openapi::RefOr<utoipa::openapi::Schema>)>) {
            let mut all = Vec::new();
            T::schemas(&mut all);
            all.push((T::name().into_owned(), T::schema()));
            (T::name().into_owned(), all)
        }
        match self {
            Collection::VirtualNetworkManager => of::<Resource<NetworkManager>>(),
            Collection::LogicalNetworks => of::<Resource<LogicalNetwork>>(),
            Collection::Servers => of::<Resource<Server>>(),
            Collection::AccessControlLists => of::<Resource<AccessControlList>>(),
            Collection::VirtualNetworks => of::<Resource<VirtualNetwork>>(),
            Collection::NetworkInterfaces => of::<Resource<NetworkInterface>>(),
        }
    }
}

/// Path of a resource: a collection, an id, and pairs of child collection and id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourcePath {
    /// The top-level collection.
    pub collection: Collection,
    /// The top-level resource's id.
    pub id: String,
    /// Children below it, outermost first: canonical collection name and id.
    pub children: Vec<(&'static str, String)>,
}

impl ResourcePath {
    /// A top-level resource.
    pub fn top(collection: Collection, id: &str) -> Self {
        Self { collection, id: id.to_owned(), children: Vec::new() }
    }

    /// This resource's child.
    #[must_use]
    pub fn child(&self, name: &'static str, id: &str) -> Self {
        let mut path = self.clone();
        path.children.push((name, id.to_owned()));
        path
    }

    /// Reads `/virtualNetworks/contoso/subnets/sql`, with or without `/networking/v1` before it, collections in any case.
    ///
    /// # Errors
    /// [`Error::BadPath`] and [`Error::UnknownCollection`].
    pub fn parse(text: &str) -> Result<Self, Error> {
        let bad = || Error::BadPath { path: short(text) };
        let mut parts: Vec<&str> = text.trim_matches('/').split('/').collect();
        if parts.len() > 2 && parts[0].eq_ignore_ascii_case("networking") {
            parts.drain(..2);
        }
        if !parts.len().is_multiple_of(2) || parts.iter().any(|p| p.is_empty()) {
            return Err(bad());
        }
        let collection = Collection::from_name(parts[0])?;
        let names = collection.children();
        if parts.len() / 2 > names.len() + 1 || !parts.iter().skip(1).step_by(2).all(|id| valid_id(id)) {
            return Err(bad());
        }
        let mut children = Vec::new();
        for (pair, name) in parts[2..].chunks(2).zip(names) {
            if !pair[0].eq_ignore_ascii_case(name) {
                return Err(bad());
            }
            children.push((*name, pair[1].to_owned()));
        }
        Ok(Self { collection, id: parts[1].to_owned(), children })
    }
}

impl fmt::Display for ResourcePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}/{}", self.collection.name(), self.id)?;
        self.children.iter().try_for_each(|(name, id)| write!(f, "/{name}/{id}"))
    }
}

/// Whether `id` can stand in a path.
pub(crate) fn valid_id(id: &str) -> bool {
    !id.is_empty()
        && id.len() <= 128
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b))
        && id.bytes().any(|b| b != b'.')
}

impl ResourcePath {
    /// The form of the resource or child at this path.
    pub fn shape(&self) -> &'static Shape {
        let mut shape = self.collection.shape();
        for (name, _) in &self.children {
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
}
