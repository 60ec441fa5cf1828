//! Access control lists: five-tuple rules by priority. At most one rule of a list matches a packet.

use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;

use culvert_packet::Prefix;

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Allow the connection.
    Allow,
    /// Deny the connection.
    Deny,
}

/// Ports from first to last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    /// First.
    pub first: u16,
    /// Last.
    pub last: u16,
}

impl PortRange {
    /// All ports.
    pub const ANY: PortRange = PortRange { first: 0, last: u16::MAX };

    fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its name in the policy.
    pub name: String,
    /// Lower values are checked first.
    pub priority: u32,
    /// Allow or deny.
    pub action: Action,
    /// IP protocol; `None` is any.
    pub protocol: Option<u8>,
    /// Source addresses; empty is any.
    pub source: Vec<Prefix>,
    /// Destination addresses; empty is any.
    pub destination: Vec<Prefix>,
    /// Source ports; ignored for protocols without ports.
    pub source_ports: PortRange,
    /// Destination ports.
    pub destination_ports: PortRange,
}

/// The fields that rules match.
#[derive(Clone, Copy, Debug)]
pub struct Tuple {
    /// Source.
    pub src: IpAddr,
    /// Destination.
    pub dst: IpAddr,
    /// IP protocol.
    pub protocol: u8,
    /// Source and destination port, for protocols that have them.
    pub ports: Option<(u16, u16)>,
}

impl Rule {
    fn matches(&self, t: &Tuple) -> bool {
        let within =
            |prefixes: &[Prefix], addr| prefixes.is_empty() || prefixes.iter().any(|p| p.contains(addr));
        let any_ports = self.source_ports == PortRange::ANY && self.destination_ports == PortRange::ANY;
        let ports = match t.ports {
            Some((src, dst)) => self.source_ports.contains(src) && self.destination_ports.contains(dst),
            None => any_ports,
        };
        self.protocol.is_none_or(|p| p == t.protocol)
            && ports
            && within(&self.source, t.src)
            && within(&self.destination, t.dst)
    }
}

/// A list, its rules in the order in which they are checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Acl {
    /// Its name in the policy.
    pub name: String,
    rules: Vec<Rule>,
}

impl Acl {
    /// A list of rules in any order.
    pub fn new(name: String, mut rules: Vec<Rule>) -> Self {
        rules.sort_by_key(|r| r.priority);
        Acl { name, rules }
    }

    /// The rules, by priority.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }
}

/// The lists of a vport for one direction: its own and its subnet's. All must allow a packet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AclSet {
    /// The lists.
    pub acls: Vec<Acl>,
}

/// Result of checking a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Matched<'a> {
    /// No list denies it. The rule is the last one that allowed it by name, with its number, if one did.
    Allowed(Option<(&'a str, u32)>),
    /// This rule of this list denies it.
    Denied {
        /// The list.
        acl: &'a str,
        /// The rule.
        rule: &'a str,
    },
}

impl AclSet {
    /// Checks a packet. A list without a matching rule allows it, as Windows port ACLs do.
    ///
    /// ```
    /// use culvert_policy::acl::{Acl, AclSet, Action, Matched, PortRange, Rule, Tuple};
    ///
    /// let deny_telnet = Rule {
    ///     name: "deny-telnet".to_owned(),
    ///     priority: 100,
    ///     action: Action::Deny,
    ///     protocol: Some(6),
    ///     source: Vec::new(),
    ///     destination: vec!["10.1.1.0/24".parse().unwrap()],
    ///     source_ports: PortRange::ANY,
    ///     destination_ports: PortRange { first: 23, last: 23 },
    /// };
    /// let lists = AclSet { acls: vec![Acl::new("guests".to_owned(), vec![deny_telnet])] };
    ///
    /// let (src, dst) = ([10, 1, 1, 11].into(), [10, 1, 1, 12].into());
    /// let telnet = Tuple { src, dst, protocol: 6, ports: Some((40_000, 23)) };
    /// assert_eq!(lists.check(&telnet), Matched::Denied { acl: "guests", rule: "deny-telnet" });
    /// let https = Tuple { ports: Some((40_000, 443)), ..telnet };
    /// assert_eq!(lists.check(&https), Matched::Allowed(None));
    /// ```
    pub fn check(&self, tuple: &Tuple) -> Matched<'_> {
        self.check_each(tuple, |_, _| {})
    }

    /// The same; calls `matched` with the rule of each list that matches.
    pub fn check_each(&self, tuple: &Tuple, mut matched: impl FnMut(&Acl, &Rule)) -> Matched<'_> {
        let mut allowed = None;
        for acl in &self.acls {
            let found = acl.rules.iter().enumerate().find(|(_, rule)| rule.matches(tuple));
            found.iter().for_each(|(_, rule)| matched(acl, rule));
            match found {
                Some((_, rule)) if rule.action == Action::Deny => {
                    return Matched::Denied { acl: &acl.name, rule: &rule.name };
                }
                Some((n, rule)) => allowed = Some((rule.name.as_str(), n as u32 + 1)),
                None => {}
            }
        }
        Matched::Allowed(allowed)
    }
}
