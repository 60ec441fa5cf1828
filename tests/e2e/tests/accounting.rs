//! No packet of an allowed flow is lost or reordered, starting with the first.
#![forbid(unsafe_code)]

use std::time::Duration;

use culvert_e2e::accounting::{account, faults};
use culvert_e2e::deployment::Deployment;
use culvert_e2e::netns;
use culvert_e2e::policies::figure8;
use culvert_e2e::vm::Vm;
use culvert_packet::Encap;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(120);
/// Frames of a guest's log; more than any of these tests sends.
const LOG: usize = 1 << 20;
const BULK: u64 = 12 << 20;
const SHORT: u64 = 32 << 10;

/// Both tenants' SQL and Web.
fn guests(d: &Deployment) -> Vec<[Vm; 2]> {
    let guest = |host, name: &str, ip| d.guest(host, name, ip, LOG).unwrap();
    ["contoso", "fabrikam"]
        .map(|tenant| {
            let (sql, web) = (format!("{tenant}-sql"), format!("{tenant}-web"));
            [guest(0, &sql, "10.1.1.11/24"), guest(1, &web, "10.1.1.12/24")]
        })
        .into()
}

fn check(d: &Deployment, pairs: &mut [[Vm; 2]], least_flows: usize) {
    // Frames in flight, such as the last acknowledgement.
    std::thread::sleep(Duration::from_millis(500));
    for [sql, web] in pairs {
        // The tenants' guests have the same addresses, but not the same names.
        let flows = account(sql, web, d.dir()).unwrap();
        assert!(flows.len() >= least_flows, "only {} flows", flows.len());
        let faults = faults(&flows);
        let drops = [d.drops(0), d.drops(1)];
        assert!(faults.is_empty(), "{}: {faults:#?}; drops {drops:?}", sql.name());
    }
}

/// Figure 8 with one more rule, for unrelated packets, so that every vport gets a new generation.
fn changed(n: u64) -> Value {
    let mut policy = figure8(Encap::Vxlan).unwrap();
    let rules = policy["accessControlLists"][0]["properties"]["aclRules"].as_array_mut().unwrap();
    let mut rule = rules[0].clone();
    rule["resourceId"] = format!("deny-{n}").into();
    rule["properties"]["priority"] = (200 + n).into();
    rule["properties"]["destinationPortRange"] = (20 + n).to_string().into();
    rules.push(rule);
    policy
}

#[test]
fn nothing_is_lost_or_reordered_while_flows_are_created_and_policies_change() {
    netns::enter().unwrap();
    let d = Deployment::builder(figure8(Encap::Vxlan).unwrap()).start().unwrap();
    let mut pairs = guests(&d);
    for [sql, web] in &mut pairs {
        web.echo().unwrap();
        web.listen(5001).unwrap();
        sql.listen(5002).unwrap();
    }
    for (seed, [sql, web]) in (1..).zip(&mut pairs) {
        let (to_web, to_sql) = (web.address(), sql.address());
        sql.start_probe(to_web, Duration::from_secs(4)).unwrap();
        sql.send(to_web, 5001, BULK, seed).unwrap();
        web.send(to_sql, 5002, BULK, seed + 10).unwrap();
    }
    // Short connections beside the long ones, and policy changes during all of them.
    let mut shorts = 0;
    for round in 0..4 {
        for [sql, web] in &mut pairs {
            let to = web.address();
            for port in 6000 + round * 8..6008 + round * 8 {
                web.listen(port).unwrap();
                sql.send(to, port, SHORT, u64::from(port)).unwrap();
                shorts += 1;
            }
        }
        d.change_policy(&changed(u64::from(round))).unwrap();
    }
    for [sql, web] in &mut pairs {
        for port in 6000..6032 {
            let (sent, received) = (sql.transfer(port, LIMIT).unwrap(), web.transfer(port, LIMIT).unwrap());
            assert_eq!((received.bytes, &received.sha256), (SHORT, &sent.sha256));
            shorts -= 1;
        }
        for port in [5001, 5002] {
            let (one, other) = (sql.transfer(port, LIMIT).unwrap(), web.transfer(port, LIMIT).unwrap());
            assert_eq!((one.bytes, &one.sha256), (BULK, &other.sha256));
        }
        let probe = sql.probe(LIMIT).unwrap();
        assert_eq!((probe.received, probe.reordered), (probe.sent, 0), "{probe:?}");
    }
    assert_eq!(shorts, 0);
    check(&d, &mut pairs, 2 * (2 + 32 + 1));
    for host in [0, 1] {
        assert!(d.drops(host).unwrap().is_empty(), "{:?}", d.drops(host));
    }
}

#[test]
fn nothing_is_lost_while_the_next_hop_is_being_resolved() {
    netns::enter().unwrap();
    let policy = figure8(Encap::Nvgre).unwrap();
    let d = Deployment::builder(policy).silent_router(0).silent_router(1).start().unwrap();
    let mut pairs = guests(&d);
    for (seed, [sql, web]) in (1..).zip(&mut pairs) {
        web.echo().unwrap();
        web.listen(5001).unwrap();
        let to = web.address();
        sql.start_probe(to, Duration::from_secs(5)).unwrap();
        sql.send(to, 5001, SHORT, seed).unwrap();
    }
    std::thread::sleep(Duration::from_millis(1500));
    let waiting = d.cli(0, &["counters"]).unwrap();
    assert!(
        waiting["host"]["waited_for_next_hop"].as_u64().unwrap() > 0,
        "nothing waits for the next hop: {waiting}"
    );
    for host in [1, 2] {
        d.network().answer_arp(host, true).unwrap();
    }
    for [sql, web] in &mut pairs {
        let (sent, received) = (sql.transfer(5001, LIMIT).unwrap(), web.transfer(5001, LIMIT).unwrap());
        assert_eq!((received.bytes, &received.sha256), (SHORT, &sent.sha256));
        let probe = sql.probe(LIMIT).unwrap();
        assert_eq!((probe.received, probe.reordered), (probe.sent, 0), "{probe:?}");
    }
    check(&d, &mut pairs, 4);
}
