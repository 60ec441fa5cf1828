//! Rule hits: how often each rule of an access control list decided a connection. Counted where the policy decides, which is
//! not the path of a packet that has a record.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use culvert_packet::VportId;
use culvert_policy::acl::Acl;
use culvert_policy::{Layer, ListDirection, Snapshot, TraceSink};

/// How often a rule allowed or denied a connection, or a packet that belongs to none.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RuleHit {
    /// The list.
    pub list: String,
    /// For which direction.
    pub direction: ListDirection,
    /// The rule.
    pub rule: String,
    /// How often.
    pub hits: u64,
}

/// Counts by rule.
type Rules = HashMap<String, u64>;

/// Counts by list, for each direction.
type Lists = HashMap<String, [Rules; 2]>;

/// Hits of all rules of the policy in force. Clones count together.
#[derive(Clone, Debug, Default)]
pub(crate) struct RuleHits(Arc<Mutex<Lists>>);

impl RuleHits {
    fn lists(&self) -> MutexGuard<'_, Lists> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, list: &str, direction: ListDirection, rule: &str) {
        let mut lists = self.lists();
        // Names are copied only for a rule's first hit.
        if !lists.contains_key(list) {
            lists.insert(list.to_owned(), <[Rules; 2]>::default());
        }
        let Some(rules) = lists.get_mut(list).map(|rules| &mut rules[direction as usize]) else { return };
        match rules.get_mut(rule) {
            Some(hits) => *hits += 1,
            None => drop(rules.insert(rule.to_owned(), 1)),
        }
    }

    /// All rules with hits, in order.
    pub(crate) fn all(&self) -> Vec<RuleHit> {
        let lists = self.lists();
        let mut all = Vec::new();
        for (list, rules) in lists.iter() {
            for (direction, rules) in [ListDirection::Inbound, ListDirection::Outbound].into_iter().zip(rules)
            {
                let hit = |(rule, hits): (&String, &u64)| RuleHit {
                    list: list.clone(),
                    direction,
                    rule: rule.clone(),
                    hits: *hits,
                };
                all.extend(rules.iter().map(hit));
            }
        }
        drop(lists);
        all.sort_unstable();
        all
    }

    /// Forgets the rules that a policy does not have.
    pub(crate) fn retain(&self, snapshot: &Snapshot) {
        // A list is the same for all vports that have it.
        let mut known: HashMap<(&str, usize), &Acl> = HashMap::new();
        for vport in snapshot.vports.values() {
            for (direction, set) in [&vport.acls_in, &vport.acls_out].into_iter().enumerate() {
                known.extend(set.acls.iter().map(|acl| ((acl.name.as_str(), direction), acl)));
            }
        }
        self.lists().retain(|list, directions| {
            for (direction, rules) in directions.iter_mut().enumerate() {
                let acl = known.get(&(list.as_str(), direction));
                let names: HashSet<&str> =
                    acl.iter().flat_map(|acl| acl.rules()).map(|rule| rule.name.as_str()).collect();
                rules.retain(|rule, _| names.contains(rule.as_str()));
            }
            directions.iter().any(|rules| !rules.is_empty())
        });
    }
}

impl TraceSink for &RuleHits {
    fn step(&mut self, _: Layer, _: Option<VportId>, _: &str, _: &str) {}

    fn decided(&mut self, list: &str, direction: ListDirection, rule: &str) {
        self.count(list, direction, rule);
    }
}
