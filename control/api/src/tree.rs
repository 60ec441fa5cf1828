//! A resource with its children, whatever their type: found, changed and stamped by path.

use std::collections::HashMap;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    AccessControlList, AclRule, IpConfiguration, IpPool, LogicalNetwork, LogicalSubnet, NetworkInterface,
    NetworkManager, ProvisioningState, Resource, Server, Uplink, VirtualNetwork, VirtualSubnet,
};

/// The content of a resource of one kind.
pub trait Spec: Clone + Default + PartialEq + Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The content of its children.
    type Child: Spec;
    /// Name of its children's collection; none: it has no children.
    const CHILDREN: Option<&'static str>;
    /// Its children.
    fn children(&self) -> &[Resource<Self::Child>];
    /// Its children; none: it cannot have any.
    fn children_mut(&mut self) -> Option<&mut Vec<Resource<Self::Child>>>;
}

macro_rules! parent {
    ($parent:ty, $child:ty, $name:literal, $field:ident) => {
        impl Spec for $parent {
            type Child = $child;
            const CHILDREN: Option<&'static str> = Some($name);
            fn children(&self) -> &[Resource<$child>] {
                &self.$field
            }
            fn children_mut(&mut self) -> Option<&mut Vec<Resource<$child>>> {
                Some(&mut self.$field)
            }
        }
    };
}

macro_rules! leaf {
    ($($leaf:ty),*) => {$(
        impl Spec for $leaf {
            type Child = $leaf;
            const CHILDREN: Option<&'static str> = None;
            fn children(&self) -> &[Resource<$leaf>] {
                &[]
            }
            fn children_mut(&mut self) -> Option<&mut Vec<Resource<$leaf>>> {
                None
            }
        }
    )*};
}

parent!(LogicalNetwork, LogicalSubnet, "subnets", subnets);
parent!(LogicalSubnet, IpPool, "ipPools", ip_pools);
parent!(Server, Uplink, "networkInterfaces", network_interfaces);
parent!(AccessControlList, AclRule, "aclRules", acl_rules);
parent!(VirtualNetwork, VirtualSubnet, "subnets", subnets);
parent!(NetworkInterface, IpConfiguration, "ipConfigurations", ip_configurations);
leaf!(NetworkManager, IpPool, Uplink, AclRule, VirtualSubnet, IpConfiguration);

/// A resource or child of any kind.
pub trait Node {
    /// Its name.
    fn id(&self) -> &str;
    /// Version of its content.
    fn etag(&self) -> &str;
    /// As JSON.
    fn json(&self) -> Value;
    /// A child by its name, in any case.
    fn child(&self, id: &str) -> Option<&dyn Node>;
    /// A child by its name, in any case.
    fn child_mut(&mut self, id: &str) -> Option<&mut dyn Node>;
    /// Its children as JSON.
    fn children_json(&self) -> Vec<Value>;
    /// Adds a child, or replaces the one of its name; `text` is its canonical JSON.
    ///
    /// # Errors
    /// The text is not a child's, or there are no children here.
    fn put_child(&mut self, text: &[u8]) -> Result<(), serde_json::Error>;
    /// Removes a child; returns whether it was there.
    fn remove_child(&mut self, id: &str) -> bool;
}

impl<P: Spec> Node for Resource<P> {
    fn id(&self) -> &str {
        &self.resource_id
    }

    fn etag(&self) -> &str {
        &self.etag
    }

    fn json(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }

    fn child(&self, id: &str) -> Option<&dyn Node> {
        let found = self.spec().children().iter().find(|c| c.resource_id.eq_ignore_ascii_case(id))?;
        Some(found)
    }

    fn child_mut(&mut self, id: &str) -> Option<&mut dyn Node> {
        let children = self.properties.spec.children_mut()?;
        Some(children.iter_mut().find(|c| c.resource_id.eq_ignore_ascii_case(id))?)
    }

    fn children_json(&self) -> Vec<Value> {
        self.spec().children().iter().map(Node::json).collect()
    }

    fn put_child(&mut self, text: &[u8]) -> Result<(), serde_json::Error> {
        let child: Resource<P::Child> = serde_json::from_slice(text)?;
        let Some(children) = self.properties.spec.children_mut() else { return Ok(()) };
        match children.iter_mut().find(|c| c.resource_id.eq_ignore_ascii_case(&child.resource_id)) {
            Some(place) => *place = child,
            None => children.push(child),
        }
        Ok(())
    }

    fn remove_child(&mut self, id: &str) -> bool {
        let Some(children) = self.properties.spec.children_mut() else { return false };
        let before = children.len();
        children.retain(|c| !c.resource_id.eq_ignore_ascii_case(id));
        children.len() < before
    }
}

/// Sets the daemon's properties of a resource and its children. Content that equals `old` keeps identity and etag;
/// `fresh` makes GUIDs.
pub(crate) fn stamp<P: Spec>(
    new: &mut Resource<P>,
    old: Option<&Resource<P>>,
    path: &str,
    fresh: &mut dyn FnMut() -> String,
) {
    if let (Some(children), Some(name)) = (new.properties.spec.children_mut(), P::CHILDREN) {
        let old = old.map(|o| o.spec().children()).unwrap_or_default();
        let before: HashMap<String, &Resource<P::Child>> =
            old.iter().map(|c| (c.resource_id.to_ascii_lowercase(), c)).collect();
        for child in children {
            let known = before.get(&child.resource_id.to_ascii_lowercase()).copied();
            let path = format!("{path}/{name}/{}", child.resource_id);
            stamp(child, known, &path, fresh);
        }
    }
    new.resource_ref = path.to_owned();
    new.properties.provisioning_state = Some(ProvisioningState::Succeeded);
    new.properties.configuration_state = None;
    // The children are stamped: an equal one has its old etag.
    let same = old.filter(|o| {
        (&o.resource_id, &o.tags, &o.resource_metadata)
            == (&new.resource_id, &new.tags, &new.resource_metadata)
            && o.spec() == new.spec()
    });
    new.instance_id = old.map_or_else(&mut *fresh, |o| o.instance_id.clone());
    new.etag = same.map_or_else(|| format!("W/\"{}\"", fresh()), |o| o.etag.clone());
}
