//! Access control lists in the policy engine's form: one set for each direction of a vport.

use culvert_api::{Direction, RuleAction};
use culvert_policy::acl::{self, AclSet, Action, Rule};

use crate::Fabric;
use crate::fabric::{Acl, AclEntry, Interface, Subnet};

/// Name of the rule for a list's default action.
const DEFAULT: &str = "default";

/// The sets for packets to and from the virtual machine: the interface's list and its subnet's.
pub(crate) fn acl_sets(fabric: &Fabric, interface: &Interface, subnet: &Subnet) -> (AclSet, AclSet) {
    let own = interface.acl.filter(|own| Some(*own) != subnet.acl);
    let lists: Vec<&Acl> = own.into_iter().chain(subnet.acl).filter_map(|n| fabric.acls.get(n)).collect();
    let set = |direction| AclSet { acls: lists.iter().map(|list| one(list, direction)).collect() };
    (set(Direction::Inbound), set(Direction::Outbound))
}

fn one(list: &Acl, direction: Direction) -> acl::Acl {
    let mut rules: Vec<Rule> = list.rules.iter().filter(|r| r.direction == direction).map(rule).collect();
    let default = match direction {
        Direction::Inbound => list.inbound_default,
        Direction::Outbound => list.outbound_default,
    };
    rules.push(Rule {
        name: DEFAULT.to_owned(),
        // After every rule of the policy.
        priority: u32::MAX,
        action: action(default),
        protocol: None,
        source: Vec::new(),
        destination: Vec::new(),
        source_ports: acl::PortRange::ANY,
        destination_ports: acl::PortRange::ANY,
    });
    acl::Acl::new(list.name.clone(), rules)
}

fn rule(entry: &AclEntry) -> Rule {
    let ports = |range: Option<crate::PortRange>| {
        range.map_or(acl::PortRange::ANY, |r| acl::PortRange { first: r.first, last: r.last })
    };
    Rule {
        name: entry.name.clone(),
        priority: entry.priority.into(),
        action: action(entry.action),
        protocol: entry.protocol,
        source: entry.source.into_iter().collect(),
        destination: entry.destination.into_iter().collect(),
        source_ports: ports(entry.source_ports),
        destination_ports: ports(entry.destination_ports),
    }
}

fn action(action: RuleAction) -> Action {
    match action {
        RuleAction::Allow => Action::Allow,
        RuleAction::Deny => Action::Deny,
    }
}
