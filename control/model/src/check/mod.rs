//! Checks a bundle and builds the fabric: examines every resource, collects every problem.

mod acl;
mod disjoint;
mod interface;
mod network;
mod provider;
mod server;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;

use culvert_api::{
    Bundle, Collection, DistributedRouterState, MAX_LISTED, Protocol, Reference, ResourcePath, VsidRange,
    Warning, nearest,
};
use culvert_packet::{MacAddr, ParseError, Prefix};

use self::disjoint::DisjointPrefixes;
use crate::fabric::{Checked, Fabric};
use crate::names::host_mac;
use crate::{Kind, Problem, Problems};

impl Fabric {
    /// Checks a whole policy.
    ///
    /// # Errors
    /// Every problem of the policy. Resources with problems are left out of further checks, so that one mistake is
    /// reported once.
    pub fn check(bundle: &Bundle) -> Result<Checked, Problems> {
        let mut check = Check::new(bundle);
        check.manager(bundle);
        check.logical_networks(bundle);
        check.servers(bundle);
        check.acls(bundle);
        check.networks(bundle);
        check.interfaces(bundle);
        check.hosts_have_room(bundle);
        let Check { fabric, problems, .. } = check;
        if problems.list.is_empty() {
            Ok(Checked { fabric, warnings: problems.warnings, more_warnings: problems.more_warnings })
        } else {
            Err(problems)
        }
    }
}

/// The check's state.
struct Check {
    fabric: Fabric,
    problems: Problems,
    protocol: Protocol,
    vsids: VsidRange,
    /// Every resource that others may refer to, by lower-case path: its path as written.
    known: BTreeMap<String, String>,
    /// Those without problems, by lower-case path.
    valid: HashMap<String, FabricIndex>,
    /// Indices of the provider subnets, by their prefixes.
    provider_prefixes: DisjointPrefixes<usize>,
    /// Subnets of logical networks that may not carry virtual networks, by lower-case path.
    disabled: HashSet<String>,
}

/// Index of a resource in the fabric, and of the child in it.
type FabricIndex = (usize, usize);

/// Kind of resource that a reference names.
#[derive(Clone, Copy)]
enum Wanted {
    Acl,
    LogicalNetwork,
    LogicalSubnet,
    Server,
    VirtualSubnet,
}

impl Wanted {
    fn form(self) -> (Collection, usize, &'static str, &'static str) {
        match self {
            Wanted::Acl => {
                (Collection::AccessControlLists, 0, "access control list", "/accessControlLists/{id}")
            }
            Wanted::LogicalNetwork => {
                (Collection::LogicalNetworks, 0, "logical network", "/logicalNetworks/{id}")
            }
            Wanted::LogicalSubnet => {
                (Collection::LogicalNetworks, 1, "logical subnet", "/logicalNetworks/{id}/subnets/{id}")
            }
            Wanted::Server => (Collection::Servers, 0, "server", "/servers/{id}"),
            Wanted::VirtualSubnet => {
                (Collection::VirtualNetworks, 1, "virtual subnet", "/virtualNetworks/{id}/subnets/{id}")
            }
        }
    }
}

impl Check {
    fn new(bundle: &Bundle) -> Self {
        let mut known = BTreeMap::new();
        let mut add = |path: ResourcePath| {
            let path = path.to_string();
            known.insert(path.to_ascii_lowercase(), path);
        };
        for network in &bundle.logical_networks {
            let path = ResourcePath::top(Collection::LogicalNetworks, &network.resource_id);
            network.spec().subnets.iter().for_each(|s| add(path.child("subnets", &s.resource_id)));
            add(path);
        }
        for network in &bundle.virtual_networks {
            let path = ResourcePath::top(Collection::VirtualNetworks, &network.resource_id);
            network.spec().subnets.iter().for_each(|s| add(path.child("subnets", &s.resource_id)));
            add(path);
        }
        bundle.servers.iter().for_each(|s| add(ResourcePath::top(Collection::Servers, &s.resource_id)));
        for acl in &bundle.access_control_lists {
            add(ResourcePath::top(Collection::AccessControlLists, &acl.resource_id));
        }
        Self {
            fabric: Fabric::default(),
            problems: Problems::default(),
            protocol: Protocol::default(),
            vsids: VsidRange::default(),
            known,
            valid: HashMap::new(),
            provider_prefixes: DisjointPrefixes::default(),
            disabled: HashSet::new(),
        }
    }

    fn problem(&mut self, target: &impl ToString, kind: Kind) {
        self.problems.add(|| Problem { target: target.to_string(), kind });
    }

    fn problem_count(&self) -> usize {
        self.problems.count()
    }

