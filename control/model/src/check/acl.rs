//! Access control lists: protocols, ports, prefixes and priorities of their rules.

use std::collections::HashMap;

use culvert_api::{AclRule, Bundle, Collection, Direction, Resource, ResourcePath, RuleAction};
use culvert_packet::Prefix;

use super::Check;
use crate::Kind;
use crate::fabric::{Acl, AclEntry, PortRange};

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;

impl Check {
    pub(super) fn acls(&mut self, bundle: &Bundle) {
        for acl in &bundle.access_control_lists {
            let path = ResourcePath::top(Collection::AccessControlLists, &acl.resource_id);
            let spec = acl.spec();
            let mut rules = Vec::new();
            let mut priorities: HashMap<(Direction, u16), ResourcePath> = HashMap::new();
            for rule in &spec.acl_rules {
                let path = path.child("aclRules", &rule.resource_id);
                let Some(entry) = self.rule(&path, rule) else { continue };
                match priorities.get(&(entry.direction, entry.priority)) {
                    Some(other) => {
                        let kind = Kind::DuplicatePriority {
                            value: entry.priority,
                            direction: entry.direction.to_string(),
                            other: other.to_string(),
                        };
                        self.problem(&path, kind);
                    }
                    None => {
                        priorities.insert((entry.direction, entry.priority), path);
                        rules.push(entry);
                    }
                }
            }
            rules.sort_by_key(|r| (r.direction, r.priority));
            self.add_valid(&path, (self.fabric.acls.len(), 0));
            self.fabric.acls.push(Acl {
                name: acl.resource_id.clone(),
                inbound_default: spec.inbound_default_action.unwrap_or(RuleAction::Allow),
                outbound_default: spec.outbound_default_action.unwrap_or(RuleAction::Allow),
                rules,
            });
        }
    }

    /// Notes all problems of a rule, not only the first.
    fn rule(&mut self, path: &ResourcePath, rule: &Resource<AclRule>) -> Option<AclEntry> {
        let before = self.problem_count();
        let spec = rule.spec();
        if spec.action.is_none() {
            self.problem(path, Kind::Missing { property: "action", example: "\"Allow\"" });
        }
        if spec.direction.is_none() {
            self.problem(path, Kind::Missing { property: "type", example: "\"Inbound\"" });
        }
        let priority = match spec.priority {
            None => {
                self.problem(path, Kind::Missing { property: "priority", example: "100" });
                None
            }
            Some(value) => {
                let priority = u16::try_from(value).ok().filter(|p| *p > 0);
                if priority.is_none() {
                    self.problem(path, Kind::BadPriority { value });
                }
                priority
            }
        };
        let protocol = protocol(&spec.protocol);
        if protocol.is_none() {
            self.problem(path, Kind::BadProtocol { value: spec.protocol.clone() });
        }
        let has_ports = matches!(protocol, Some(Some(TCP | UDP)));
        let mut ports = |property, value: &str| -> Option<PortRange> {
            let Some(range) = port_range(value) else {
                self.problem(path, Kind::BadPorts { property, value: value.to_owned() });
                return None;
            };
            if range.is_some() && protocol.is_some() && !has_ports {
                let kind = Kind::PortsNeedProtocol {
                    property,
                    value: value.to_owned(),
                    protocol: spec.protocol.clone(),
                };
                self.problem(path, kind);
            }
            range
        };
        let source_ports = ports("sourcePortRange", &spec.source_port_range);
        let destination_ports = ports("destinationPortRange", &spec.destination_port_range);
        let source = self.rule_prefix(path, "sourceAddressPrefix", &spec.source_address_prefix);
        let destination =
            self.rule_prefix(path, "destinationAddressPrefix", &spec.destination_address_prefix);
        if let (Some(s), Some(d)) = (source, destination)
            && s.addr().is_ipv4() != d.addr().is_ipv4()
        {
            self.problem(
                path,
                Kind::TwoFamilies { source_prefix: s.to_string(), destination: d.to_string() },
            );
        }
        if self.problem_count() > before {
            return None;
        }
        Some(AclEntry {
            name: rule.resource_id.clone(),
            direction: spec.direction?,
            priority: priority?,
            protocol: protocol?,
            source_ports,
            destination_ports,
            source,
            destination,
            action: spec.action?,
        })
    }

    /// `None` is everything. A single address is a prefix of its whole length.
    fn rule_prefix(&mut self, path: &ResourcePath, property: &'static str, value: &str) -> Option<Prefix> {
        match value {
            "" | "*" => None,
            text => self.prefix(path, property, text),
        }
    }
}

/// `Some(None)`: every protocol.
fn protocol(text: &str) -> Option<Option<u8>> {
    Some(match text.trim().to_ascii_uppercase().as_str() {
        "" | "ALL" | "ANY" | "*" => None,
        "TCP" => Some(TCP),
        "UDP" => Some(UDP),
        "ICMP" | "ICMPV4" => Some(ICMP),
        "ICMPV6" => Some(ICMPV6),
        number => Some(number.parse().ok()?),
    })
}

/// `Some(None)`: every port.
fn port_range(text: &str) -> Option<Option<PortRange>> {
    let text = text.trim();
    if text.is_empty() || text == "*" {
        return Some(None);
    }
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let range = PortRange { first: first.trim().parse().ok()?, last: last.trim().parse().ok()? };
    let everything = range == PortRange { first: 0, last: u16::MAX };
    (range.first <= range.last).then_some(if everything { None } else { Some(range) })
}
