//! What the slow path shows of itself, and flow records that are deleted on demand.

use std::time::{Duration, Instant};

use culvert_packet::tcp;
use culvert_policy::ListDirection;
use culvert_policy::acl::{Acl, AclSet, Action, PortRange, Rule};
use culvert_slowpath::RuleHit;

use super::*;

/// Waits until the slow path has published what `wanted` accepts.
fn published(slow_path: &SlowPath, wanted: impl Fn(&culvert_slowpath::Published) -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !wanted(&slow_path.handle().published()) {
        assert!(Instant::now() < end, "{:?}", slow_path.handle().published());
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_flushed_record_is_made_again_and_its_connection_stays() {
    let (nic, slow_path) = started(vec![]);
    let handle = slow_path.handle();
    nic.punt(meta(vport(11), Reason::Miss, 5), &udp(11, 12));
    reinjected(&nic, 5);
    published(&slow_path, |p| p.connections == 1 && p.counters.records_offloaded == 2);
    assert_eq!(handle.published().max_connections, Settings::default().limits.connections);
    let keys: Vec<_> = nic.state().records.iter().map(|r| (r.key, r.cold.connection)).collect();
    handle.flush_flows(&keys).expect("answered");
    assert_eq!(nic.state().records, []);
    assert_eq!(handle.published().connections, 1);
    nic.punt(meta(vport(11), Reason::Miss, 6), &udp(11, 12));
    reinjected(&nic, 6);
    let again: Vec<_> = nic.state().records.iter().map(|r| (r.key, r.cold.connection)).collect();
    assert_eq!(again, keys, "the same records of the same connection");
}

fn rule(name: &str, priority: u32, action: Action, protocol: Option<u8>) -> Rule {
    let (source, destination): (Vec<Prefix>, Vec<Prefix>) = Default::default();
    Rule {
        name: name.to_owned(),
        priority,
        action,
        protocol,
        source,
        destination,
        source_ports: PortRange::ANY,
        destination_ports: PortRange::ANY,
    }
}

#[test]
fn a_rule_has_a_hit_for_each_connection_that_it_decided() {
    let (nic, slow_path) = started(vec![]);
    let mut guarded = policy(2);
    let rules = vec![rule("dns", 100, Action::Allow, Some(17)), rule("default", 200, Action::Deny, None)];
    let lists = Arc::new(AclSet { acls: vec![Acl::new("guests".to_owned(), rules)] });
    guarded.vports.get_mut(&VportId(11)).expect("there").acls_out = lists;
    slow_path.handle().apply(Arc::new(guarded)).expect("applied");
    for slot in 5..8 {
        // One connection, though its record is made three times.
        nic.punt(meta(vport(11), Reason::Miss, slot), &udp(11, 12));
        reinjected(&nic, slot);
    }
    let ends =
        Ends { src_mac: mac(11), dst_mac: mac(12), src: [10, 1, 1, 11].into(), dst: [10, 1, 1, 12].into() };
    let mut frame = [0; 128];
    let header = tcp::Header { src_port: 1000, dst_port: 80, ..tcp::Header::default() };
    let len = craft::tcp(&mut frame, &ends, &header, &[]).expect("fits");
    for slot in 8..10 {
        nic.punt(meta(vport(11), Reason::Miss, slot), &frame[..len]);
        nic.wait("the packet is dropped", |s| {
            let wanted = ticket(slot);
            let is_it = |c: &FlowCommand| matches!(c, FlowCommand::Dropped(meta, Reason::AclDeny) if meta.ticket == wanted);
            s.commands.iter().any(is_it).then_some(())
        });
    }
    let hit = |rule: &str, hits| RuleHit {
        list: "guests".to_owned(),
        direction: ListDirection::Outbound,
        rule: rule.to_owned(),
        hits,
    };
    assert_eq!(slow_path.handle().rule_hits(), [hit("default", 2), hit("dns", 1)]);
    assert_eq!(slow_path.handle().vport_drops().get(&(VportId(11), Reason::AclDeny)), Some(&2));
    slow_path.handle().apply(Arc::new(policy(3))).expect("applied");
    assert_eq!(slow_path.handle().rule_hits(), [], "the list is gone");
}