    fn warning(&mut self, target: &impl ToString, message: String) {
        self.problems.warn(|| Warning { target: target.to_string(), message });
    }

    /// Notes that other resources may refer to this one.
    fn add_valid(&mut self, path: &ResourcePath, slot: FabricIndex) {
        self.valid.insert(path.to_string().to_ascii_lowercase(), slot);
    }

    /// Resolves a reference. `None`: the reference, or the resource that it names, has a problem, which is noted.
    fn resolve(
        &mut self,
        target: &ResourcePath,
        property: &'static str,
        reference: &Reference,
        wanted: Wanted,
    ) -> Option<FabricIndex> {
        let (collection, children, what, form) = wanted.form();
        let fits = |p: &ResourcePath| p.collection == collection && p.children.len() == children;
        let path = ResourcePath::parse(&reference.resource_ref).ok().filter(fits);
        let key = path.map(|p| p.to_string().to_ascii_lowercase());
        if let Some(key) = key.filter(|k| self.known.contains_key(k)) {
            if self.disabled.contains(&key) {
                self.problem(target, Kind::NotEnabled { property, value: reference.resource_ref.clone() });
            }
            return self.valid.get(&key).copied();
        }
        let near = self.nearest(&reference.resource_ref, fits);
        self.problem(
            target,
            Kind::UnknownReference {
                property,
                value: reference.resource_ref.clone(),
                what,
                wanted: form,
                near,
            },
        );
        None
    }

    /// The resource whose path is closest to a mistyped one.
    fn nearest(&self, text: &str, fits: impl Fn(&ResourcePath) -> bool) -> Option<String> {
        // All paths are compared with it: only for as many as an answer lists.
        if self.problems.list.len() == MAX_LISTED {
            return None;
        }
        let fitting = self.known.values().filter(|path| ResourcePath::parse(path).is_ok_and(|p| fits(&p)));
        nearest(text, fitting.map(String::as_str)).map(str::to_owned)
    }

    fn prefix(&mut self, target: &ResourcePath, property: &'static str, value: &str) -> Option<Prefix> {
        if value.is_empty() {
            self.problem(target, Kind::Missing { property, example: "\"10.1.1.0/24\"" });
            return None;
        }
        match value.parse() {
            Ok(prefix) => Some(prefix),
            Err(why) => {
                let (why, meant) = match (why, value.split_once('/')) {
                    (ParseError::HostBits, Some((addr, len))) => {
                        let meant = addr.parse().ok().zip(len.parse().ok());
                        let meant = meant.map(|(addr, len)| Prefix::of(addr, len));
                        ("has address bits set behind its length", meant)
                    }
                    _ => ("is not a prefix", None),
                };
                self.problem(target, Kind::BadPrefix { property, value: value.to_owned(), why, meant });
                None
            }
        }
    }

    fn address(&mut self, target: &ResourcePath, property: &'static str, value: &str) -> Option<IpAddr> {
        if value.is_empty() {
            self.problem(target, Kind::Missing { property, example: "\"10.1.1.11\"" });
            return None;
        }
        let address = value.parse().ok();
        if address.is_none() {
            self.problem(target, Kind::BadAddress { property, value: value.to_owned() });
        }
        address
    }

    fn mac(&mut self, target: &ResourcePath, property: &'static str, value: &str) -> Option<MacAddr> {
        let mac = host_mac(value);
        if mac.is_none() {
            self.problem(target, Kind::BadMac { property, value: value.to_owned() });
        }
        mac
    }

    fn manager(&mut self, bundle: &Bundle) {
        let path = ResourcePath::top(Collection::VirtualNetworkManager, "configuration");
        let mut all = bundle.virtual_network_manager.iter();
        let Some(manager) = all.next() else { return };
        if all.next().is_some() || !manager.resource_id.eq_ignore_ascii_case("configuration") {
            self.problem(&path, Kind::NotTheSingleton);
        }
        let spec = manager.spec();
        self.protocol = spec.network_virtualization_protocol.unwrap_or_default();
        self.fabric.settings.distributed_router =
            spec.distributed_router_state != Some(DistributedRouterState::Disabled);
        if let Some(range) = spec.virtual_subnet_id_range {
            let whole = VsidRange::default();
            if range.start < whole.start || range.end > whole.end || range.start > range.end {
                self.problem(&path, Kind::BadVsidRange { start: range.start, end: range.end });
            } else {
                self.vsids = range;
            }
        }
        if !spec.router_mac_address.is_empty()
            && let Some(mac) = self.mac(&path, "routerMacAddress", &spec.router_mac_address)
        {
            self.fabric.settings.router_mac = mac;
        }
    }
}
